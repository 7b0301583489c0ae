"""VideoChat's two training stages, from a checkpoint to a checkpoint.

Both train the same parts: the aggregators, the norm after the tower, the extra queries and the projector.
Videos and pictures are mixed in every batch, the loss is that of the answers alone, and what is frozen stays
as it was to the bit. One process trains on one device. See docs/reference/videochat.md for what the released
training code did instead.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch.utils.data import Dataset
from transformers import PrinterCallback, TrainingArguments, set_seed

from share4video.captioning.checkpoints import checkpoint_revision
from share4video.config import VideoChatAlignConfig
from share4video.errors import UserError
from share4video.models.loading import load_whole
from share4video.models.videochat.config import VideoChatConfig
from share4video.models.videochat.model import TRAINED, VideoChatForConditionalGeneration
from share4video.models.videochat.processor import load_processor
from share4video.models.videochat.samples import (
    Progress,
    Reader,
    Sample,
    Stage,
    content_of,
    load_samples,
)
from share4video.training.checkpoint import Interrupted, StopSignal, TrainingStates
from share4video.training.packing import IGNORED
from share4video.training.samples import RejectedSample
from share4video.training.trainer import StateCallback, StepReporter, WeightedTrainer

REPORT_NAME, REJECTS_NAME = "training.json", "rejects.jsonl"
_CHECKED_NAME = "checked.json"  # beside the states of an unfinished training
_EDGE_SHARE = 0.1  # the first and the last tenth of the steps, for the losses that are reported


@dataclass(frozen=True)
class TrainReport:
    """What a training did. Losses are means over the first and the last tenth of the steps."""

    trained_samples: int
    rejected: tuple[RejectedSample, ...]
    steps: int
    trained_parameters: int
    loss_first: float
    loss_last: float


def training_key(files: Sequence[Path], base: Path, stage: Stage, config: VideoChatAlignConfig) -> str:
    """Return a name for the training: equal files, base, stage and settings give an equal one."""
    parts = [content_of(files), checkpoint_revision(base), str(stage), config.model_dump_json()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def refuse_several_devices() -> None:
    """Raises UserError where the training would be spread over devices: only one of them can write."""
    processes, gpus = os.environ.get("WORLD_SIZE", "1"), torch.cuda.device_count()
    if processes != "1":
        fix = "start share4video itself, without torchrun"
        raise UserError("VideoChat is trained on one device", where=f"WORLD_SIZE={processes}", fix=fix)
    if gpus > 1:
        fix = "name the one to use, such as CUDA_VISIBLE_DEVICES=0"
        raise UserError("VideoChat is trained on one device", where=f"{gpus} GPUs", fix=fix)


def train(
    files: Sequence[Path],
    media: Path,
    base: Path,
    target: Path,
    stage: Stage,
    config: VideoChatAlignConfig,
    *,
    work: Path,
    states: TrainingStates | None = None,
    progress: Progress | None = None,
) -> TrainReport:
    """Train the checkpoint in ``base`` on training files and write the whole checkpoint to ``target``.

    Beside the weights, ``training.json`` says what was done and ``rejects.jsonl`` what was left out and why.

    Args:
        media: the folder that the paths in the files start from.
        work: an empty folder of this process.
        states: where an unfinished training is kept; None keeps none.

    Raises:
        UserError: the base, the files or the settings are wrong, too many files cannot be read, one breaks
            while it is trained on, the loss diverged, or there is more than one device.
        Interrupted: SIGTERM came; the state is saved.
    """
    refuse_several_devices()
    set_seed(config.seed)
    model = _load(base)
    processor = load_processor(base, model.config.visual_tokens)
    reader = Reader(processor, config, base)
    found = load_samples(files, media, stage)
    checked = _read_earlier(found, media, states)
    samples, rejected = checked or _checked(found, reader, config, progress)
    if states is not None and checked is None:
        _keep(states, found, media, samples, rejected)
    steps = _steps(config, len(samples))
    reporter = StepReporter(config.log_every_steps, _told(progress))
    with StopSignal() as stop:
        trainer = VideoChatTrainer(
            model=model,
            args=_arguments(config, steps, len(samples), work),
            train_dataset=_Places(steps * config.batch_size),
            data_collator=_Collator(samples, reader, config, processor.tokenizer.pad_token_id or 0),
            callbacks=[reporter, StateCallback(states, work, stop)],
        )
        reporter.trainer = trainer
        trainer.remove_callback(PrinterCallback)
        resumed = states.fetch_newest(work) if states is not None else None
        trainer.train(resume_from_checkpoint=None if resumed is None else str(resumed))
        if stop.received and trainer.state.global_step < steps:
            raise Interrupted(trainer.state.global_step)
    losses = trainer.step_losses
    edge = max(1, round(_EDGE_SHARE * len(losses)))
    report = TrainReport(
        trained_samples=len(samples),
        rejected=tuple(rejected),
        steps=len(losses),
        trained_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        loss_first=sum(losses[:edge]) / edge,
        loss_last=sum(losses[-edge:]) / edge,
    )
    _write(trainer.accelerator.unwrap_model(trainer.model), processor, target, stage, config, report)
    return report


class VideoChatTrainer(WeightedTrainer):
    """AdamW over what is trained; weights that are vectors do not decay, as in the released code."""

    remedy = "lower videochat.stage1.lr or videochat.stage2.lr"

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            chosen: Any = self.model if model is None else model
            trained = [(name, p) for name, p in chosen.named_parameters() if p.requires_grad]
            vectors = [p for name, p in trained if p.ndim == 1 or name.endswith("bias")]
            matrices = [p for name, p in trained if p.ndim != 1 and not name.endswith("bias")]
            kind, arguments = self.get_optimizer_cls_and_kwargs(self.args)
            self.optimizer = kind(
                [
                    {"name": "matrices", "params": matrices, "weight_decay": self.args.weight_decay},
                    {"name": "vectors", "params": vectors, "weight_decay": 0.0},
                ],
                **arguments,
            )
        optimizer: torch.optim.Optimizer = self.optimizer
        return optimizer


class _Places(Dataset[int]):
    """The places of all samples of a training, in order; the collator knows which sample stands where."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, place: int) -> int:
        return place


