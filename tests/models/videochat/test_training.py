"""Both stages train what they name and nothing else, on videos and pictures, and the result can be asked."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from share4video.cli.main import app
from share4video.config import VideoChatAlignConfig, VideoChatInstructConfig
from share4video.config_file import load_config
from share4video.models.chat_session import Decoding, Runtime, load_chat_model
from share4video.models.videochat import training
from share4video.models.videochat.model import TRAINED
from share4video.store import LocalStore
from share4video.training.checkpoint import Interrupted, TrainingStates
from tests.models.videochat.material import captions, conversations, write_list, write_media
from tests.models.videochat.tiny import write_tiny

FAST: dict[str, Any] = {
    "lr": 5e-2,
    "batch_size": 4,
    "micro_batch_size": 2,
    "precision": "fp32",
    "activation_checkpointing": False,
}
EVERYTHING = {"gmhra_token", "extra_query_tokens", "ln_vision", "gmhra", "llama_proj"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_media(tmp_path_factory.mktemp("media"))
    write_list(folder / "captions.json", captions())
    write_list(folder / "conversations.json", conversations())
    return folder


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("stage", [1, 2])
def test_a_stage_lowers_the_loss_and_changes_only_what_it_trains(
    base: Path, media: Path, tmp_path: Path, stage: training.Stage
) -> None:
    kind = VideoChatAlignConfig if stage == 1 else VideoChatInstructConfig
    file = "captions.json" if stage == 1 else "conversations.json"
    told: list[tuple[str, int, int]] = []
    report = training.train(
        [media / file],
        media,
        base,
        tmp_path / "tuned",
        stage,
        kind.model_validate({**FAST, "max_steps": 20, "log_every_steps": 5}),
        work=tmp_path / "work",
        progress=lambda *now: told.append(now),
    )
    assert (report.trained_samples, report.rejected, report.steps) == (4, (), 20)
    assert report.loss_last < 0.85 * report.loss_first
    before, after = _weights(base), _weights(tmp_path / "tuned")
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name.partition(".")[0] for name in changed} == EVERYTHING == set(TRAINED)
    named = {name for name in before if name.partition(".")[0] in TRAINED}
    # The keys' bias cancels in the softmax: its gradient is zero but for rounding.
    assert all(name in changed or name.endswith("in_proj_bias") for name in named)
    assert told[-1][1:] == (20, 20)
    saved = json.loads((tmp_path / "tuned" / training.REPORT_NAME).read_text())
    assert (saved["stage"], saved["steps"], set(saved["trained"])) == (stage, 20, EVERYTHING)

    chat = load_chat_model(tmp_path / "tuned", Runtime())
    session = chat.open(media / "bright.mp4")
    assert "".join(session.ask("What is bright?", Decoding(max_tokens=12)))


def test_a_training_that_was_stopped_goes_on_to_the_same_weights(
    base: Path, media: Path, tmp_path: Path
) -> None:
    config = VideoChatInstructConfig.model_validate({**FAST, "max_steps": 4, "save_every_steps": 2})
    arguments = ([media / "conversations.json"], media, base)

    def stop_after(label: str, done: int, total: int) -> None:
        if label.startswith("steps") and done == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    every_step = config.model_copy(update={"log_every_steps": 1})
    training.train(*arguments, tmp_path / "whole", 2, every_step, work=tmp_path / "a")
    states = TrainingStates(LocalStore(tmp_path / "states"), "key")
    with pytest.raises(Interrupted):
        training.train(
            *arguments,
            tmp_path / "parts",
            2,
            every_step,
            work=tmp_path / "b",
            states=states,
            progress=stop_after,
        )
    told: list[str] = []
    report = training.train(
        *arguments,
        tmp_path / "parts",
        2,
        every_step,
        work=tmp_path / "c",
        states=states,
        progress=lambda label, done, total: told.append(label),
    )
    assert report.steps == 4 and "reading" not in told  # what was checked is not read to be checked again
    whole, parts = _weights(tmp_path / "whole"), _weights(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_samples_that_were_checked_in_another_media_folder_are_checked_again(
    base: Path, media: Path, tmp_path: Path
) -> None:
    config = VideoChatInstructConfig.model_validate({**FAST, "max_steps": 1, "max_failed_share": 0.5})
    lame = shutil.copytree(media, tmp_path / "media")
    gone = lame / conversations()[0]["video"]
    gone.unlink()
    states = TrainingStates(LocalStore(tmp_path / "states"), "key")
    found = [
        training.train(
            [media / "conversations.json"],
            folder,
            base,
            tmp_path / f"tuned-{number}",
            2,
            config,
            work=tmp_path / f"work-{number}",
            states=states,
        )
        for number, folder in enumerate((lame, lame, media))
    ]
    counts = [(report.trained_samples, len(report.rejected)) for report in found]
    assert counts == [(3, 1), (3, 1), (4, 0)]
    assert found[0].rejected == found[1].rejected


def test_the_rate_warms_up_and_falls_to_its_floor(
    base: Path, media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[float] = []

    class Watched(training.VideoChatTrainer):
        def finish_step(self) -> float:
            rates.extend(group["lr"] for group in self.optimizer.param_groups[:1])
            return super().finish_step()

    monkeypatch.setattr(training, "VideoChatTrainer", Watched)
    config = {**FAST, "lr": 1e-3, "epochs": 10, "warmup_epochs": 2, "min_lr_share": 0.25}
    training.train(
        [media / "captions.json"],
        media,
        base,
        tmp_path / "tuned",
        1,
        VideoChatAlignConfig.model_validate(config),
        work=tmp_path / "work",
    )
    assert len(rates) == 10  # 4 samples, 10 epochs, batches of 4
    assert max(rates) == pytest.approx(1e-3) and rates.index(max(rates)) in (1, 2)
    assert rates[-1] == pytest.approx(0.25e-3)


def _run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, ["videochat", *map(str, arguments)])


def _set(stage: int, **values: Any) -> list[str]:
    flags = [f"videochat.stage{stage}.{name}={json.dumps(value)}" for name, value in values.items()]
    return [word for flag in flags for word in ("--set", flag)]


def test_the_command_trains_and_says_what_it_did(base: Path, media: Path, tmp_path: Path) -> None:
    bad = [*conversations(), {"video": "none.mp4", "QA": [{"q": "What?", "a": "it is dark"}]}]
    data = write_list(tmp_path / "list.json", bad)
    out = tmp_path / "tuned"
    train = ["train", "--stage", "2", "--model", base, "--data", data, "--media", media, "-o", out]
    settings = _set(2, **FAST, max_steps=2)
    refused = _run(*train, *settings)
    assert refused.exit_code == 2 and "1 of 5 samples cannot be trained on" in refused.stderr
    assert "list.json:5, missing: there is no such file" in refused.stderr
    assert not out.exists()
    done = _run(*train, *settings, *_set(2, max_failed_share=0.5))
    assert done.exit_code == 0, done.stderr
    assert "4 samples, 1 rejected; 2 steps" in done.stdout
    (line,) = (out / training.REJECTS_NAME).read_text().splitlines()
    assert json.loads(line)["reason"] == "missing"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["list.json", "tuned"]
    again = _run(*train, *settings)
    assert again.exit_code == 2 and "there is something already" in again.stderr


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model": "nowhere"}, "cannot read the model folder"),
        ({"media": "nowhere"}, "there is no such folder"),
        ({"data": "nowhere.json"}, "cannot read the file"),
    ],
)
def test_a_wrong_path_is_one_sentence(
    base: Path, media: Path, tmp_path: Path, change: dict[str, str], sentence: str
) -> None:
    places = {"model": base, "media": media, "data": media / "captions.json"}
    places |= {name: tmp_path / value for name, value in change.items()}
    flags = [word for name, value in places.items() for word in (f"--{name}", value)]
    found = _run("train", "--stage", "1", *flags, "-o", tmp_path / "out", *_set(1, **FAST))
    assert found.exit_code == 2 and sentence in found.stderr
    assert "Traceback" not in found.stderr


def test_a_base_with_damaged_weights_is_one_sentence(base: Path, media: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(base, tmp_path / "broken")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    files = ("--data", media / "captions.json", "--model", broken, "-o", tmp_path / "out")
    found = _run("train", "--stage", "1", *files, *_set(1, **FAST))
    assert found.exit_code == 2 and "the base model cannot be loaded" in found.stderr, found.stderr


def test_more_than_one_device_is_refused(
    base: Path, media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = ["train", "--stage", "1", "--data", media / "captions.json", "--model", base]
    for name, setting in (("WORLD_SIZE=2", "2"), ("2 GPUs", "1")):
        monkeypatch.setenv("WORLD_SIZE", setting)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        found = _run(*train, "-o", tmp_path / "out", *_set(1, **FAST))
        assert found.exit_code == 2 and "VideoChat is trained on one device" in found.stderr, found.stderr
        assert name in found.stderr
    assert not list(tmp_path.iterdir())


def test_the_preset_that_ships_says_the_defaults() -> None:
    shipped = load_config(Path(__file__).parents[3] / "configs" / "videochat.yaml").videochat
    assert shipped.stage1 == VideoChatAlignConfig()
    assert shipped.stage2 == VideoChatInstructConfig()
