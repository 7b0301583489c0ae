"""What is read from captions, written as people and large models write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from share4video.captioning.statements import INVERSE, read_statements, same_subject
from share4video.synthetic import language
from share4video.synthetic.world import sample_clip
from tests.synthetic.true_captions import true_captions


def told(caption: str) -> list[tuple[str, str, str]]:
    return [(" ".join(s.subject), s.axis, s.value) for s in read_statements(caption)]


@pytest.mark.parametrize(
    ("caption", "statements"),
    [
        ("The red circle moves left.", [("red circle", "horizontal", "left")]),
        ("The man walks slowly to the right.", [("man", "horizontal", "right")]),
        ("A cyclist rides from left to right.", [("cyclist", "horizontal", "right")]),
        ("The camera pans to the left.", [("camera", "horizontal", "left")]),
        (
            "A black dog enters the frame from the left.",
            [("black dog", "presence", "appears"), ("black dog", "horizontal", "right")],
        ),
        ("The balloon drifts upwards.", [("balloon", "vertical", "up")]),
        ("The sun rises.", [("sun", "vertical", "up")]),
        ("The woman raises her arm.", [("her arm", "vertical", "up")]),
        ("The camera tilts up to reveal the roof.", [("camera", "vertical", "up")]),
        ("The camera zooms in on the plate.", [("camera", "zoom", "in")]),
        ("The camera slowly pulls back.", [("camera", "zoom", "out")]),
        ("The boy runs toward the fountain.", [("boy", "distance:fountain", "towards")]),
        ("The car approaches the camera.", [("car", "distance:camera", "towards")]),
        ("The train moves away from the viewer.", [("train", "distance:camera", "away")]),
        ("A man in a red shirt appears in the background.", [("man in red shirt", "presence", "appears")]),
        ("The cat is no longer visible.", [("cat", "presence", "disappears")]),
        ("The bus leaves the frame.", [("bus", "presence", "disappears")]),
        ("The girl opens the door.", [("door", "opening", "opens")]),
        ("She turns her head slightly to the left.", [("her head", "turn", "left")]),
        ("The curtain closes.", [("curtain", "opening", "closes")]),
        ("The crowd starts dancing.", [("crowd", "activity:danc", "starts")]),
        ("The engine stops running.", [("engine", "activity:run", "stops")]),
        (
            "The man turns to the left and walks to the right.",
            [("man", "turn", "left"), ("man", "horizontal", "right")],
        ),
        (
            "The player moves left, while the ball rolls to the right.",
            [("player", "horizontal", "left"), ("ball", "horizontal", "right")],
        ),
    ],
)
def test_change_is_read(caption: str, statements: list[tuple[str, str, str]]) -> None:
    assert sorted(told(caption)) == sorted(statements)


@pytest.mark.parametrize(
    "caption",
    [
        "The man does not move to the left.",
        "No new person appears.",
        "Nothing enters the frame.",
        "The car isn't moving left.",
        "The cup is to the left of the plate.",
        "The woman stands on the left side of the frame.",
        "A lamp is in the left corner, and a chair in the right one.",
        "The man appears calm.",
        "The dog appears to be asleep.",
        "The cat appears in a different pose.",
        "The woman walks down the street.",
        "He looks down at his phone.",
        "The runner slows down.",
        "The children sit down on the grass.",
        "The man walks to the left of the table.",
        "She holds the cup in her left hand.",
        "He picks up the box.",
        "The player seems about to move left.",
        "The singer could walk to the right.",
        'A sign reads "the train moves left".',
        "The flag sways left and right.",
        "The video opens with a view of the sea.",
        "The lid is closed.",
        "The girl jumps up and down.",
        "The camera remains static without moving to the left.",
        "The waterfall in the background falls asleep.",
        "Nothing changes.",
    ],
)
def test_where_nothing_changes_nothing_is_read(caption: str) -> None:
    assert told(caption) == []


def test_every_motion_of_a_true_caption_is_read() -> None:
    kinds = {"moves", "appears", "disappears", "pans"}
    for seed in range(40):
        clip = sample_clip(seed)
        times = [float(t) for t in range(0, int(clip.duration_s), 2)]
        _, *later = true_captions(clip, times, seed)
        for text, changes in zip(later, language.clip_changes(clip, times), strict=True):
            expected = [c.fact.value or c.fact.predicate for c in changes if c.fact.predicate in kinds]
            assert sorted(s.value for s in read_statements(text)) == sorted(expected), text


def test_names_of_one_thing() -> None:
    assert same_subject(("red", "circle"), ("small", "red", "circle"))
    assert same_subject(("man",), ("man", "in", "red", "shirt"))
    assert not same_subject(("red", "circle"), ("blue", "circle"))
    assert not same_subject(("man", "in", "red"), ("man", "in", "blue"))
    assert not same_subject((), ())


@given(st.text(max_size=200))
def test_any_text_is_read(text: str) -> None:
    for statement in read_statements(text):
        assert INVERSE[INVERSE[statement.value]] == statement.value
