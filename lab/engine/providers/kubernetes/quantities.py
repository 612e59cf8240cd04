"""Kubernetes quantities in the form that the server gives back (``0.5`` is ``500m``, ``1024Mi`` is ``1Gi``)."""

from __future__ import annotations

import re
from decimal import ROUND_UP, Decimal
from typing import Any

_QUANTITY = re.compile(r"^([+-]?(?:\d+\.?\d*|\.\d+))((?:[KMGTPE]i)|[numkMGTPE]|[eE][+-]?\d+)?$")
_BINARY = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_DECIMAL = ("n", "u", "m", "", "k", "M", "G", "T", "P", "E")
_HOLDERS = frozenset({"limits", "requests", "capacity", "hard", "default", "defaultRequest", "overhead"})
_FIELDS = frozenset({"sizeLimit", "divisor", "averageValue"})


def canonical_quantity(value: str | int | float) -> str | int | float:
    """The canonical text; what is no quantity comes back unchanged."""
    match = _QUANTITY.match(str(value).strip())
    if match is None:
        return value
    number, suffix = Decimal(match[1]), match[2] or ""
    if suffix in _BINARY[1:]:
        return _binary(number * 1024 ** _BINARY.index(suffix))
    if suffix[:1] in ("e", "E") and len(suffix) > 1:
        return _exponent(number, int(suffix[1:]))
    return _decimal(number.scaleb(3 * (_DECIMAL.index(suffix) - 3)))


def _binary(amount: Decimal) -> str:
    # A binary quantity that is not whole, or is below 1024, is written in decimal form by the server.
    if amount != amount.to_integral_value():
        return _decimal(amount)
    count, power = int(amount), 0
    while count and count % 1024 == 0 and power < len(_BINARY) - 1:
        count, power = count // 1024, power + 1
    return f"{count}{_BINARY[power]}"


def _decimal(amount: Decimal) -> str:
    count = int(amount.scaleb(9).to_integral_value(rounding=ROUND_UP))
    power = 0
    while count and count % 1000 == 0 and power < len(_DECIMAL) - 1:
        count, power = count // 1000, power + 1
    return f"{count}{_DECIMAL[power]}" if count else "0"


def _exponent(number: Decimal, power: int) -> str:
    count = number.scaleb(power)
    digits, shift = int(count), 0
    while digits and digits % 1000 == 0:
        digits, shift = digits // 1000, shift + 3
    return f"{digits}e{shift}" if shift else str(digits)


def canonical_quantities(value: Any, holder: str = "") -> Any:
    """The same object with every quantity of Kubernetes' own kinds in canonical form."""
    if isinstance(value, dict):
        return {key: _member(key, item, holder) for key, item in value.items()}
    if isinstance(value, list):
        return [canonical_quantities(item, holder) for item in value]
    return value


def _member(key: str, item: Any, holder: str) -> Any:
    is_scalar = isinstance(item, str | int | float) and not isinstance(item, bool)
    if is_scalar and (holder in _HOLDERS or key in _FIELDS):
        return canonical_quantity(item)
    return canonical_quantities(item, key if key in _HOLDERS else "")
