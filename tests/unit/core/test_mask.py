"""The streaming masker against a brute-force oracle, and each spelling of a secret by itself."""

from __future__ import annotations

import base64
import html
import itertools
import json
import re
import shlex
import threading
import urllib.parse

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runbooks.core.mask import Masker, Rule, patterns_of

ESCAPE = re.compile(rb"(?:\x1b|\\{1,4}u001[bB])(?:\[[0-?]{0,64}[ -/]{0,8}[@-~]|[()][0-9A-Za-z])")
SECRET = 'pa$$w0rd "of" <the> day/+&\'s'
PEM = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0B\nAQEFAASCBKcwggSjAgEAAoIB\nZm9vYg==\n-----END KEY-----\n"


# --- the oracle: every byte of the text is looked at by itself -------------------------------------------------------


def occurrences(text: bytes, context: list[int | None], rules: dict[bytes, Rule]) -> set[tuple[int, int]]:
    """Start and end of each match; `context` is the text with None for every colour code."""
    places = [index for index, byte in enumerate(context) if byte is not None]
    word = set(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")

    def neighbour(place: int) -> int | None:
        return context[place] if 0 <= place < len(context) else None

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
            if text[start:end] != pattern:
                continue
            left, right = places[start], places[end - 1]
            if rule is not Rule.ANYWHERE and (
                joined(pattern[0], neighbour(left - 1), neighbour(left - 2), rule)
                or joined(pattern[-1], neighbour(right + 1), neighbour(right + 2), rule)
            ):
                continue
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
    shown_at: list[int] = []
    shown_context: list[int | None] = []
    position = 0
    for found in itertools.chain(ESCAPE.finditer(text), [None]):
        stop = found.start() if found else len(text)
        shown_at += range(position, stop)
        shown_context += text[position:stop]
        if found:
            shown_context.append(None)
            position = found.end()
    shown = bytes(text[place] for place in shown_at)
    pieces: list[tuple[int, int, bool]] = []
    for start, end in merged(occurrences(shown, shown_context, rules)):
        first = start
        for place in range(start + 1, end + 1):
            if place == end or shown_at[place] != shown_at[place - 1] + 1:
                pieces.append((shown_at[first], shown_at[place - 1] + 1, first == start))
                first = place
    pieces += [(start, end, True) for start, end in merged(occurrences(text, list(text), rules))]
    out, hidden_to = [], 0
    announced_here = {start for start, _, announce in pieces if not announce}
    for position in range(len(text)):
        here = [piece for piece in pieces if piece[0] == position]
        if here and position >= hidden_to and position not in announced_here:
            out.append(b"[secret]")
        hidden_to = max([hidden_to, *(piece[1] for piece in here)])
        if position >= hidden_to:
            out.append(text[position : position + 1])
    return b"".join(out)


class RawMasker(Masker):
    """A masker of exactly these patterns, so that tiny alphabets give many overlaps."""

    def __init__(self, rules: dict[bytes, Rule]) -> None:
        super().__init__()
        self._patterns = rules


def streamed(masker: Masker, text: bytes, cuts: list[int]) -> bytes:
    stream = masker.stream()
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    return b"".join([stream.feed(text[start:end]) for start, end in itertools.pairwise(edges)] + [stream.flush()])


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
)


@given(
    rules=small_rules("ab"),
    text=st.text("ab", max_size=60).map(str.encode),
    cuts=st.lists(st.integers(0, 60), max_size=40),
)
@settings(max_examples=500, deadline=None)
def test_overlaps_and_splits_agree_with_the_oracle(rules: dict[bytes, Rule], text: bytes, cuts: list[int]) -> None:
    assert streamed(RawMasker(rules), text, cuts) == oracle(text, rules)


@given(
    rules=small_rules("ab-./ "),
    text=st.text("ab-./ ", max_size=60).map(str.encode),
    cuts=st.lists(st.integers(0, 60), max_size=60),
)
@settings(max_examples=500, deadline=None)
def test_whole_tokens_agree_with_the_oracle(rules: dict[bytes, Rule], text: bytes, cuts: list[int]) -> None:
    assert streamed(RawMasker(rules), text, cuts) == oracle(text, rules)


