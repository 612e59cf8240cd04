"""URNs: ``urn:pulumi:<stack>::<project>::<parent types>$<type>::<name>``."""

from __future__ import annotations

ROOT_STACK_TYPE = "pulumi:pulumi:Stack"
PROVIDER_TYPE_PREFIX = "pulumi:providers:"
STACK_REFERENCE_TYPE = "pulumi:pulumi:StackReference"


def make_urn(stack: str, project: str, parent: str, type: str, name: str) -> str:
    """The root stack's type is left out of the chain of parent types."""
    parent_types = qualified_type(parent) if parent else ""
    chain = f"{parent_types}${type}" if parent_types and parent_types != ROOT_STACK_TYPE else type
    return f"urn:pulumi:{stack}::{project}::{chain}::{name}"


def qualified_type(urn: str) -> str:
    return urn.split("::", 3)[2]


def type_of(urn: str) -> str:
    return qualified_type(urn).rsplit("$", 1)[-1]


def name_of(urn: str) -> str:
    return urn.split("::", 3)[3]


def package_of(type: str) -> str:
    """``kubernetes:core/v1:Namespace`` gives ``kubernetes``; ``pulumi:providers:x`` gives ``x``."""
    if type.startswith(PROVIDER_TYPE_PREFIX):
        return type.removeprefix(PROVIDER_TYPE_PREFIX)
    return type.split(":", 1)[0]


def is_provider(type: str) -> bool:
    return type.startswith(PROVIDER_TYPE_PREFIX)


def is_default_provider(urn: str) -> bool:
    """Made by the engine, never shown."""
    name = name_of(urn)
    return is_provider(type_of(urn)) and (name == "default" or name.startswith("default_"))


def provider_urn(reference: str) -> str:
    """The URN of ``<urn>::<id>``."""
    return reference.rsplit("::", 1)[0]
