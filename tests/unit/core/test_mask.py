"""The masker against a brute-force oracle, and each spelling of a secret by itself."""

from __future__ import annotations

import base64
import html
import json
import re
import shlex
import urllib.parse

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runbooks.core.mask import Masker, Rule, patterns_of
from tests.fixtures import side_by_side

COLOUR = re.compile(rb"(?:\x1b|\\{1,4}u001[bB])(?:\[[0-?]{0,64}[ -/]{0,8}[@-~]|[()][0-9A-Za-z])")
SECRET = 'pa$$w0rd "of" <the> day/+&\'s'
PEM = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0B\nAQEFAASCBKcwggSjAgEAAoIB\nZm9vYg==\n-----END KEY-----\n"


# --- the oracle: every byte of the text is looked at by itself -------------------------------------------------------


def occurrences(text: bytes, cuts: set[int], rules: dict[bytes, Rule]) -> set[tuple[int, int]]:
    """Start and end of each match; at `cuts` there was a colour code."""
    word = set(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")

    def neighbour(place: int) -> int | None:
        return text[place] if 0 <= place < len(text) else None

    def joined(edge: int, near: int | None, far: int | None, rule: Rule) -> bool:
        if edge not in word or near is None:
            return False
        if near in word or (rule is Rule.NAME and near == ord("-")):
            return True
        return rule is Rule.NAME and near in b"./" and far in word

    found = set()
    for pattern, rule in rules.items():
        for start in range(len(text) - len(pattern) + 1):
            end = start + len(pattern)
            if text[start:end] == pattern and (
                rule is Rule.ANYWHERE
                or not (
                    (start not in cuts and joined(pattern[0], neighbour(start - 1), neighbour(start - 2), rule))
                    or (end not in cuts and joined(pattern[-1], neighbour(end), neighbour(end + 1), rule))
                )
            ):
                found.add((start, end))
    return found


def merged(spans: set[tuple[int, int]]) -> list[list[int]]:
    together: list[list[int]] = []
    for start, end in sorted(spans):
        if together and start < together[-1][1]:
            together[-1][1] = max(end, together[-1][1])
        else:
            together.append([start, end])
    return together


def oracle(text: bytes, rules: dict[bytes, Rule]) -> bytes:
    shown = COLOUR.sub(b"", text)
    cuts = {len(COLOUR.sub(b"", text[: code.start()])) for code in COLOUR.finditer(text)}
    for start, end in reversed(merged(occurrences(shown, cuts, rules))):
        shown = shown[:start] + b"[secret]" + shown[end:]
    return shown


class RawMasker(Masker):
    """A masker of exactly these patterns, so that tiny alphabets give many overlaps."""

    def __init__(self, rules: dict[bytes, Rule]) -> None:
        super().__init__()
        self._patterns = rules


def small_rules(alphabet: str) -> st.SearchStrategy[dict[bytes, Rule]]:
    pattern = st.text(alphabet, min_size=1, max_size=9).map(str.encode)
    return st.dictionaries(pattern, st.sampled_from(list(Rule)), min_size=1, max_size=5)


COLOURED = st.lists(
    st.sampled_from(
        [
            *("a", "b", "ab", "ba", "-", ".", "/", " ", "\x1b[1m", "\x1b[a", "\x1b(B", "\x1b", "["),
            *("\\u001b[1m", "\\\\u001B[a", "\\u001b(B", "\\u001b", "\\u00", "\\", "u001b[1m"),
        ]
    )
).map("".join)


@given(
    rules_and_text=st.sampled_from(["ab", "ab-./ "]).flatmap(
        lambda alphabet: st.tuples(small_rules(alphabet), st.text(alphabet, max_size=60))
    )
    | st.tuples(small_rules("ab"), COLOURED)
)
@settings(max_examples=1500, deadline=None)
def test_overlaps_tokens_and_colours_agree_with_the_oracle(rules_and_text: tuple[dict[bytes, Rule], str]) -> None:
    rules, text = rules_and_text
    assert RawMasker(rules).mask_bytes(text.encode()) == oracle(text.encode(), rules)


@given(
    secrets=st.lists(
        st.text(min_size=8, max_size=30).filter(lambda text: len(text.strip()) >= 8), min_size=1, max_size=4
    ),
    data=st.data(),
)
@settings(max_examples=200, deadline=None)
def test_no_secret_survives(secrets: list[str], data: st.DataObject) -> None:
    masker = Masker(secrets)
    around = st.text(max_size=10)
    text = "".join(data.draw(around) + secret + data.draw(around) for secret in secrets)
    raw = text.encode("utf-8", "surrogatepass")
    shown = masker.mask(text)
    assert shown.encode("utf-8", "surrogatepass") == masker.mask_bytes(raw) == oracle(raw, masker._patterns)
    assert "[secret]" in shown


# --- the spellings ---------------------------------------------------------------------------------------------------


def go_json(value: str) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def spellings(secret: str) -> dict[str, str]:
    return {
        "raw": secret,
        "json": json.dumps(secret),
        "json of go": go_json(secret),
        "json in json": json.dumps(json.dumps(secret)),
        "url": urllib.parse.quote(secret, safe=""),
        "url path": urllib.parse.quote(secret),
        "url form": urllib.parse.quote_plus(secret),
        "url lower case": re.sub("%..", lambda found: found[0].lower(), urllib.parse.quote(secret, safe="")),
        "base64": base64.b64encode(secret.encode()).decode(),
        "base64url": base64.urlsafe_b64encode(secret.encode()).decode(),
        "base64url without padding": base64.urlsafe_b64encode(secret.encode()).decode().rstrip("="),
        "shell": shlex.quote(secret),
        "shell, other quotes": "'" + secret.replace("'", "'\\''") + "'",
        "shell, double quotes": '"' + re.sub(r'([$`"\\])', r"\\\1", secret) + '"',
        "python": repr(secret),
        "yaml": "'" + secret.replace("'", "''") + "'",
        "xml": html.escape(secret),
        "xml text": html.escape(secret, quote=False),
        "xml of go": html.escape(secret, quote=False).replace('"', "&#34;").replace("'", "&#39;"),
        "hex": secret.encode().hex(),
        "hex upper case": secret.encode().hex().upper(),
        "coloured": "\x1b[1m" + "\x1b[0m\x1b[32m".join(secret) + "\x1b[0m",
    }


def in_json(text: str) -> dict[str, str]:
    """What a program printed, as the message of an event."""
    return {"go": go_json(text), "python": json.dumps(text), "unicode": json.dumps(text, ensure_ascii=False)}


@pytest.mark.parametrize("secret", [SECRET, "käfig\\<tür>&\"'x"])
@pytest.mark.parametrize("form", spellings(SECRET))
def test_each_spelling_is_masked_whole_also_within_json(form: str, secret: str) -> None:
    if form == "coloured":
        secret = secret.replace("\\", "")  # before a code, one in JSON could as well be a part of it
    masker = Masker([secret])
    shown = masker.mask(f"value: {spellings(secret)[form]} end")
    assert re.fullmatch(r"""value: ["'\\]*\[secret\]["'\\]* end""", shown), shown
    for name, text in in_json(f"value: {spellings(secret)[form]} end").items():
        shown = masker.mask(text)
        assert re.fullmatch(r'''"value: ["'\\]*\[secret\]["'\\]* end"''', shown), (name, text, shown)


@pytest.mark.parametrize("alphabet", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("after", ["", "a", "ab", "abc"])
@pytest.mark.parametrize("before", ["", "u", "u:", "ué", "user:"])
def test_base64_with_text_around_it(alphabet: object, before: str, after: str) -> None:
    secret = "ÿ~?>correct horse?~"
    encoded = alphabet((before + secret + after).encode()).decode()
    shown = Masker([secret]).mask(f"auth {encoded}")
    assert "[secret]" in shown
    # At most the two characters that also hold bits of the neighbours are left on either side.
    left = shown.removeprefix("auth ").replace("[secret]", "")
    assert len(left) <= len(base64.b64encode((before + "x" + after).encode())) + 4


@pytest.mark.parametrize(
    "text",
    [
        PEM,
        PEM.replace("\n", "\r\n"),
        PEM.replace("\n", " "),
        json.dumps(PEM),
        "key: |\n" + "".join(f"    {line}\n" for line in PEM.splitlines()),
        "".join(f"diag: error: {line}\n" for line in PEM.splitlines()),
        base64.b64encode(PEM.encode()).decode(),
        base64.encodebytes(PEM.encode()).decode(),
    ],
)
def test_a_secret_of_several_lines(text: str) -> None:
    masker = Masker([PEM])
    kept = ["MIIEvQIBADAN", "AQEFAASCBKcw", "Zm9vYg", base64.b64encode(PEM.encode()).decode()[20:40]]
    for shown in (masker.mask(text), "".join(map(masker.mask, text.splitlines(keepends=True)))):
        assert not [part for part in kept if part in shown]


def test_a_colour_code_ends_a_word() -> None:
    """A short secret is masked as a whole token, and a code is removed without joining what it separated."""
    masker = Masker(["hunt5r"])
    assert masker.mask("password\x1b[33mhunt5r\x1b[0m.") == "password[secret]."
    assert masker.mask("passwordhunt5r") == "passwordhunt5r"


def test_the_markers_of_a_key_and_a_lone_brace_are_no_secrets() -> None:
    masker = Masker([PEM, '{\n  "private_key": "abcdefgh"\n}'])
    assert masker.mask("-----BEGIN KEY-----") == "-----BEGIN KEY-----"
    assert masker.mask('{"a": {}}') == '{"a": {}}'


def test_a_very_long_secret_is_masked_also_when_cut_off() -> None:
    secret = "".join(f"{n:05d}x" for n in range(2000))
    masker = Masker([secret])
    assert masker.mask(f"<{secret}>") == "<[secret]>"
    assert "00100x" not in masker.mask(secret[:5000])
    assert max(len(pattern) for pattern, _ in patterns_of(secret)) <= 512


# --- what is masked and what not -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("secret", "text", "shown"),
    [
        ("hunter22", "xhunter22x", "x[secret]x"),
        ("hunter2", "hunter2 hunter22 (hunter2) „hunter2“", "[secret] hunter22 ([secret]) „[secret]“"),
        ("hunter2", "\x1b[31mhunter2\x1b[0m", "[secret]"),
        ("hunter2", "user:hunter2@host", "user:[secret]@host"),
        ("abcd", "abcd abcde YWJjZA==", "[secret] abcde [secret]"),
        ("abc", "abc", "abc"),
        ("", "abc", "abc"),
        ("    ", "a    b", "a    b"),
        ("true", "true", "true"),
        ("False", "False", "False"),
        ("5432", "5432", "5432"),
        ("12345", "12345", "12345"),
        ("-12345", "-12345", "-12345"),
        ("123456", "123456 1234567", "[secret] 1234567"),
        ("12345678", "x12345678x", "x[secret]x"),
        ("a\nb", "a b", "a b"),
    ],
)
def test_the_rules(secret: str, text: str, shown: str) -> None:
    assert Masker([secret]).mask(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgres", "[secret]"),
        ("user=postgres;", "user=[secret];"),
        ("postgresql-cluster-rw.postgresql.svc", "postgresql-cluster-rw.postgresql.svc"),
        ("deploy.postgres", "deploy.postgres"),
        ("data/databases/postgres:", "data/databases/postgres:"),
        ("postgres-1", "postgres-1"),
        ("it is postgres.", "it is [secret]."),
        ("it is postgres. Then", "it is [secret]. Then"),
        ("postgresql://postgres:x@localhost", "postgresql://[secret]:x@localhost"),
        ('{"username":"cG9zdGdyZXM="}', '{"username":"[secret]"}'),
    ],
)
def test_a_secret_that_is_a_public_name(text: str, shown: str) -> None:
    masker = Masker(["postgres"], public_names=["postgres", "postgresql-cluster"])
    assert masker.mask(text) == shown


