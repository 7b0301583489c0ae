"""Fine-tuning a small real model: it learns, it is written whole, it stops and goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from share4video.config import TrainConfig
from share4video.errors import UserError
from share4video.store import LocalStore
from share4video.training import sft
from share4video.training.checkpoint import Interrupted, TrainingStates
from share4video.training.export import export_checkpoint
from share4video.training.packing import Collator, pack
from share4video.training.parameter_groups import attach_lora
from share4video.training.samples import Pictures, Sample, tokenize
from tests.training.conftest import SMALL

MakeSamples = Callable[[int, int], list[Sample]]


def _load(folder: Path, dtype: Any = torch.float32) -> Any:
    from transformers import LlavaNextForConditionalGeneration

    model, report = LlavaNextForConditionalGeneration.from_pretrained(
        folder, dtype=dtype, output_loading_info=True
    )
    assert not any(report.values()), report
    return model.eval()


def test_training_learns_and_writes_a_whole_checkpoint(
    base: Path, make_samples: MakeSamples, tmp_path: Path
) -> None:
    logged: list[tuple[int, dict[str, float]]] = []
    seen: list[tuple[str, int, int]] = []
    config = SMALL.model_copy(update={"max_steps": 8, "pack_samples": 2, "save_precision": "fp16"})
    report = sft.train(
        make_samples(2, 4),
        base,
        tmp_path / "tuned",
        config,
        work=tmp_path / "work",
        log=lambda metrics, step: logged.append((step, metrics)),
        progress=lambda *event: seen.append(event),
    )
    assert (report.trained_samples, report.sequences, report.steps) == (8, 4, 8)
    assert report.loss_last < 0.8 * report.loss_first
    assert [step for step, _ in logged] == [2, 4, 6, 8]
    assert logged[0][1]["lr_language"] > logged[-1][1]["lr_language"] > 0
    assert set(logged[0][1]) == {"loss", "lr_language", "lr_projector", "lr_tower"}
    assert ("steps", 8, 8) in seen

    names = set(load_file(tmp_path / "tuned" / "model.safetensors"))
    assert "language_model.model.layers.0.self_attn.q_proj.weight" in names
    assert "vision_tower.vision_model.embeddings.class_embedding" in names
    assert {"image_newline", "multi_modal_projector.linear_1.weight"} <= names
    assert not any("lora" in name for name in names)
    tuned, before = _load(tmp_path / "tuned", "auto"), _load(base)
    assert tuned.dtype == torch.float16
    for part in ("language_model.layers.0.mlp.up_proj", "multi_modal_projector.linear_1"):
        moved = tuned.model.get_submodule(part).weight.float() - before.model.get_submodule(part).weight
        assert float(moved.detach().abs().max()) > 1e-4, part
    for name in ("chat_template.jinja", "processor_config.json", "tokenizer.json"):
        assert (tmp_path / "tuned" / name).read_bytes() == (base / name).read_bytes()
    assert json.loads((tmp_path / "tuned" / "config.json").read_text())["model_type"] == "llava_next"


def test_the_merged_checkpoint_answers_as_the_adapted_model_does(
    base: Path, processor: Any, make_samples: MakeSamples, tmp_path: Path
) -> None:
    adapted = attach_lora(_load(base), SMALL).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    tokens, _ = tokenize(processor, make_samples(1, 1), 4096)
    packs = pack(
        tokens, image_token_id=processor.image_token_id, per_pack=1, max_length=4096, weighting="token"
    )
    batch = Collator(0, Pictures(processor, 0))(packs)
    inputs = {name: value for name, value in batch.items() if name not in ("labels", "weights")}
    with torch.no_grad():
        expected = adapted(**inputs).logits
        export_checkpoint(adapted, base, tmp_path / "merged", SMALL)
        found = _load(tmp_path / "merged")(**inputs).logits
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)
    assert not torch.allclose(found, _load(base)(**inputs).logits, atol=1e-2)


def test_loss_and_gradients_do_not_depend_on_how_a_batch_is_cut(
    base: Path, make_samples: MakeSamples, tmp_path: Path
) -> None:
    samples = make_samples(2, 4)
    reports = []
    for number, changes in enumerate(
        (
            {"micro_batch_size": 4, "pack_samples": 2},
            {"micro_batch_size": 1, "pack_samples": 2},
            {"micro_batch_size": 8, "batch_size": 8, "pack_samples": 1},
        )
    ):
        config = SMALL.model_copy(update={"batch_size": 4, "max_steps": 3, "lora_dropout": 0.0, **changes})
        target = tmp_path / str(number)
        reports.append(sft.train(samples, base, target, config, work=tmp_path / f"work{number}"))
    assert len({report.supervised_tokens for report in reports}) == 1
    assert reports[1].loss_last == pytest.approx(reports[0].loss_last, rel=1e-3)
    assert reports[2].loss_last == pytest.approx(reports[0].loss_last, rel=1e-3)


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = load_file(folder / "model.safetensors")
    return weights


def test_a_training_that_is_stopped_goes_on_to_the_same_weights(
    base: Path, make_samples: MakeSamples, tmp_path: Path
) -> None:
    samples = make_samples(2, 4)
    config = SMALL.model_copy(update={"max_steps": 6, "save_every_steps": 4})
    states = TrainingStates(LocalStore(tmp_path / "store"), "key")

    def stop_at_three(metrics: dict[str, float], step: int) -> None:
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    noisy = config.model_copy(update={"log_every_steps": 1})
    with pytest.raises(Interrupted) as stopped:
        sft.train(
            samples, base, tmp_path / "a", noisy, work=tmp_path / "w1", states=states, log=stop_at_three
        )
    assert stopped.value.step == 3
    assert not (tmp_path / "a").exists()
    resumed = sft.train(samples, base, tmp_path / "a", config, work=tmp_path / "w2", states=states)
    undisturbed = sft.train(samples, base, tmp_path / "b", config, work=tmp_path / "w3")
    assert resumed == undisturbed
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (
        tmp_path / "b" / "model.safetensors"
    ).read_bytes()


def test_bfloat16_with_recomputed_activations_takes_a_step(
    base: Path, make_samples: MakeSamples, tmp_path: Path
) -> None:
    config = SMALL.model_copy(
        update={
            "precision": "bf16",
            "save_precision": "bf16",
            "activation_checkpointing": True,
            "pack_samples": 2,
            "loss_weighting": "sample",
            "max_steps": 1,
        }
    )
    report = sft.train(make_samples(1, 4), base, tmp_path / "tuned", config, work=tmp_path / "work")
    assert report.steps == 1
    assert _load(tmp_path / "tuned", "auto").dtype == torch.bfloat16


def test_a_base_with_missing_and_strange_weights_is_refused(base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(base, folder)
    weights = _weights(base)
    name = next(name for name in weights if "multi_modal_projector.linear_1.weight" in name)
    norm = next(name for name in weights if name.endswith("norm.weight"))
    weights["strange.weight"] = weights.pop(name)
    weights[norm] = torch.zeros(3)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError) as error:
        sft.load_base(folder, SMALL)
    sentence = error.value.sentence()
    assert "1 missing (model.multi_modal_projector.linear_1.weight" in sentence
    assert "1 unexpected (strange.weight" in sentence
    assert "1 mismatched" in sentence


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be loaded"):
        sft.load_base(tmp_path, SMALL)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"attention": "flash_attention_2", "pack_samples": 2}, "pack_samples"),
        ({"max_steps": None, "batch_size": 64}, "fewer than one batch"),
        ({"batch_size": 3, "micro_batch_size": 2}, "multiple"),
        ({"deepspeed": "/none.json"}, "DeepSpeed"),
        ({"max_length": 20}, "too_long"),
    ],
)
def test_a_configuration_that_cannot_be_is_said(
    base: Path, make_samples: MakeSamples, tmp_path: Path, changes: dict[str, Any], complaint: str
) -> None:
    config: TrainConfig = SMALL.model_copy(update=changes)
    with pytest.raises(UserError, match=complaint):
        sft.train(make_samples(1, 2), base, tmp_path / "tuned", config, work=tmp_path / "work")
    assert not (tmp_path / "tuned").exists()


def test_a_loss_that_diverges_is_said(base: Path, make_samples: MakeSamples, tmp_path: Path) -> None:
    config = SMALL.model_copy(update={"lr_projector": 1e30, "max_steps": 20, "warmup_share": 0.0})
    with pytest.raises(UserError, match="lower the rates"):
        sft.train(make_samples(1, 4), base, tmp_path / "tuned", config, work=tmp_path / "work")
