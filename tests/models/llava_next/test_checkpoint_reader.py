"""Damaged, incomplete and hostile files of weights."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from share4video.errors import UserError
from share4video.models.llava_next.checkpoint_reader import blocks, open_weights
from share4video.models.llava_next.checkpoint_writer import Entry, plan_shards, write_shard
from share4video.models.llava_next.convert import convert
from tests.models.llava_next.tiny import pickle_weights

INDEX = "model.safetensors.index.json"


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def cut_in_the_header(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:50])


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def a_pointer_of_git(file: Path) -> None:
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4976698592\n")


@pytest.mark.parametrize("damage", [cut_short, cut_in_the_header, emptied, a_pointer_of_git])
@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_a_damaged_shard_is_named(
    original: Path, tmp_path: Path, damage: Callable[[Path], None], kind: str
) -> None:
    if kind == "bin":
        pickle_weights(original)
    shard = sorted(original.glob(f"*-00002-of-*.{kind}"))[0]
    damage(shard)
    with pytest.raises(UserError, match=r"damaged|more than tensors") as caught:
        convert(original, tmp_path / "out")
    assert caught.value.where == str(shard)
    assert not (tmp_path / "out").exists()


def test_a_missing_shard_is_named(original: Path, tmp_path: Path) -> None:
    shard = sorted(original.glob("model-*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(UserError, match="a shard is missing") as caught:
        convert(original, tmp_path / "out")
    assert caught.value.where == str(shard)


def test_an_index_and_shards_that_do_not_agree_are_told(original: Path, tmp_path: Path) -> None:
    shard = sorted(original.glob("model-*.safetensors"))[0]
    held = load_file(shard)
    del held["model.embed_tokens.weight"]
    save_file(held, shard)
    with pytest.raises(UserError, match=r"shards lack 1 tensors of the index: model\.embed_tokens\.weight"):
        convert(original, tmp_path / "out")


def test_a_tensor_in_two_shards_is_told(original: Path, tmp_path: Path) -> None:
    one, other = sorted(original.glob("model-*.safetensors"))[:2]
    save_file(load_file(other) | {"model.embed_tokens.weight": torch.zeros(300, 32)}, other)
    assert "model.embed_tokens.weight" in load_file(one)
    with pytest.raises(UserError, match=r"two shards hold model\.embed_tokens\.weight"):
        convert(original, tmp_path / "out")


@pytest.mark.parametrize("file", ["../elsewhere.safetensors", "/etc/passwd", "model.pt", "", 7])
def test_an_index_leads_nowhere_else(original: Path, tmp_path: Path, file: Any) -> None:
    index = json.loads((original / INDEX).read_text())
    index["weight_map"]["lm_head.weight"] = file
    (original / INDEX).write_text(json.dumps(index))
    with pytest.raises(UserError, match="the weight index"):
        convert(original, tmp_path / "out")


class Exploit:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.target,))


@pytest.mark.parametrize("form", ["zip", "older", "bare"])
def test_a_pickle_that_would_run_code_is_refused(original: Path, tmp_path: Path, form: str) -> None:
    pickle_weights(original)
    shard = sorted(original.glob("pytorch_model-*.bin"))[0]
    proof = tmp_path / "it-ran"
    hostile = {"lm_head.weight": Exploit(proof)}
    if form == "bare":
        shard.write_bytes(pickle.dumps(hostile))
    else:
        torch.save(hostile, shard, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(UserError, match=r"could run code|damaged") as caught:
        convert(original, tmp_path / "out")
    assert caught.value.where == str(shard) and not proof.exists()


def test_quantized_weights_are_refused(original: Path, tmp_path: Path) -> None:
    shard = sorted(original.glob("model-*.safetensors"))[0]
    held = load_file(shard)
    held["model.embed_tokens.weight"] = held["model.embed_tokens.weight"].to(torch.int8)
    save_file(held, shard)
    with pytest.raises(UserError, match=r"model\.embed_tokens\.weight is of type I8"):
        convert(original, tmp_path / "out")


@given(
    shape=st.lists(st.integers(1, 9), max_size=3).map(tuple),
    block_bytes=st.integers(1, 200),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    wanted=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    limit=st.integers(1, 600),
)
@settings(max_examples=60, deadline=None)
def test_what_is_written_in_blocks_is_what_was_there(
    tmp_path_factory: pytest.TempPathFactory,
    shape: tuple[int, ...],
    block_bytes: int,
    dtype: torch.dtype,
    wanted: torch.dtype,
    limit: int,
) -> None:
    folder = tmp_path_factory.mktemp("blocks")
    tensors = {name: torch.randn(shape).to(dtype) for name in ("a", "b", "c")}
    save_file(tensors, folder / "model.safetensors")
    stored = open_weights(folder, "model")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("share4video.models.llava_next.checkpoint_reader.BLOCK_BYTES", block_bytes)
        assert sum(block.numel() for block in blocks(stored["a"])) == tensors["a"].numel()
        entries = [Entry(name, tensor, wanted) for name, tensor in stored.items()]
        told: list[int] = []
        (folder / "out").mkdir()
        shards = plan_shards(entries, limit)
        for shard in shards:
            write_shard(shard, folder / "out", told.append)
            assert shard.bytes <= max(limit, entries[0].bytes)
    found: dict[str, torch.Tensor] = {}
    for file in (folder / "out").iterdir():
        found |= load_file(file)
    assert sum(told) == sum(shard.bytes for shard in shards)
    for name, tensor in tensors.items():
        assert found[name].dtype == wanted and torch.equal(found[name], tensor.to(wanted))
