"""Only clips whose licence is known to allow commercial use, in what is published and in what is exported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from share4video.cli.main import app
from share4video.config import DatasetConfig, MixtureConfig
from share4video.dataset.manifest import StageRef
from share4video.dataset.shards import ShardSet, read_file, read_table, table_from_rows
from share4video.stages import dataset, mixture
from share4video.store import LocalStore
from tests.stages.captioned import Captioned, publish_captioned

LICENCES = {"red": "cc-by", "green": "CC BY-NC 4.0", "white": "Pexels license"}


@pytest.fixture
def licensed(store: LocalStore, tmp_path: Path) -> Captioned:
    """Three clips of three licences."""
    made = publish_captioned(store, tmp_path, list(LICENCES))
    rows: list[dict[str, Any]] = read_table(store, made.clips, "clips").to_pylist()
    rows = [{**row, "licence": LICENCES[row["clip_id"].removeprefix("clip-")]} for row in rows]
    output = ShardSet(store, "dedup", "1", inputs=["licensed"], config=DatasetConfig())
    output.commit(0, {"clips": table_from_rows("clips", rows)})
    return Captioned(output.publish(1).ref, made.brief, made.keyframes, made.caption, made.source)


def publish(store: LocalStore, made: Captioned, **config: Any) -> StageRef:
    inputs = dataset.DatasetInputs(made.clips, made.brief, made.keyframes, made.caption)
    return dataset.run_stage(inputs, DatasetConfig(**config), store).ref


def test_a_dataset_for_commercial_use(store: LocalStore, licensed: Captioned) -> None:
    ref = publish(store, licensed, commercial_only=True)
    assert read_table(store, ref, "clips")["clip_id"].to_pylist() == ["clip-red"]
    assert [(row["reason"], row["sentence"]) for row in read_table(store, ref, "rejects").to_pylist()] == [
        ("licence", "the licence CC BY-NC 4.0 does not allow commercial use"),
        ("licence", "the licence Pexels license is not known to allow commercial use"),
    ]
    read = publish(store, licensed, commercial_only=True, commercial_licences=("pexels",))
    assert read_table(store, read, "clips")["clip_id"].to_pylist() == ["clip-red", "clip-white"]
    card = read_file(store, read, dataset.CARD_NAME).decode()
    assert "| Pexels | 1 | yes |" in card
    assert "| CC-BY-4.0 | 1 | yes |" in card


def test_a_mixture_for_commercial_use(store: LocalStore, licensed: Captioned) -> None:
    inputs = mixture.MixtureInputs(publish(store, licensed), str(licensed.source))
    result = mixture.run_stage(inputs, MixtureConfig(commercial_only=True), store)
    assert (result.rows_in, result.rows_out, result.rejects) == (3, 1, {"licence": 2})
    assert set(read_table(store, result.ref, "sft")["clip_id"].to_pylist()) == {"clip-red"}


def test_an_export_for_commercial_use(store: LocalStore, licensed: Captioned, tmp_path: Path) -> None:
    ref, folder = publish(store, licensed), tmp_path / "out"

    def export(*options: str) -> str:
        words = ["dataset", "export", str(ref), "--to", str(folder), "--store", str(store.root), *options]
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.output
        return done.stderr

    assert export("--commercial-only").startswith("2 clips left out")
    assert pq.read_table(folder / "clips.parquet")["clip_id"].to_pylist() == ["clip-red"]
    assert pq.read_table(folder / "rejects.parquet")["reason"].to_pylist() == ["licence"] * 2
    lines = (folder / dataset.EXPORT_NAME).read_text().splitlines()
    assert [json.loads(line)["video_id"] for line in lines] == ["clip-red"]
    assert "1 clips" in (folder / dataset.CARD_NAME).read_text()
    for path in folder.iterdir():
        text = str(pq.read_table(path).to_pylist()) if path.suffix == ".parquet" else path.read_text()
        assert "green square" not in text
    assert export("--commercial-only", "--commercial-licence", "Pexels").startswith("1 clips left out")


def test_every_format_can_be_for_commercial_use(
    store: LocalStore, licensed: Captioned, tmp_path: Path
) -> None:
    ref = publish(store, licensed)

    def export(ref: StageRef, folder: str, *options: str) -> Any:
        words = ["dataset", "export", str(ref), "--to", str(tmp_path / folder), "--store", str(store.root)]
        return CliRunner().invoke(app, [*words, *options, "--commercial-only"])

    first = export(ref, "one", "--format", "sharegpt4video")
    assert first.stdout.splitlines()[-1] == "3 in, 1 out, 2 licence"
    assert json.loads((tmp_path / "one" / "export.json").read_text())["filter"] == "commercial_only"
    options = ("--format", "open-sora", "--commercial-licence", "Pexels license")
    assert export(ref, "two", *options).stdout.splitlines()[-1] == "3 in, 2 out, 1 licence"
    other = export(ref, "two", *options[:2])
    assert other.exit_code == 2 and "not empty" in other.output  # another recipe
    mixed = mixture.run_stage(mixture.MixtureInputs(ref, str(licensed.source)), MixtureConfig(), store)
    refused = export(mixed.ref, "three", "--format", "llava")
    assert refused.exit_code == 2 and "a mixture is not filtered" in refused.output


def test_an_output_without_licences_is_refused(
    store: LocalStore, licensed: Captioned, tmp_path: Path
) -> None:
    words = ["dataset", "export", str(licensed.caption), "--to", str(tmp_path / "out"), "--commercial-only"]
    done = CliRunner().invoke(app, [*words, "--store", str(store.root)])
    assert done.exit_code == 2
    assert "says nothing of licences" in done.output
