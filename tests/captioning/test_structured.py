"""JSON captions: what is read, what is refused, and that nothing else is mended."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from share4video.captioning.structured import MAX_ANSWER_CHARS, json_schema, read_structured

SOUND: dict[str, Any] = {
    "setting": "a kitchen in daylight",
    "subjects": [{"name": "the cook", "looks": "a tall man in a white apron"}],
    "actions": [{"subject": "the cook", "action": "cuts an onion", "start_s": 0, "end_s": 4.5}],
    "camera": [{"motion": "pans to the left", "start_s": 2.0, "end_s": 4.5}],
    "spans": [{"caption": "The cook cuts an onion.", "start_s": 0.0, "end_s": 8.0}],
}


def changed(path: str, value: Any) -> str:
    """Return the sound object with one value changed; ``path`` is ``actions.0.end_s``."""
    tree = json.loads(json.dumps(SOUND))
    node = tree
    *above, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    for step in above:
        node = node[step]
    if value is None:
        del node[last]
    else:
        node[last] = value
    return json.dumps(tree)


@pytest.mark.parametrize(
    "answer",
    [
        json.dumps(SOUND),
        f"```json\n{json.dumps(SOUND, indent=2)}\n```",
        f"Here is the record {{as asked}}:\n```\n{json.dumps(SOUND)}\n```\nAnything else?",
        json.dumps(dict(reversed(SOUND.items())), separators=(",", ":")),
        changed("camera.0.end_s", 8.004),  # a time as it was printed
    ],
)
def test_an_object_is_found_and_its_canonical_form_is_one(answer: str) -> None:
    caption = read_structured(answer, 0.0, 8.0)
    assert caption is not None
    stored = json.loads(caption.canonical())
    if "8.004" not in answer:
        assert stored == SOUND
        assert caption.canonical() == read_structured(json.dumps(SOUND), 0.0, 8.0).canonical()  # type: ignore[union-attr]
    assert read_structured(caption.canonical(), 0.0, 8.0) == caption


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "The cook cuts an onion.",
        "[]",
        "{",
        json.dumps(SOUND)[:-1],
        json.dumps(SOUND).replace('"', "'"),
        "{" * 50_000,
        '{"setting":' * 5_000,
        json.dumps({**SOUND, "mood": "calm"}),
        json.dumps(SOUND) + " " * MAX_ANSWER_CHARS,
        json.dumps(SOUND).replace("4.5", "NaN"),
        *(changed(name, None) for name in SOUND),
        changed("setting", " "),
        changed("subjects.0.name", ""),
        changed("actions.0.start_s", "0.0"),
        changed("actions.0.start_s", -1),
        changed("actions.0.end_s", 8.5),
        changed("actions.0.start_s", 5),
        changed("spans.0.end_s", 1e999),
        changed("subjects", [{"name": "one", "looks": ""}] * 65),
        changed("camera", "none"),
    ],
)
def test_anything_else_is_refused(answer: str) -> None:
    assert read_structured(answer, 0.0, 8.0) is None


@given(st.text() | st.text(alphabet='{}[]":,0 \\'))
def test_no_text_is_too_odd_to_be_read(answer: str) -> None:
    assert read_structured(answer, 0.0, 8.0) is None


def test_the_schema_asks_for_every_field_and_no_other() -> None:
    schema = json_schema()
    for part in (schema, *schema["$defs"].values()):
        assert part["additionalProperties"] is False
        assert set(part["required"]) == set(part["properties"])
