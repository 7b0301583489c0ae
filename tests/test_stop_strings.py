"""A text cut at stop strings is cut at the same place however it arrives."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from share4video.stop_strings import StopStrings

WORDS = st.text(alphabet="abc\n", min_size=1, max_size=4)


@given(pieces=st.lists(st.text(alphabet="abc\n", max_size=5)), stop=st.lists(WORDS, max_size=3))
def test_the_cut_does_not_depend_on_the_pieces(pieces: list[str], stop: list[str]) -> None:
    text = "".join(pieces)
    ends = [text.index(one) + len(one) for one in stop if one in text]
    expected = text
    if ends:
        first = min(ends)
        expected = text[: first - max(len(one) for one in stop if text[:first].endswith(one))]
    assert "".join(StopStrings(stop).cut(pieces)) == expected


def test_only_what_may_begin_a_stop_string_waits() -> None:
    stop = StopStrings(["\nUser:"])
    assert stop.push("a\nb\nUs") == "a\nb"
    assert stop.push("age") == "\nUsage"
    assert stop.push("\nUser") == ""
    assert stop.flush() == "\nUser"


def test_nothing_is_taken_after_a_stop_string() -> None:
    taken: list[str] = []

    def watched() -> Iterator[str]:
        for piece in ("one.", "two", "three"):
            taken.append(piece)
            yield piece

    assert list(StopStrings(["."]).cut(watched())) == ["one"]
    assert taken == ["one."]
