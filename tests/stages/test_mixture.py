"""The mixture stage on real videos: samples with grids, rejects, resuming after a kill."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from share4video.config import DatasetConfig, MixtureConfig
from share4video.dataset.manifest import StageRef, load_manifest
from share4video.dataset.messages import check_messages, decode_messages
from share4video.dataset.shards import read_file, read_table
from share4video.errors import UserError
from share4video.media.sources import join_sources
from share4video.stages import dataset, mixture
from share4video.stages.mixture import MixtureInputs
from share4video.store import LocalStore, Store
from tests.stages.captioned import publish_captioned

COLOURS = ["red", "green", "blue", "white"]
CONFIG = MixtureConfig(question_writer="synthetic", clips_per_shard=2)


def _publish(store: Store, folder: Path, colours: list[str], broken: tuple[str, ...] = ()) -> MixtureInputs:
    captioned = publish_captioned(store, folder, colours, broken=broken)
    inputs = dataset.DatasetInputs(captioned.clips, captioned.brief, captioned.keyframes, captioned.caption)
    return MixtureInputs(dataset.run_stage(inputs, DatasetConfig(), store).ref, str(captioned.source))


@pytest.fixture
def inputs(store: LocalStore, tmp_path: Path) -> MixtureInputs:
    return _publish(store, tmp_path, COLOURS)


def test_every_clip_becomes_one_grid_and_several_samples(store: LocalStore, inputs: MixtureInputs) -> None:
    seen: list[tuple[str, int, int]] = []
    result = mixture.run_stage(inputs, CONFIG, store, progress=lambda *event: seen.append(event))
    assert (result.rows_in, result.rows_out, result.total_shards) == (4, 4, 2)
    assert seen[-1] == ("clips", 4, 4)
    rows = read_table(store, result.ref, "sft").to_pylist()
    assert result.metrics["samples"] == len(rows)
    assert result.metrics["caption_samples"] == 4
    assert len({row["sample_id"] for row in rows}) == len(rows)
    for row in rows:
        check_messages(decode_messages(row["messages"]), image=True)
    names = {row["image"] for row in rows}
    assert len(names) == 4
    files = {file.name for file in load_manifest(store, result.ref).files}
    assert files == names | {"llava/part-00000.json", "llava/part-00001.json"}
    released = json.loads(read_file(store, result.ref, "llava/part-00001.json"))
    assert {sample["image"] for sample in released} < names
    assert released[0]["conversations"][0]["value"].startswith("<image>\n")
    for name in names:
        jpeg = read_file(store, result.ref, name)
        assert name == f"images/{hashlib.sha256(jpeg).hexdigest()}.jpg"
        assert Image.open(io.BytesIO(jpeg)).size == (4 * 96 + 150, 4 * 48 + 150)


def test_a_grid_shows_its_own_clip(store: LocalStore, inputs: MixtureInputs) -> None:
    result = mixture.run_stage(inputs, CONFIG, store)
    rows = read_table(store, result.ref, "sft").to_pylist()
    red = next(row for row in rows if row["clip_id"] == "clip-red")
    grid = Image.open(io.BytesIO(read_file(store, result.ref, red["image"]))).convert("RGB")
    r, g, b = grid.getpixel((8, 24))  # type: ignore[misc]
    assert r > 150 > max(g, b)


def test_shuffled_captions_are_other_clips(store: LocalStore, inputs: MixtureInputs) -> None:
    shuffled = CONFIG.model_copy(update={"shuffle_captions": True})
    result = mixture.run_stage(inputs, shuffled, store)
    for row in read_table(store, result.ref, "sft").to_pylist():
        colour = row["clip_id"].removeprefix("clip-")
        if row["source"] == "caption":
            assert colour not in decode_messages(row["messages"])[-1].content


def test_shuffling_needs_two_clips(store: LocalStore, tmp_path: Path) -> None:
    alone = _publish(store, tmp_path, ["red"])
    with pytest.raises(UserError, match="fewer than two clips"):
        mixture.run_stage(alone, MixtureConfig(shuffle_captions=True), store)


def test_a_dataset_without_clips_is_the_users_error(store: LocalStore, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no clip"):
        mixture.run_stage(_publish(store, tmp_path, []), MixtureConfig(), store)


def test_unreadable_and_unchosen_clips_are_rejects(store: LocalStore, tmp_path: Path) -> None:
    inputs = _publish(store, tmp_path, COLOURS, broken=("green", "blue"))
    result = mixture.run_stage(inputs, MixtureConfig(max_samples=3), store)
    assert result.rows_in == 4
    assert result.rows_out + sum(result.rejects.values()) == 4
    assert result.rejects["not_selected"] == 1
    assert sum(result.rejects.values()) >= 2
    assert result.rejects["not_video"] >= 1
    for row in read_table(store, result.ref, "rejects").to_pylist():
        assert row["sentence"]
        assert row["stage"] == "mixture"


def test_another_source_publishes_nothing_and_the_right_one_still_can(
    store: LocalStore, inputs: MixtureInputs, tmp_path: Path
) -> None:
    swapped = tmp_path / "swapped"
    swapped.mkdir()
    for name, colour in zip(COLOURS, reversed(COLOURS), strict=True):
        shutil.copy(Path(inputs.source, f"{colour}.mp4"), swapped / f"{name}.mp4")
    for source in (tmp_path / "wrong", swapped):
        with pytest.raises(UserError, match=r"does not hold clip clip-\w+ as it was probed"):
            mixture.run_stage(replace(inputs, source=str(source)), CONFIG, store)
        assert not list(store.list("mixture"))
    assert mixture.run_stage(inputs, CONFIG, store).rows_out == 4


def test_the_clips_of_a_version_that_grew_are_found_in_both_folders(
    store: LocalStore, inputs: MixtureInputs, tmp_path: Path
) -> None:
    later = tmp_path / "later"
    later.mkdir()
    for colour in COLOURS[2:]:  # the uris are those of runs with one source each
        Path(inputs.source, f"{colour}.mp4").rename(later / f"{colour}.mp4")
    shutil.copy(later / "blue.mp4", later / "red.mp4")  # two folders may hold files of one name
    both = replace(inputs, source=join_sources([str(later), inputs.source]))
    assert mixture.run_stage(both, CONFIG, store).rows_out == 4


def test_a_mixture_of_nothing_is_an_error_also_when_it_is_asked_for_again(
    store: LocalStore, tmp_path: Path
) -> None:
    inputs = _publish(store, tmp_path, COLOURS[:2], broken=tuple(COLOURS[:2]))
    for _ in range(2):
        with pytest.raises(UserError, match="none of 2 rows is left, 2 of them rejected as not_video"):
            mixture.run_stage(inputs, CONFIG, store)


KILLED = """
import os, signal, sys
from share4video.config import MixtureConfig
from share4video.dataset.manifest import StageRef
from share4video.stages import mixture
from share4video.store import Store
def progress(label, done, total):
    if done == 3:
        os.kill(os.getpid(), signal.SIGKILL)
mixture.run_stage(
    mixture.MixtureInputs(StageRef.parse(sys.argv[2]), sys.argv[3]),
    MixtureConfig(question_writer="synthetic", clips_per_shard=2),
    Store.open(sys.argv[1]),
    progress=progress,
)
"""


def test_a_killed_run_goes_on_and_publishes_the_same_bytes(
    store: LocalStore, inputs: MixtureInputs, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", KILLED, str(store.root), str(inputs.dataset), inputs.source]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    killed = subprocess.run(command, env=environment, check=False, capture_output=True, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    result = mixture.run_stage(inputs, CONFIG, store)
    assert (result.computed_shards, result.total_shards) == (1, 2)
    elsewhere = LocalStore(tmp_path / "elsewhere")
    undisturbed = mixture.run_stage(_publish(elsewhere, tmp_path, COLOURS), CONFIG, elsewhere)
    assert undisturbed.ref == result.ref
    assert _manifest(elsewhere, undisturbed.ref) == _manifest(store, result.ref)
    assert mixture.run_stage(inputs, CONFIG, store).computed_shards == 0


def _manifest(store: Store, ref: StageRef) -> bytes:
    return store.get(f"{ref.prefix}/manifest.json")
