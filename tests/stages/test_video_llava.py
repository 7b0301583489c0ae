"""From a captioned dataset to a Video-LLaVA that answers, by the stages that every run takes."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from share4video.cli.options import read_settings
from share4video.config import DatasetConfig, MixtureConfig, TrainConfig
from share4video.dataset.messages import decode_messages
from share4video.dataset.mixture import DESCRIBE_REQUEST
from share4video.dataset.shards import fetch_files, read_table
from share4video.export.run import MIXTURE, export
from share4video.model_registry import fetch_checkpoint
from share4video.models.chat_session import Decoding, load_chat_model
from share4video.stages import dataset, mixture, train
from share4video.stages.takedown import take_down
from share4video.store import LocalStore
from tests.models.video_llava.tiny import write_checkpoint
from tests.registry_material import make_database, place_database
from tests.stages.captioned import publish_captioned


def test_captions_of_clips_become_a_video_llava_that_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SHARE4VIDEO_WORK", str(tmp_path / "work"))
    store = LocalStore(tmp_path / "store")
    captioned = publish_captioned(store, tmp_path, ["red", "green"])
    inputs = dataset.DatasetInputs(captioned.clips, captioned.brief, captioned.keyframes, captioned.caption)
    published = dataset.run_stage(inputs, DatasetConfig(), store).ref
    config = MixtureConfig(visual="frames", strip_frames=4)
    mixed = mixture.run_stage(mixture.MixtureInputs(published, str(captioned.source)), config, store)
    rows = read_table(store, mixed.ref, "sft").to_pylist()
    assert [row["image"] for row in rows] == [None, None]
    fetch_files(store, mixed.ref, tmp_path / "mixture")
    for row in rows:
        with Image.open(tmp_path / "mixture" / row["video"]) as strip:
            assert strip.size == (224, 4 * 224)
        question = decode_messages(row["messages"])[0].content
        assert question == f"<image>\n{DESCRIBE_REQUEST}"  # nothing about a grid
    exported = export(store, mixed.ref, tmp_path / "exported", MIXTURE)
    assert {row["video"] for row in rows} <= {file["name"] for file in exported["files"]}

    place_database(make_database(tmp_path), store.root)
    base = write_checkpoint(tmp_path / "base")
    small = TrainConfig(
        lora_rank=2,
        lora_alpha=4,
        lr_tower=0,
        batch_size=2,
        micro_batch_size=2,
        max_steps=2,
        precision="fp32",
        save_precision="fp32",
        activation_checkpointing=False,
    )
    result = train.run_stage(train.TrainInputs(mixed.ref, str(base)), small, store)
    assert (result.rows_in, result.rows_out) == (2, 2)
    chat = load_chat_model(fetch_checkpoint(store, result.ref))
    clip = next(path for path in captioned.source.iterdir() if path.suffix == ".mp4")
    assert isinstance("".join(chat.open(clip).ask("What is it?", Decoding(max_tokens=4))), str)

    take_down(store, [rows[0]["clip_id"]], "asked for", dry_run=False, say=lambda _: None)
    left = [ref for ref in store.list("mixture") if ref.endswith(".jpg")]
    assert [Path(name).name for name in left] == [Path(rows[1]["video"]).name]


def test_the_preset_says_what_the_released_script_says() -> None:
    settings = read_settings("video_llava")
    assert settings.mixture.visual == "frames"
    assert (settings.train.lora_rank, settings.train.lr_language, settings.train.lr_tower) == (128, 2e-4, 0)
    assert settings.train.max_length >= settings.mixture.strip_frames * 257