class _Collator:
    """Reads a batch's samples side by side; every epoch is a new permutation, known from the seed alone."""

    def __init__(
        self, samples: Sequence[Sample], reader: Reader, config: VideoChatAlignConfig, pad_token_id: int
    ) -> None:
        self._samples, self._reader, self._config = samples, reader, config
        self._pad_token_id = pad_token_id
        self._orders: dict[int, torch.Tensor] = {}

    def __call__(self, places: Sequence[int]) -> dict[str, Any]:
        """Return the model's inputs with ``labels`` and ``weights``, both (B, S), padded on the right."""
        with ThreadPoolExecutor(min(len(places), len(os.sched_getaffinity(0)))) as pool:
            found = list(pool.map(self._read, places))

        def padded(rows: list[torch.Tensor], value: float) -> torch.Tensor:
            return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value)

        texts = [text for _, text in found]
        return {
            "input_ids": padded([text.input_ids for text in texts], self._pad_token_id),
            "attention_mask": padded([torch.ones_like(text.input_ids) for text in texts], 0),
            "visuals": [pixels for pixels, _ in found],
            "labels": padded([text.input_ids.where(text.supervised, IGNORED) for text in texts], IGNORED),
            "weights": padded([text.supervised.float() for text in texts], 0.0),
        }

    def _read(self, place: int) -> Any:
        epoch, number = divmod(place, len(self._samples))
        return self._reader(self._samples[int(self._order(epoch)[number])], place)

    def _order(self, epoch: int) -> torch.Tensor:
        if epoch not in self._orders:
            generator = torch.Generator().manual_seed(self._config.seed + epoch)
            self._orders[epoch] = torch.randperm(len(self._samples), generator=generator)
        return self._orders[epoch]


def _load(base: Path) -> VideoChatForConditionalGeneration:
    """Load the base in the number format it was saved in, so that what is frozen is never rounded."""
    fix = "make a VideoChat folder with share4video videochat convert"
    try:
        saved: Any = VideoChatConfig.from_pretrained(base, local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        raise UserError("the folder holds no VideoChat", where=str(base), fix=fix) from error
    model: VideoChatForConditionalGeneration = load_whole(
        VideoChatForConditionalGeneration,
        base,
        dtype=saved.dtype or torch.float32,
        called="base model",
        fix=fix,
    )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.partition(".")[0] in TRAINED)
    return model


def _checked(
    found: Sequence[Sample | RejectedSample],
    reader: Reader,
    config: VideoChatAlignConfig,
    progress: Progress | None,
) -> tuple[list[Sample], list[RejectedSample]]:
    rejected = [sample for sample in found if isinstance(sample, RejectedSample)]
    kept, unread = reader.check([sample for sample in found if isinstance(sample, Sample)], progress)
    rejected += unread
    if not kept:
        reasons = ", ".join(sorted({sample.reason for sample in rejected}))
        raise UserError(
            "no sample can be trained on",
            where=f"{len(found)} samples",
            fix=f"rejected as {reasons}" if reasons else "give a training file that is not empty",
        )
    bound = config.max_failed_share * len(found)
    if len(rejected) > bound:
        first = rejected[0]
        raise UserError(
            f"{len(rejected)} of {len(found)} samples cannot be trained on",
            where=f"{first.sample_id}, {first.reason}: {first.sentence}",
            fix="mend them, or raise videochat.stage1.max_failed_share (stage2 in stage 2)",
        )
    return kept, rejected


