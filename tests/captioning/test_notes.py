"""Summing up within a budget: what is cut where, and that nothing is lost on the way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from share4video.captioning.client import Message
from share4video.captioning.notes import (
    LINE_TOKENS,
    PROMPT_TOKENS,
    Notes,
    Part,
    estimated_tokens,
    shortened,
)
from share4video.captioning.role_inputs import Part as PartInput
from share4video.captioning.role_inputs import RoleInput, TimedCaption
from share4video.captioning.roles import Dialect, Summary, messages

DIALECTS: tuple[Dialect, ...] = ("sharecaptioner", "teacher")
BUDGET = PROMPT_TOKENS + 10 * LINE_TOKENS


def note(number: int, text: str = "") -> TimedCaption:
    return TimedCaption(number + 1, 2.0 * number, text or f"{number}")


def carry(notes: Notes, given: list[tuple[TimedCaption, bool]]) -> list[Part]:
    """Add all captions, summing up what is due; a summary names the captions it stands for."""
    parts = []

    def settle(ended: bool) -> None:
        while (part := notes.due(ended=ended)) is not None:
            parts.append(part)
            notes.take(part, " ".join(caption.caption for caption in part.captions))

    for caption, anchor in given:
        notes.add(caption, anchor=anchor)
        settle(False)
    settle(True)
    return parts


def prompt_tokens(dialect: Dialect, given: RoleInput) -> int:
    def text(message: Message) -> str:
        content = message["content"]
        return content if isinstance(content, str) else "".join(part["text"] for part in content)

    return estimated_tokens("\n".join(map(text, messages(dialect, given))))


def test_what_fits_is_summed_up_at_once() -> None:
    notes = Notes(BUDGET)
    given = [(note(n), n == 3) for n in range(9)]
    assert carry(notes, given) == []
    assert notes.whole() == tuple(caption for caption, _ in given)
    endless = Notes(None)
    assert carry(endless, [(note(n, "word " * 99), False) for n in range(500)]) == []
    assert len(endless.whole()) == 500


def test_above_the_budget_parts_end_before_anchors() -> None:
    notes = Notes(BUDGET)
    parts = carry(notes, [(note(n), n in (4, 8)) for n in range(14)])
    assert [[c.number for c in part.captions] for part in parts] == [
        [1, 2, 3, 4, 5, 6, 7, 8],
        [9, 10, 11, 12, 13, 14],
    ]
    assert [(part.level, part.number, part.start_s, part.end_s) for part in parts] == [
        (1, 0, 0.0, 14.0),
        (1, 1, 16.0, 26.0),
    ]
    assert [(c.start_s, c.timestamp_s) for c in notes.whole()] == [(0.0, 14.0), (16.0, 26.0)]


def test_without_anchors_parts_are_even() -> None:
    parts = carry(Notes(BUDGET), [(note(n), False) for n in range(12)])
    assert [len(part.captions) for part in parts] == [5, 7]


def test_every_stretch_between_anchors_is_summed_up_where_that_is_asked_for() -> None:
    notes = Notes(None, every_anchor=True)
    parts = carry(notes, [(note(n), n in (3, 4, 6)) for n in range(8)])
    assert [[c.number for c in part.captions] for part in parts] == [[1, 2, 3], [5, 6], [7, 8]]
    # a stretch of one caption needs no summary
    assert [c.number for c in notes.whole()] == [3, 4, 6, 8]


def test_parts_of_parts() -> None:
    notes = Notes(BUDGET)
    parts = carry(notes, [(note(n), False) for n in range(300)])
    assert {part.level for part in parts} >= {1, 2, 3}
    assert [part.number for part in parts if part.level == 1] == list(range(sum(p.level == 1 for p in parts)))
    assert " ".join(c.caption for c in notes.whole()).split()[:3] == ["0", "1", "2"]


def test_a_caption_that_leaves_no_room_for_another_is_cut_and_counted() -> None:
    notes = Notes(BUDGET)
    carry(notes, [(note(n, "word " * 400), False) for n in range(3)])
    assert notes.shortened >= 3
    assert all(c.caption.endswith("word ...") for c in notes.whole())


def test_a_budget_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="no two captions"):
        Notes(PROMPT_TOKENS + LINE_TOKENS)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("", 0), ("a dog", 2), ("31.25", 5), ("naïve", 4), ("犬", 3), ("🐕", 4), ("It runs.", 4)],
)
def test_tokens_are_estimated_high(text: str, tokens: int) -> None:
    assert estimated_tokens(text) == tokens


@given(st.text(), st.integers(8, 60))
def test_a_shortened_text_is_within_its_bound(text: str, most: int) -> None:
    cut = shortened(text, most)
    assert estimated_tokens(cut) <= most
    assert text.startswith(cut.removesuffix(" ..."))


TEXTS = st.lists(st.sampled_from(["a dog ", "7:15 ", "犬は走る", "word " * 60, "x" * 900]), max_size=6).map(
    "".join
)


@given(
    st.lists(st.tuples(TEXTS, st.booleans()), min_size=1, max_size=60), st.integers(0, 3000), st.booleans()
)
def test_every_caption_is_summed_up_once_and_in_order(
    given_texts: list[tuple[str, bool]], more: int, every_anchor: bool
) -> None:
    budget = 1024 + more
    notes = Notes(budget, every_anchor=every_anchor)
    stands_for: dict[TimedCaption, list[int]] = {}

    def settle(ended: bool) -> None:
        while (part := notes.due(ended=ended)) is not None:
            assert len(part.captions) > 1
            covered = [n for caption in part.captions for n in stands_for[caption]]
            summary = TimedCaption(
                part.captions[-1].number, part.end_s, f"part {part.level} {part.number}", part.start_s
            )
            assert (part.start_s, part.end_s) == (2.0 * covered[0], 2.0 * covered[-1])
            for dialect in DIALECTS:
                assert prompt_tokens(dialect, PartInput(part.captions)) <= budget
            notes.take(part, summary.caption)
            stands_for[summary] = covered

    for number, (text, anchor) in enumerate(given_texts):
        before = set(stands_for)
        caption = TimedCaption(number + 1, 2.0 * number, f"{number} {text}")
        notes.add(caption, anchor=anchor)
        held = next(c for c in notes.whole() if c.number == number + 1 and c not in before)
        stands_for[held] = [number]
        settle(False)
    settle(True)
    whole = notes.whole()
    assert [n for caption in whole for n in stands_for[caption]] == list(range(len(given_texts)))
    for dialect in DIALECTS:
        assert prompt_tokens(dialect, Summary(whole)) <= budget


def test_a_full_caption_and_the_change_after_it_are_in_one_part() -> None:
    """Three captions of which two fit: a part must not begin with a change of a frame it does not know."""
    notes = Notes(BUDGET)
    long = "word " * 90
    parts = carry(notes, [(note(n, long), n in (0, 3)) for n in range(6)])
    assert [[c.number for c in part.captions] for part in parts if part.level == 1] == [[1, 2], [4, 5]]
