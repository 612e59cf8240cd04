"""Cutting a pipe's bytes into what parsers and people get."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runbooks.core.capture import LONGEST_LINE, Capture, Excerpt, LineCutter, WholeLines
from runbooks.core.mask import Masker

CHUNKS = st.lists(st.binary(max_size=12) | st.sampled_from([b"\n", b"\r\n", b"a\nb", "ä€".encode()]), max_size=20)


@given(CHUNKS)
def test_lines_are_the_same_however_they_arrive(chunks: list[bytes]) -> None:
    lines: list[str] = []
    cutter = LineCutter(lines.append)
    for chunk in chunks:
        cutter.feed(chunk)
    cutter.close()
    whole = b"".join(chunks)
    expected = whole.split(b"\n")
    if expected[-1] == b"":
        expected.pop()
    assert lines == [line.removesuffix(b"\r").decode("utf-8", "replace") for line in expected]


@given(CHUNKS)
def test_people_get_whole_lines_and_all_of_them(chunks: list[bytes]) -> None:
    texts: list[str] = []
    lines = WholeLines(texts.append)
    for chunk in chunks:
        lines.feed(chunk)
    assert all(text.endswith("\n") for text in texts)
    lines.close()
    assert "".join(texts) == b"".join(chunks).decode("utf-8", "replace")


def test_output_without_line_breaks_is_shown_as_well() -> None:
    texts: list[str] = []
    lines = WholeLines(texts.append)
    lines.feed(b"x" * LONGEST_LINE)
    assert texts == []
    lines.feed(b"y")
    assert texts == ["x" * LONGEST_LINE + "y"]
    lines.close()
    assert len(texts) == 1


@given(CHUNKS, st.integers(4, 60))
def test_an_excerpt_keeps_beginning_and_end(chunks: list[bytes], limit: int) -> None:
    excerpt = Excerpt(limit)
    for chunk in chunks:
        excerpt.feed(chunk)
    whole = b"".join(chunks)
    if len(whole) <= limit:
        assert excerpt.text() == whole.decode("utf-8", "replace")
    else:
        mark = f"\n[… {len(whole) - limit} bytes left out …]\n".encode()
        kept = whole[: limit // 4] + mark + whole[-(limit - limit // 4) :]
        assert excerpt.text() == kept.decode("utf-8", "replace")


def test_a_capture_without_a_mask_shows_nothing() -> None:
    shown: list[str] = []
    capture = Capture(None, on_shown=shown.append)
    capture.feed(b"clear text\n")
    capture.close()
    assert (capture.text(), capture.shown(), shown) == ("clear text\n", "", [])


def test_what_the_mask_holds_back_is_shown_at_the_end() -> None:
    shown: list[str] = []
    capture = Capture(Masker(["hunter2-hunter2"]).stream(), on_shown=shown.append)
    capture.feed(b"hunter2-")
    assert shown == []
    capture.close()
    assert shown == ["hunter2-"]
    assert capture.shown() == "hunter2-"


def test_beyond_the_limit_nothing_more_is_kept_for_parsers() -> None:
    capture = Capture(Masker().stream(), limit=10)
    capture.feed(b"0123456789")
    assert not capture.overflowed
    capture.feed(b"x")
    assert capture.overflowed
    assert (capture.total, capture.text()) == (11, "0123456789")
    assert capture.shown() == "0123456789x"