def test_our_own_sentences_keep_public_names_and_nothing_else() -> None:
    masker = Masker(["hunter2", "long postgres secret"], public_names=["postgres"])
    masker.register("postgres")
    assert masker.mask_own("preview postgres: hunter2") == "preview postgres: [secret]"
    assert masker.mask("preview postgres: hunter2") == "preview [secret]: [secret]"
    assert masker.mask_own("postgres has a long postgres secret") == "postgres has a [secret]"
    assert masker.mask_own("user cG9zdGdyZXM=") == "user [secret]"
    masker.register("registered-later")
    assert masker.mask_own("postgres registered-later") == "postgres [secret]"


@pytest.mark.parametrize(
    ("secrets", "text", "shown"),
    [
        (["password", "password-and-more"], "<password-and-more> <password>", "<[secret]> <[secret]>"),
        (["password-and-more", "password"], "<password-and-more> <password>", "<[secret]> <[secret]>"),
        (["abcdefgh", "efghijkl"], "..abcdefghijkl..", "..[secret].."),
        (["abababab"], "xabababababay", "x[secret]ay"),
        (["aaaaaaaa"], "a" * 200_000, "[secret]"),
    ],
)
def test_secrets_that_overlap(secrets: list[str], text: str, shown: str) -> None:
    assert Masker(secrets).mask(text) == shown
    assert Masker(secrets).mask_bytes(b"\xff\xfe\x00" + text.encode()) == b"\xff\xfe\x00" + shown.encode()


def test_registering_and_masking_from_many_threads() -> None:
    masker = Masker()
    leaks: list[str] = []

    def work(number: int) -> None:
        for count in range(50):
            secret = f"secret-{number:02d}-{count:03d}"
            masker.register(secret)
            if secret in masker.mask(f"<{secret}>"):
                leaks.append(secret)

    side_by_side(work, 8)
    assert leaks == []
