"""Multiple-choice questions in MVBench's JSON format.

A question folder holds one JSON file per task, named after it: a list of
``{"video", "question", "candidates", "answer"}``, with ``start`` and ``end`` in seconds where the question is
about a part of the video. ``answer`` is the text of the right candidate. Other keys are ignored.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from share4video.dataset.manifest import canonical_json
from share4video.errors import UserError, reading

LETTERS = "ABCDEFG"  # the reference's answer check knows no others
_MAX_FILE_BYTES = 64 << 20
_ID_DIGITS = 16


class Question(BaseModel):
    """A question and its candidates, of which the answer is one.

    Attributes:
        id: the task and a hash of the question, so that adding questions leaves the others' ids alone.
        video: POSIX path below the clips folder.
        start_s, end_s: the part of the video that is shown; the whole video where they are None.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    id: str
    task: str
    video: str
    question: str
    candidates: tuple[str, ...]
    answer_index: int
    start_s: float | None = None
    end_s: float | None = None

    @property
    def answer_letter(self) -> str:
        return LETTERS[self.answer_index]


class _Record(BaseModel):
    """A record as MVBench writes it."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    video: str = Field(min_length=1, max_length=1024)
    question: str = Field(min_length=1, max_length=8192)
    candidates: tuple[str, ...] = Field(min_length=2, max_length=len(LETTERS))
    answer: str
    start: float | None = Field(None, ge=0, allow_inf_nan=False)
    end: float | None = Field(None, gt=0, allow_inf_nan=False)

    @field_validator("video")
    @classmethod
    def _below_the_folder(cls, video: str) -> str:
        path = PurePosixPath(video)
        if path.is_absolute() or ".." in path.parts or "\\" in video:
            raise ValueError("the video must be a path below the clips folder")
        return str(path)

    @model_validator(mode="after")
    def _consistent(self) -> _Record:
        if self.answer not in self.candidates:
            raise ValueError("the answer is not among the candidates")
        if (self.start is None) != (self.end is None):
            raise ValueError("give both start and end or neither")
        if self.start is not None and self.end is not None and self.end <= self.start:
            raise ValueError("end must be later than start")
        return self


def read_questions(path: Path) -> list[Question]:
    """Read a question folder, or a single task file, in order of task and of their place in the file.

    Raises:
        UserError: there is no question, or a file or a record is wrong or cannot be read (named).
    """
    with reading("the questions", path):
        folder = path.is_dir()
        files = sorted(file for file in path.iterdir() if file.name.endswith(".json")) if folder else [path]
    questions = [question for file in files for question in _read_task(file)]
    if not questions:
        raise UserError(
            "no questions",
            where=str(path),
            fix="give a folder of MVBench task files (TASK.json), or one file",
        )
    return questions


def questions_hash(questions: Sequence[Question]) -> str:
    """Return the sha256 of what is asked, whatever files it stood in."""
    rows = [question.model_dump(mode="json") for question in sorted(questions, key=lambda q: q.id)]
    return hashlib.sha256(canonical_json(rows)).hexdigest()


def _read_task(file: Path) -> list[Question]:
    try:
        if file.stat().st_size > _MAX_FILE_BYTES:
            raise UserError(
                f"the question file is larger than {_MAX_FILE_BYTES >> 20} MiB",
                where=str(file),
                fix="split it",
            )
        records = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"cannot read the questions: {error.strerror}", where=str(file), fix="check the path"
        ) from error
    except (ValueError, RecursionError) as error:  # not JSON, or not UTF-8
        raise UserError("the question file is not JSON", where=str(file), fix=str(error)) from error
    if not isinstance(records, list):
        raise UserError("the question file is not a list", where=str(file), fix="write MVBench's JSON format")
    questions: list[Question] = []
    seen: Counter[str] = Counter()
    for index, record in enumerate(records):
        parsed = _parse_record(record, f"{file}, record {index}")
        question_id = f"{file.stem}-{_digest(parsed)}"
        seen[question_id] += 1
        if seen[question_id] > 1:  # the released files repeat a few questions
            question_id = f"{question_id}-{seen[question_id]}"
        # Of equal candidates the reference takes the last one's letter.
        answer_index = max(i for i, text in enumerate(parsed.candidates) if text == parsed.answer)
        questions.append(
            Question(
                id=question_id,
                task=file.stem,
                video=parsed.video,
                question=parsed.question,
                candidates=parsed.candidates,
                answer_index=answer_index,
                start_s=parsed.start,
                end_s=parsed.end,
            )
        )
    return questions


def _parse_record(record: Any, where: str) -> _Record:
    try:
        return _Record.model_validate(record)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(step) for step in first["loc"])
        message = f"{key}: {first['msg']}" if key else first["msg"]
        raise UserError(
            f"not an MVBench question: {message}", where=where, fix="correct the record"
        ) from None


def _digest(record: _Record) -> str:
    fields = record.model_dump(mode="json", exclude={"answer"})
    return hashlib.sha256(canonical_json(fields)).hexdigest()[:_ID_DIGITS]