@given(
    rules=small_rules("ab[m1"),
    text=COLOURED.map(lambda parts: "".join(parts).encode()),
    cuts=st.lists(st.integers(0, 60), max_size=60),
)
@example(rules={b"ab": Rule.ANYWHERE}, text=b"a\\u001b[1mb", cuts=list(range(11)))
@example(rules={b"[1ma": Rule.ANYWHERE, b"aa": Rule.ANYWHERE}, text=b"a\x1b[1maa", cuts=[1, 2, 3, 4, 5, 6])
@settings(max_examples=1000, deadline=None)
def test_colour_codes_agree_with_the_oracle(rules: dict[bytes, Rule], text: bytes, cuts: list[int]) -> None:
    assert streamed(RawMasker(rules), text, cuts) == oracle(text, rules)


LONG_ENOUGH = st.text(min_size=8, max_size=30).filter(lambda text: len(text.strip()) >= 8)


@given(
    secrets=st.lists(
        st.text(min_size=8, max_size=30).filter(lambda text: len(text.strip()) >= 8), min_size=1, max_size=4
    ),
    data=st.data(),
)
@settings(max_examples=200, deadline=None)
def test_no_secret_survives_any_split(secrets: list[str], data: st.DataObject) -> None:
    masker = Masker(secrets)
    around = st.text(max_size=10)
    text = "".join(data.draw(around) + secret + data.draw(around) for secret in secrets)
    raw = text.encode("utf-8", "surrogatepass")
    cuts = data.draw(st.lists(st.integers(0, len(raw)), max_size=len(raw)))
    shown = streamed(masker, raw, cuts)
    assert shown == masker.mask(text).encode("utf-8", "surrogatepass")
    assert shown == oracle(raw, masker._patterns)


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


SPELLINGS = spellings(SECRET)


@pytest.mark.parametrize("form", SPELLINGS)
def test_each_spelling_is_masked_whole(form: str) -> None:
    shown = Masker([SECRET]).mask(f"value: {SPELLINGS[form]} end")
    visible = re.sub(r"\x1b\[\d*m", "", shown)
    assert re.fullmatch(r"""value: ["'\\]*\[secret\]["'\\]* end""", visible), shown


@pytest.mark.parametrize("form", SPELLINGS)
def test_each_spelling_is_masked_when_read_byte_by_byte(form: str) -> None:
    masker = Masker([SECRET])
    text = f"value: {SPELLINGS[form]} end".encode()
    assert streamed(masker, text, list(range(len(text)))).decode() == masker.mask(text.decode())


def in_json(text: str) -> dict[str, str]:
    """What a program printed, as the message of an event."""
    return {
        "go": go_json(text),
        "python": json.dumps(text),
        "unicode": json.dumps(text, ensure_ascii=False),
    }


@pytest.mark.parametrize("secret", [SECRET, "käfig\\<tür>&\"'x"])
@pytest.mark.parametrize("form", SPELLINGS)
def test_each_spelling_is_masked_within_json(form: str, secret: str) -> None:
    if form == "coloured":
        secret = secret.replace("\\", "")  # before a code, one in JSON could as well be a part of it
    masker = Masker([secret])
    for name, text in in_json(f"value: {spellings(secret)[form]} end").items():
        shown = re.sub(r"\\+u001b\[\d*m", "", masker.mask(text))
        assert re.fullmatch(r'''"value: ["'\\]*\[secret\]["'\\]* end"''', shown), (name, text, shown)


