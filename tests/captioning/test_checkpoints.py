from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from share4video.captioning.checkpoints import (
    check_checkpoint,
    checkpoint_bytes,
    checkpoint_folder,
    checkpoint_revision,
)
from share4video.errors import UserError


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    save_file({"a": np.ones((4, 4), np.float32)}, folder / "model.safetensors")
    return folder


def test_a_whole_checkpoint_passes(checkpoint: Path) -> None:
    check_checkpoint(checkpoint)
    assert checkpoint_folder(str(checkpoint)) == checkpoint


def test_the_revision_follows_names_and_contents_of_the_models_files(checkpoint: Path) -> None:
    revision = checkpoint_revision(checkpoint)
    (checkpoint / "README.md").write_text("a card")
    (checkpoint / ".cache").write_text("x")
    assert checkpoint_revision(checkpoint) == revision
    save_file({"a": np.zeros((4, 4), np.float32)}, checkpoint / "model.safetensors")
    changed = checkpoint_revision(checkpoint)
    (checkpoint / "config.json").rename(checkpoint / "other.json")
    assert len({revision, changed, checkpoint_revision(checkpoint)}) == 3


def test_a_moved_checkpoint_keeps_its_revision(checkpoint: Path) -> None:
    revision = checkpoint_revision(checkpoint)
    assert checkpoint_revision(checkpoint.rename(checkpoint.with_name("elsewhere"))) == revision


def _no_folder(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()


def _cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-7])


def _missing_shard(folder: Path) -> None:
    names = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(names))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (_no_folder, "no such model folder"),
        (lambda f: (f / "config.json").unlink(), "no config.json"),
        (lambda f: (f / "config.json").write_text("{"), "cannot read config.json"),
        (lambda f: (f / "config.json").write_text("[]"), "not a JSON object"),
        (lambda f: (f / "model.safetensors").unlink(), "no safetensors weights"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\xff" * 40), "header is cut short"),
        (lambda f: (f / "model.safetensors").write_bytes(b""), "damaged"),
        (_cut, "length is not what its header says"),
        (_missing_shard, "weights file is missing"),
    ],
)
def test_a_damaged_checkpoint_is_named_in_one_sentence(
    checkpoint: Path, damage: object, sentence: str
) -> None:
    assert callable(damage)
    damage(checkpoint)
    with pytest.raises(UserError, match=sentence) as caught:
        check_checkpoint(checkpoint)
    assert str(checkpoint) in caught.value.where


def test_a_folder_that_cannot_be_read_is_one_sentence(checkpoint: Path, tmp_path: Path) -> None:
    long = tmp_path / ("x" * 300)
    for check in (check_checkpoint, checkpoint_revision, checkpoint_bytes):
        with pytest.raises(UserError, match="cannot read the model folder: File name too long") as caught:
            check(long)
        assert caught.value.where == str(long)
    with pytest.raises(UserError, match="cannot read the model folder: Not a directory"):
        checkpoint_revision(checkpoint / "config.json")
    (tmp_path / "loop").symlink_to("loop")
    for name in (str(tmp_path / "loop"), "~nobody-of-this-name/model", str(checkpoint / "config.json" / "x")):
        with pytest.raises(UserError, match="no such model folder"):
            checkpoint_folder(name)


@pytest.mark.parametrize(
    "name", ["builtin:no-such-model", "builtin:../../etc", "builtin:", f"builtin:{'x' * 300}"]
)
def test_a_builtin_model_must_exist(name: str) -> None:
    with pytest.raises(UserError, match="no such built-in model"):
        checkpoint_folder(name)
