"""The HF Trainer with our three rates, our loss and our checkpoints; the loop itself is the library's."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional
from transformers import Trainer, TrainerCallback

from share4video.config import TrainConfig
from share4video.errors import UserError
from share4video.training.checkpoint import StopSignal, TrainingStates
from share4video.training.packing import IGNORED
from share4video.training.parameter_groups import parameter_groups

WEIGHTS_NAME = "trained.safetensors"
LOSSES_NAME = "losses.json"


class WeightedTrainer(Trainer):
    """Trains on batches with ``labels`` and ``weights``, both (B, S), as `packing.Collator` makes them.

    A checkpoint of the training holds the trained weights alone, as the frozen ones are those of the base.

    Attributes:
        step_losses: the loss of every optimizer step, kept over a resume.
        remedy: what to do about a loss that is not finite.
    """

    loss_is_scaled_for_ga = True  # compute_loss divides by the weights of the whole accumulated batch
    remedy = "lower the learning rate"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.step_losses: list[float] = []
        self._accumulated = 0.0
        super().__init__(*args, **kwargs)

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> torch.Tensor | None:
        """Return what the losses of the accumulated batch are divided by: its weights, over all devices."""
        if not batch_samples:
            return None
        total = torch.stack([batch["weights"].sum() for batch in batch_samples]).sum().to(device)
        if self.args.world_size > 1:
            total = self.accelerator.gather(total).sum()
        return total

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Return the weighted cross entropy of the supervised tokens.

        Logits are computed only where the next token is supervised in some sequence of the batch: most
        positions are image and prompt, and the vocabulary of the 8B has 128K entries.
        """
        assert num_items_in_batch is not None
        inputs = dict(inputs)
        labels_BS, weights_BS = inputs.pop("labels")[:, 1:], inputs.pop("weights")[:, 1:]
        kept = (labels_BS != IGNORED).any(dim=0).nonzero().squeeze(1)
        outputs = model(**inputs, logits_to_keep=kept, use_cache=False)
        losses = functional.cross_entropy(
            outputs.logits.float().flatten(0, 1),
            labels_BS[:, kept].flatten(),
            ignore_index=IGNORED,
            reduction="none",
        )
        loss = (losses * weights_BS[:, kept].flatten()).sum() / num_items_in_batch
        self._accumulated += loss.item()
        loss = loss * self.accelerator.num_processes  # gradients are averaged over devices
        return (loss, outputs) if return_outputs else loss

    def rates(self) -> dict[str, float]:
        """Return the rate of every part as it is now."""
        optimizer: Any = self.optimizer
        return {str(group["name"]): float(group["lr"]) for group in optimizer.param_groups}

    def finish_step(self) -> float:
        """Note the loss of the optimizer step that ended.

        Raises:
            UserError: it is not finite.
        """
        loss, self._accumulated = self._accumulated, 0.0
        if self.args.world_size > 1:
            parts = torch.tensor(loss, device=self.args.device)
            loss = float(self.accelerator.reduce(parts, reduction="sum").item())
        if not math.isfinite(loss):
            raise UserError(
                f"the loss is {loss} at step {self.state.global_step}",
                where="train",
                fix=self.remedy,
            )
        self.step_losses.append(loss)
        return loss

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        assert output_dir is not None
        folder = Path(output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: p.detach().cpu().contiguous() for name, p in self._trained()}, folder / WEIGHTS_NAME)
        (folder / LOSSES_NAME).write_text(json.dumps(self.step_losses), encoding="utf-8")

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        folder = Path(resume_from_checkpoint)
        saved = load_file(folder / WEIGHTS_NAME)
        trained = dict(self._trained())
        if saved.keys() != trained.keys():
            raise RuntimeError(
                f"{folder}: trained weights {sorted(saved.keys() ^ trained.keys())} do not match"
            )
        with torch.no_grad():
            for name, parameter in trained.items():
                parameter.copy_(saved[name])
        self.step_losses = json.loads((folder / LOSSES_NAME).read_text(encoding="utf-8"))

    def _trained(self) -> list[tuple[str, Any]]:
        model: Any = self.model
        return [(name, p) for name, p in model.named_parameters() if p.requires_grad]


class SftTrainer(WeightedTrainer):
    """The trainer of LLaVA-NeXT and Video-LLaVA: three parts, each at its own rate."""

    remedy = "lower the rates train.lr_language, train.lr_projector and train.lr_tower"

    def __init__(self, *args: Any, config: TrainConfig, **kwargs: Any) -> None:
        self._config = config
        super().__init__(*args, **kwargs)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Return AdamW over the three parts with their own rates."""
        if self.optimizer is None:
            groups = parameter_groups(self.model if model is None else model, self._config)
            kind, arguments = self.get_optimizer_cls_and_kwargs(self.args)
            self.optimizer = kind(groups, **arguments)
        optimizer: torch.optim.Optimizer = self.optimizer
        return optimizer


class StepReporter(TrainerCallback):
    """Notes every step's loss, and reports now and then.

    Args:
        report: called with the step, the steps in all, the mean loss since the last call and the rates.
    """

    def __init__(self, every_steps: int, report: Callable[[int, int, float, dict[str, float]], None]) -> None:
        self._every, self._report = every_steps, report
        self.trainer: WeightedTrainer | None = None
        self._rates: dict[str, float] = {}

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        assert self.trainer is not None
        self._rates = self.trainer.rates()  # before the scheduler moves them on

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        assert self.trainer is not None
        self.trainer.finish_step()
        step = state.global_step
        if state.is_world_process_zero and (step % self._every == 0 or step == state.max_steps):
            since = self.trainer.step_losses[-((step - 1) % self._every + 1) :]
            self._report(step, state.max_steps, sum(since) / len(since), self._rates)


class StateCallback(TrainerCallback):
    """Pushes every state the Trainer saves, and makes it save and stop when SIGTERM came."""

    def __init__(self, states: TrainingStates | None, folder: Path, stop: StopSignal) -> None:
        self._states, self._folder, self._stop = states, folder, stop

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._stop.agreed():
            control.should_save = control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._states is None or not state.is_world_process_zero:
            return
        folder = self._folder / f"checkpoint-{state.global_step}"
        self._states.push(folder, state.global_step)
        shutil.rmtree(folder)
