"""Supervised fine-tuning of a LLaVA-NeXT or Video-LLaVA checkpoint on samples, from a folder to a folder.

One path for the 8B on GPUs and the nano model on a laptop's CPU: the HF Trainer, LoRA on the language model,
projector and tower trained at their own rates, float32 masters, states in the store. With a fixed seed on
one CPU the result does not depend on how often the training was killed and run again.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.utils.data import Dataset
from transformers import PrinterCallback, TrainingArguments, set_seed
from transformers.utils import logging as transformers_logging

from share4video.config import TrainConfig
from share4video.errors import UserError
from share4video.models.family import family_of
from share4video.models.loading import load_whole
from share4video.training.checkpoint import Interrupted, StopSignal, TrainingStates
from share4video.training.export import DTYPES, export_checkpoint
from share4video.training.packing import Collator, Pack, pack, schedule
from share4video.training.parameter_groups import attach_lora
from share4video.training.samples import Pictures, RejectedSample, Sample, tokenize
from share4video.training.trainer import SftTrainer, StateCallback, StepReporter

ZERO2 = Path(__file__).with_name("zero2.json")
_EDGE_SHARE = 0.1  # the first and the last tenth of the steps, for the losses that are reported

Progress = Callable[[str, int, int], None]
LogMetrics = Callable[[dict[str, float], int], None]


@dataclass(frozen=True)
class TrainReport:
    """What a training did. Losses are means over the first and the last tenth of the steps."""

    trained_samples: int
    rejected: tuple[RejectedSample, ...]
    sequences: int
    steps: int
    supervised_tokens: int
    loss_first: float
    loss_last: float


class _Scheduled(Dataset[Pack]):
    """The packs in the order the training takes them."""

    def __init__(self, packs: Sequence[Pack], order: Sequence[int]) -> None:
        self._packs, self._order = packs, order

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, place: int) -> Pack:
        return self._packs[self._order[place]]


def train(
    samples: Sequence[Sample],
    base: Path,
    target: Path,
    config: TrainConfig,
    *,
    work: Path,
    states: TrainingStates | None = None,
    log: LogMetrics | None = None,
    progress: Progress | None = None,
) -> TrainReport:
    """Fine-tune the checkpoint in ``base`` and write the whole tuned checkpoint to ``target``.

    Args:
        work: an empty folder of this process for the Trainer's files.
        states: where unfinished trainings are kept; None keeps none.
        log: gets numbers with the step they belong to.

    Raises:
        UserError: the base or the configuration is wrong, no sample can be trained on, or the loss diverged.
        Interrupted: SIGTERM came; the state is saved.
    """
    _check(config)
    _quieten()
    set_seed(config.seed)
    family = family_of(base)
    processor = family.load_processor(base)
    model = load_base(base, config)
    context = int(model.config.text_config.max_position_embeddings)
    tokens, rejected = tokenize(processor, samples, min(config.max_length, context), progress)
    if not tokens:
        reasons = sorted({sample.reason for sample in rejected})
        raise UserError(
            "no sample can be trained on",
            where=f"{len(samples)} samples",
            fix=f"rejected as {', '.join(reasons)}" if reasons else "make the mixture larger",
        )
    _check_frames({sample.frames for sample in tokens if sample.frames})
    packs = pack(
        tokens,
        image_token_id=processor.image_token_id,
        video_token_id=getattr(processor, "video_token_id", None),
        per_pack=config.pack_samples,
        max_length=config.max_length,
        weighting=config.loss_weighting,
    )
    steps = _steps(config, len(packs))
    order = schedule([p.length for p in packs], batch_size=config.batch_size, steps=steps, seed=config.seed)
    strips = {p.image for p in packs if p.image is not None and p.frames}
    pictures = Pictures(processor, int(config.image_cache_gib * 2**30), strips)
    pictures.load([p.image for p in (packs[i] for i in order) if p.image is not None], progress)
    collator = Collator(
        pad_token_id=processor.tokenizer.pad_token_id or 0,
        tiles=pictures,
        additive_mask=config.attention == "eager",
        family=family,
    )
    arguments = _arguments(config, steps, work)
    model = attach_lora(model, config)
    reporter = StepReporter(config.log_every_steps, _report(log, progress))
    with StopSignal() as stop:
        trainer = SftTrainer(
            model=model,
            args=arguments,
            config=config,
            train_dataset=_Scheduled(packs, order),
            data_collator=collator,
            callbacks=[reporter, StateCallback(states, work, stop)],
        )
        reporter.trainer = trainer
        trainer.remove_callback(PrinterCallback)
        resumed = states.fetch_newest(work) if states is not None else None
        trainer.train(resume_from_checkpoint=None if resumed is None else str(resumed))
        if stop.received and trainer.state.global_step < steps:
            raise Interrupted(trainer.state.global_step)
    if trainer.is_world_process_zero():
        tuned = trainer.accelerator.unwrap_model(trainer.model)
        template = family.other_template(processor, base)
        export_checkpoint(tuned, base, target, config, chat_template=template)
    losses = trainer.step_losses
    edge = max(1, round(_EDGE_SHARE * len(losses)))
    return TrainReport(
        trained_samples=len(tokens),
        rejected=tuple(rejected),
        sequences=len(packs),
        steps=len(losses),
        supervised_tokens=sum(int(sample.supervised.sum()) for sample in tokens),
        loss_first=sum(losses[:edge]) / edge,
        loss_last=sum(losses[-edge:]) / edge,
    )


def load_base(folder: Path, config: TrainConfig) -> Any:
    """Load the checkpoint in ``folder``, frozen weights in the training's precision.

    Raises:
        UserError: it is no architecture that can be trained, or a weight is missing, left over or of another
            shape: transformers would fill it in at random and go on.
    """
    family = family_of(folder)
    return load_whole(
        getattr(transformers, family.architecture),
        folder,
        dtype=DTYPES[config.precision],
        called="base model",
        fix=f"give a {family.title} checkpoint with safetensors weights",
        attn_implementation=config.attention,
    )


def _check(config: TrainConfig) -> None:
    if config.attention == "flash_attention_2" and config.pack_samples > 1:
        raise UserError(
            "flash_attention_2 cannot mask samples that share a picture",
            where="train.pack_samples",
            fix="set train.attention to sdpa, or train.pack_samples to 1",
        )


def _check_frames(numbers: set[int]) -> None:
    if len(numbers) > 1:
        raise UserError(
            f"clips have {' and '.join(map(str, sorted(numbers)))} frames, and a batch takes one number",
            where="mixture.strip_frames",
            fix="make the mixture with one number",
        )


def _steps(config: TrainConfig, sequences: int) -> int:
    if config.max_steps is not None:
        return config.max_steps
    if sequences < config.batch_size:
        raise UserError(
            f"there are {sequences} sequences, fewer than one batch of {config.batch_size}",
            where="train.batch_size",
            fix="lower it, set train.max_steps, or make the mixture larger",
        )
    return math.ceil(sequences * config.epochs / config.batch_size)


def _arguments(config: TrainConfig, steps: int, work: Path) -> TrainingArguments:
    gpu = torch.cuda.is_available()
    micro = min(config.micro_batch_size, config.batch_size)
    per_step = micro * int(os.environ.get("WORLD_SIZE", "1"))
    if config.batch_size % per_step:
        raise UserError(
            f"a batch of {config.batch_size} cannot be split into {per_step} at a time over all devices",
            where="train.batch_size",
            fix="make it a multiple of train.micro_batch_size times the number of devices",
        )
    if not gpu and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(len(os.sched_getaffinity(0)))
    return TrainingArguments(
        output_dir=str(work),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=config.batch_size // per_step,
        max_steps=steps,
        learning_rate=config.lr_language,
        lr_scheduler_type="cosine",
        warmup_steps=config.warmup_share,
        weight_decay=0.0,
        bf16=config.precision == "bf16",
        tf32=gpu or None,
        use_cpu=not gpu,
        gradient_checkpointing=config.activation_checkpointing,
        deepspeed=None if config.deepspeed is None else _deepspeed(config.deepspeed),
        train_sampling_strategy="sequential",  # `schedule` has decided the order
        remove_unused_columns=False,
        dataloader_num_workers=min(8, os.cpu_count() or 1) if gpu else 0,
        dataloader_pin_memory=gpu,
        save_strategy="steps",
        save_steps=config.save_every_steps,
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=config.seed,
    )


def _deepspeed(name: str) -> dict[str, Any]:
    path = ZERO2 if name == "zero2" else Path(name)
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"the DeepSpeed configuration cannot be read: {error}",
            where="train.deepspeed",
            fix="give zero2 or a JSON file",
        ) from error
    if not isinstance(settings, dict):
        raise UserError("the DeepSpeed configuration is no object", where=str(path), fix="give a JSON object")
    return settings


def _report(log: LogMetrics | None, progress: Progress | None) -> Callable[..., None]:
    def report(step: int, steps: int, loss: float, rates: dict[str, float]) -> None:
        if log is not None:
            log({"loss": loss, **{f"lr_{part}": rate for part, rate in rates.items()}}, step)
        if progress is not None:
            progress("steps", step, steps)

    return report


def _quieten() -> None:
    """Keep transformers' bars and advice out of the stage's view; its errors are raised all the same."""
    library: Any = transformers_logging
    library.disable_progress_bar()
    library.set_verbosity_error()
