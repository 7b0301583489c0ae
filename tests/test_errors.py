"""User errors: one sentence, also from a child process."""

from __future__ import annotations

from pathlib import Path

import pytest

from share4video.errors import ERROR_FILE_VARIABLE, UserError, read_user_error, record_user_error


def test_the_sentence_says_what_where_and_what_to_do() -> None:
    error = UserError("the folder holds no video", where="/clips", fix="give a folder with mp4 files")
    assert str(error) == "the folder holds no video (/clips): give a folder with mp4 files."
    assert str(UserError("no clips")) == "no clips."


def test_a_parent_reads_what_its_child_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "error.json"
    monkeypatch.setenv(ERROR_FILE_VARIABLE, str(path))
    assert read_user_error(path) is None
    record_user_error(UserError("ß is not a port", where="--port", fix="give a number"))
    found = read_user_error(path)
    assert found is not None
    assert (found.what, found.where, found.fix) == ("ß is not a port", "--port", "give a number")


def test_nothing_is_recorded_where_nobody_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ERROR_FILE_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    record_user_error(UserError("anything"))
    assert list(tmp_path.iterdir()) == []
