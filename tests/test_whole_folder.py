"""A folder is whole or not there, is one process's at a time, and never somebody else's."""

from __future__ import annotations

from pathlib import Path

import pytest

from share4video.errors import UserError
from share4video.models.llava_next.places import open_destination
from share4video.whole_folder import own_folder, whole_folder


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_a_killed_process_left_is_removed_and_two_do_not_write_one_folder(tmp_path: Path) -> None:
    target = tmp_path / "tuned"
    left = tmp_path / ".tuned.writing"
    (left / "inner").mkdir(parents=True)
    (left / "inner" / "half").write_text("of a file")
    with whole_folder(target) as folder:
        assert list(folder.iterdir()) == []
        with pytest.raises(UserError, match="another process is at it"), whole_folder(target):
            pass
        (folder / "whole").touch()
    assert _names(tmp_path) == ["tuned"]
    with pytest.raises(KeyError), whole_folder(tmp_path / "other"):
        raise KeyError
    assert _names(tmp_path) == ["tuned"]


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    folder = tmp_path / "victim"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "kept").touch()
    return folder


def test_a_link_in_the_place_of_the_hidden_folder_is_not_followed(tmp_path: Path, victim: Path) -> None:
    for hidden in (".out.writing", ".out.converting"):
        (tmp_path / hidden).symlink_to(victim)
    with pytest.raises(UserError, match="cannot make a folder"), whole_folder(tmp_path / "out"):
        pass
    with (
        pytest.raises(UserError, match="cannot make a folder"),
        open_destination(str(tmp_path / "out")).begin(1, 1),
    ):
        pass
    assert _names(victim) == ["inner"] and _names(victim / "inner") == ["kept"]


def test_a_link_inside_it_is_removed_and_not_what_it_leads_to(tmp_path: Path, victim: Path) -> None:
    (tmp_path / ".out.writing").mkdir()
    (tmp_path / ".out.writing" / "link").symlink_to(victim)
    with whole_folder(tmp_path / "out") as folder:
        assert list(folder.iterdir()) == []
    assert _names(victim / "inner") == ["kept"]


def test_a_folder_that_was_renamed_leaves_its_next_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "work"
    with own_folder(path, "first"):
        path.rename(tmp_path / "published")
        path.mkdir()
        (path / "of the next").touch()
    assert _names(path) == ["of the next"]