class _Checked(BaseModel):
    """What came of reading all samples: the places of those that are trained on, and the others."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    media: str
    kept: tuple[int, ...]
    rejected: tuple[RejectedSample, ...]


def _keep(
    states: TrainingStates,
    found: Sequence[Sample | RejectedSample],
    media: Path,
    samples: Sequence[Sample],
    rejected: Sequence[RejectedSample],
) -> None:
    """Remember which samples are trained on: a resumed training takes the same, and reads none again."""
    chosen = {id(sample) for sample in samples}
    kept = tuple(place for place, sample in enumerate(found) if id(sample) in chosen)
    checked = _Checked(media=str(media.resolve()), kept=kept, rejected=tuple(rejected))
    states.keep(_CHECKED_NAME, checked.model_dump_json().encode())


def _read_earlier(
    found: Sequence[Sample | RejectedSample], media: Path, states: TrainingStates | None
) -> tuple[list[Sample], list[RejectedSample]] | None:
    """Return what `_keep` remembered of these samples in this media folder, or None."""
    content = None if states is None else states.kept(_CHECKED_NAME)
    if content is None:
        return None
    try:
        checked = _Checked.model_validate_json(content)
    except ValidationError:
        return None
    wanted = set(checked.kept)
    samples = [s for place, s in enumerate(found) if place in wanted and isinstance(s, Sample)]
    whole = len(samples) == len(checked.kept) and len(samples) + len(checked.rejected) == len(found)
    if not whole or checked.media != str(media.resolve()):
        return None
    return samples, list(checked.rejected)


def _steps(config: VideoChatAlignConfig, samples: int) -> int:
    if config.max_steps is not None:
        return config.max_steps
    return math.ceil(samples * config.epochs / config.batch_size)


def _arguments(config: VideoChatAlignConfig, steps: int, samples: int, work: Path) -> TrainingArguments:
    gpu = torch.cuda.is_available()
    micro = min(config.micro_batch_size, config.batch_size)
    if config.batch_size % micro:
        raise UserError(
            f"a batch of {config.batch_size} cannot be split into {micro} at a time",
            where="videochat.stage1.batch_size or videochat.stage2.batch_size",
            fix="make it a multiple of micro_batch_size",
        )
    warmup = round(samples * config.warmup_epochs / config.batch_size)
    return TrainingArguments(
        output_dir=str(work),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=config.batch_size // micro,
        max_steps=steps,
        learning_rate=config.lr,
        adam_beta1=config.betas[0],
        adam_beta2=config.betas[1],
        weight_decay=config.weight_decay,
        max_grad_norm=0.0,  # the released code does not clip
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": config.min_lr_share},
        warmup_steps=min(warmup, max(0, steps - 1)),
        bf16=config.precision == "bf16",
        tf32=gpu or None,
        use_cpu=not gpu,
        gradient_checkpointing=config.activation_checkpointing,
        train_sampling_strategy="sequential",  # the collator has decided the order
        remove_unused_columns=False,
        dataloader_num_workers=0,  # the collator's threads wait for decoders in processes of their own
        save_strategy="steps",
        save_steps=config.save_every_steps,
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=config.seed,
    )


def _write(
    model: VideoChatForConditionalGeneration,
    processor: Any,
    target: Path,
    stage: Stage,
    config: VideoChatAlignConfig,
    report: TrainReport,
) -> None:
    text: Any = model.config.text_config
    text.use_cache = True  # the Trainer turns it off for itself
    model.save_pretrained(target)
    processor.save(target)
    rejects = [json.dumps(asdict(sample), ensure_ascii=False) + "\n" for sample in report.rejected]
    (target / REJECTS_NAME).write_text("".join(rejects), encoding="utf-8")
    told = {
        "stage": stage,
        "trained": list(TRAINED),
        **{name: value for name, value in asdict(report).items() if name != "rejected"},
        "rejected_samples": len(report.rejected),
        "settings": config.model_dump(mode="json"),
    }
    (target / REPORT_NAME).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def _told(progress: Progress | None) -> Any:
    def report(step: int, steps: int, loss: float, rates: dict[str, float]) -> None:
        if progress is not None:
            progress(f"steps, loss {loss:.3f}", step, steps)

    return report