@pytest.mark.parametrize("alphabet", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("after", ["", "a", "ab", "abc"])
@pytest.mark.parametrize("before", ["", "u", "u:", "ué", "user:"])
def test_base64_with_text_around_it(alphabet: object, before: str, after: str) -> None:
    secret = "ÿ~?>correct horse?~"
    encoded = alphabet((before + secret + after).encode()).decode()  # type: ignore[operator]
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
    shown = streamed(masker, text.encode(), list(range(0, len(text), 3))).decode()
    kept = ["MIIEvQIBADAN", "AQEFAASCBKcw", "Zm9vYg", base64.b64encode(PEM.encode()).decode()[20:40]]
    assert not [part for part in kept if part in shown]


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
        ("hunter2", "\x1b[31mhunter2\x1b[0m", "\x1b[31m[secret]\x1b[0m"),
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
def test_a_secret_that_is_a_word_of_the_platform(text: str, shown: str) -> None:
    masker = Masker(["postgres"], platform_words=["postgres", "postgresql-cluster"])
    assert masker.mask(text) == shown
    assert streamed(masker, text.encode(), list(range(len(text)))).decode() == shown


def test_a_word_within_a_platform_name_counts_too() -> None:
    masker = Masker(["postgresql"], platform_words=["postgresql-cluster-rw"])
    assert masker.mask("postgresql-cluster postgresqlx postgresql") == "postgresql-cluster postgresqlx [secret]"


def test_what_the_toolkit_says_itself_keeps_the_platforms_names() -> None:
    masker = Masker(["hunter2"], platform_words=["postgres"])
    own_words = masker.own_words()
    masker.register("postgres")
    assert own_words.mask("preview postgres: hunter2") == "preview postgres: [secret]"
    assert masker.mask("preview postgres: hunter2") == "preview [secret]: [secret]"
    masker.register("registered-later")
    assert own_words.mask("postgres registered-later") == "postgres [secret]"


def test_the_shorter_secret_may_come_first_or_last() -> None:
    for values in (["password", "password-and-more"], ["password-and-more", "password"]):
        assert Masker(values).mask("<password-and-more> <password>") == "<[secret]> <[secret]>"


def test_two_overlapping_secrets_are_both_covered() -> None:
    assert Masker(["abcdefgh", "efghijkl"]).mask("..abcdefghijkl..") == "..[secret].."


def test_a_secret_that_overlaps_itself_across_a_split() -> None:
    masker = Masker(["abababab"])
    text = b"xabababababay"
    assert {streamed(masker, text, [cut]) for cut in range(len(text))} == {b"x[secret]ay"}


def test_registering_later_reaches_an_open_stream() -> None:
    masker = Masker()
    stream = masker.stream()
    assert stream.feed(b"early-secret ") == b"early-secret "
    masker.register("early-secret")
    assert stream.feed(b"early-secret ") + stream.flush() == b"[secret] "


def test_nothing_is_held_back_without_reason() -> None:
    stream = Masker(["hunter2hunter2"]).stream()
    assert stream.feed(b"progress... ") == b"progress... "
    assert stream.feed(b"hunt") == b""
    assert stream.feed(b"ing\n") == b"hunting\n"
    assert stream.feed(b"\x1b[3") == b""
    assert stream.feed(b"1m") == b"\x1b[31m"


def test_a_stream_is_as_new_after_flush() -> None:
    stream = Masker(["hunter2hunter2"]).stream()
    assert stream.feed(b"hunter2hun") == b""
    assert stream.flush() == b"hunter2hun"
    assert stream.feed(b"ter2") + stream.flush() == b"ter2"


def test_endless_repetition_does_not_pile_up() -> None:
    stream = Masker(["aaaaaaaa"]).stream()
    shown = b"".join(stream.feed(b"a" * 1000) for _ in range(200)) + stream.flush()
    assert shown == b"[secret]"


def test_bytes_that_are_not_text_pass_through() -> None:
    stream = Masker(["hunter2hunter2"]).stream()
    assert stream.feed(b"\xff\xfe\x00hunter2hunter2\xc3") + stream.flush() == b"\xff\xfe\x00[secret]\xc3"


def test_registering_and_masking_from_many_threads() -> None:
    masker = Masker()
    leaks: list[str] = []

    def work(number: int) -> None:
        for count in range(50):
            secret = f"secret-{number:02d}-{count:03d}"
            masker.register(secret)
            if secret in masker.mask(f"<{secret}>"):
                leaks.append(secret)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert leaks == []
