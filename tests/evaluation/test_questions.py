"""Question files: what is read, which ids it gets, and what is refused with a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from share4video.errors import UserError
from share4video.evaluation.questions import questions_hash, read_questions
from tests.evaluation.material import record, write_questions

ONE = record("a.mp4", "Which?", ["red", "green", "blue"], "green")
TWO = record("b.mp4", "When?", ["early", "late"], "late", start=1.5, end=4)


def test_a_folder_is_read_task_by_task(tmp_path: Path) -> None:
    questions = read_questions(write_questions(tmp_path, {"order": [TWO], "colour": [ONE, TWO]}))
    assert [q.task for q in questions] == ["colour", "colour", "order"]
    first, second, _ = questions
    assert (first.video, first.answer_letter, first.start_s, first.end_s) == ("a.mp4", "B", None, None)
    assert (second.answer_letter, second.start_s, second.end_s) == ("B", 1.5, 4.0)


def test_a_single_file_is_one_task(tmp_path: Path) -> None:
    write_questions(tmp_path, {"colour": [ONE], "order": [TWO]})
    assert {q.task for q in read_questions(tmp_path / "order.json")} == {"order"}


def test_ids_survive_added_questions_and_repeated_ones_are_told_apart(tmp_path: Path) -> None:
    before = read_questions(write_questions(tmp_path / "a", {"colour": [ONE, TWO]}))
    after = read_questions(write_questions(tmp_path / "b", {"colour": [TWO, ONE, ONE]}))
    assert {q.id for q in before} < {q.id for q in after}
    assert len({q.id for q in after}) == 3


def test_the_hash_is_of_what_is_asked(tmp_path: Path) -> None:
    one = read_questions(write_questions(tmp_path / "a", {"colour": [ONE, TWO]}))
    two = read_questions(write_questions(tmp_path / "b", {"colour": [TWO, {**ONE, "note": "ignored"}]}))
    three = read_questions(write_questions(tmp_path / "c", {"colour": [TWO, {**ONE, "answer": "red"}]}))
    assert questions_hash(one) == questions_hash(two) != questions_hash(three)


def test_of_equal_candidates_the_last_is_the_answer(tmp_path: Path) -> None:
    folder = write_questions(tmp_path, {"t": [record("a.mp4", "?", ["red", "blue", "red"], "red")]})
    assert read_questions(folder)[0].answer_letter == "C"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"answer": "yellow"}, "not among the candidates"),
        ({"candidates": ["green"]}, "candidates"),
        ({"candidates": list("abcdefgh")}, "candidates"),
        ({"video": "../secret.mp4"}, "below the clips folder"),
        ({"video": "/etc/passwd"}, "below the clips folder"),
        ({"start": 1.0}, "both start and end"),
        ({"start": 4.0, "end": 4.0}, "later than start"),
        ({"start": float("nan"), "end": 4.0}, "start"),
        ({"question": None}, "question"),
    ],
)
def test_a_wrong_record_is_named(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    folder = write_questions(tmp_path, {"colour": [ONE, {**ONE, **change}]})
    with pytest.raises(UserError, match=sentence) as caught:
        read_questions(folder)
    assert caught.value.where == f"{folder / 'colour.json'}, record 1"


@pytest.mark.parametrize("content", ["{", "{}", '"text"', "[1]", "\ud800"])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "colour.json"
    file.write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(UserError):
        read_questions(file)


def test_a_path_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 300)
    with pytest.raises(UserError, match="cannot read the questions: File name too long") as caught:
        read_questions(long)
    assert caught.value.where == str(long)
    (tmp_path / "order.json").mkdir()
    with pytest.raises(UserError, match=r"cannot read the questions: Is a directory .*order\.json"):
        read_questions(tmp_path)


def test_no_questions_is_an_error(tmp_path: Path) -> None:
    for path in (tmp_path, write_questions(tmp_path / "empty", {"colour": []}), tmp_path / "missing.json"):
        with pytest.raises(UserError):
            read_questions(path)


@given(st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda x: st.lists(x, max_size=3)))
@settings(max_examples=50, deadline=None)
def test_any_json_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: Any) -> None:
    file = tmp_path_factory.mktemp("fuzz") / "task.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(UserError):
        read_questions(file)
