"""Sentences of a summary find the differential captions that say the same, and made-up ones find none."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.links import measure
from share4video.dataset.links import Seen, link, sentences

KITCHEN = [
    Seen(0, 0.0, "A woman in a red apron stands at a kitchen counter with three onions."),
    Seen(1, 4.0, "She picks up a knife and begins to slice an onion. The camera zooms in."),
    Seen(2, 8.0, "The sliced onions are moved into a steel pan on the stove."),
    Seen(3, 14.0, "The camera zooms in. Steam rises from the pan."),
]


def indices(summary: str, seen: list[Seen] = KITCHEN) -> list[list[int]]:
    return [[frame.index for frame in found.frames] for found in link(summary, seen)]


def test_sentences_find_their_frames() -> None:
    summary = (
        "The video shows a woman in a red apron at a kitchen counter. She slices an onion with a knife."
        " The onions are then moved to a steel pan, and steam rises from the pan. A dog barks outside."
    )
    assert indices(summary) == [[0], [1], [2, 3], []]
    assert [found.sentence for found in link(summary, KITCHEN)] == sentences(summary)


def test_what_is_said_again_is_about_a_later_frame() -> None:
    assert indices("The camera zooms in. Steam rises. The camera zooms in.") == [[1], [3], [3]]
    assert indices("The camera zooms in. The camera zooms in.") == [[1], [3]]


def test_a_stated_time_counts() -> None:
    assert indices("At 14.00 seconds, the camera zooms in.") == [[3]]
    assert indices("At 14.00 seconds, a dog barks outside.") == [[]]


def test_sentences_are_split_at_their_ends_only() -> None:
    assert sentences('At 2.50 seconds: it turns 3.5 times. "Stop!" he says. Then\nnothing') == [
        *("At 2.50 seconds: it turns 3.5 times.", '"Stop!" he says.', "Then", "nothing")
    ]
    assert sentences("  ") == []
    assert len(sentences("A b. " * 5000)) == 400


def test_no_differentials_support_nothing() -> None:
    assert indices("A man runs. He stops.", []) == [[], []]


@given(st.text(max_size=300), st.lists(st.text(max_size=80), max_size=6))
def test_any_text_is_answered_for(summary: str, captions: list[str]) -> None:
    seen = [Seen(number, 2.0 * number, text) for number, text in enumerate(captions)]
    found = link(summary, seen)
    assert [each.sentence for each in found] == sentences(summary)
    for each in found:
        assert 0 <= each.score <= 1 + 1e-9
        assert [frame.time_s for frame in each.frames] == sorted({frame.time_s for frame in each.frames})


def test_on_synthetic_clips_the_links_are_the_true_ones() -> None:
    timed, untimed = measure(60, stated_times=True), measure(60, stated_times=False)
    assert timed.precision > 0.93 and timed.recall > 0.94
    assert untimed.precision > 0.88 and untimed.recall > 0.9
    assert untimed.made_up_found / untimed.made_up > 0.7
    assert untimed.unsupported / untimed.sentences < 0.05
