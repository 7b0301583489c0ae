"""The training stage: a mixture and a base model make a tuned checkpoint.

Torch and transformers are imported when training starts, not before: a run that finds its output published,
and everybody who only fetches a checkpoint, does without.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from share4video.captioning.checkpoints import checkpoint_folder, checkpoint_revision
from share4video.config import TrainConfig
from share4video.dataset.manifest import StageRef, load_manifest
from share4video.dataset.shards import ShardSet, table_from_rows
from share4video.model_registry import (
    CHECKPOINT_FOLDER,
    MODEL_SCHEME,
    fetch_checkpoint,
    resolve,
    store_root,
)
from share4video.stages.contract import Progress, StageResult
from share4video.store import Store
from share4video.training import tracking
from share4video.training.checkpoint import TrainingStates
from share4video.work import process_folder

if TYPE_CHECKING:
    from share4video.training.samples import RejectedSample
    from share4video.training.sft import TrainReport

STAGE = "train"
VERSION = "1"


@dataclass(frozen=True)
class TrainInputs:
    """What is trained on what.

    Attributes:
        base_model: a folder, ``builtin:<name>``, a tuned checkpoint as ``train/KEY@HASH`` or a registered one
            as ``models:/NAME@ALIAS``; empty takes the configuration's.
    """

    mixture: StageRef
    base_model: str = ""


def run_stage(
    inputs: TrainInputs, config: TrainConfig, store: Store, progress: Progress | None = None
) -> StageResult:
    """Publish the tuned model as attached files ``checkpoint/*``, and the samples that were left out.

    Rows are samples. The training is tracked in MLflow (see `tracking`); a training that was killed or asked
    to stop goes on from its newest state when the stage is run again.

    Raises:
        UserError: an input is missing or wrong, MLflow does not answer, or the loss diverged.
        Interrupted: SIGTERM came.
    """
    base, revision = _base_model(inputs.base_model or config.base_model, store)
    output = ShardSet(
        store,
        STAGE,
        VERSION,
        inputs=[inputs.mixture.content_hash, revision],
        config=config.model_copy(update={"base_model": ""}),  # its content counts, not where it lies
    )
    states = TrainingStates(store, output.key)
    earlier = output.published()
    if earlier is not None:
        states.clear()  # a run that was killed right after it published left them
        return StageResult.from_manifest(earlier, computed_shards=0, total_shards=1)
    with output.writing(0) as finished:
        if finished is None:
            _train(output, inputs.mixture, base, revision, config, states, progress)
    manifest = output.publish(1)
    states.clear()
    return StageResult.from_manifest(manifest, computed_shards=int(finished is None), total_shards=1)


def _base_model(name: str, store: Store) -> tuple[Path, str]:
    """Return the base's folder and revision."""
    if name.startswith(MODEL_SCHEME):
        folder = resolve(name, store).folder()
    elif name.startswith(f"{STAGE}/") and "@" in name:
        folder = fetch_checkpoint(store, StageRef.parse(name))
    else:
        folder = checkpoint_folder(name)
    return folder, checkpoint_revision(folder)


def _train(
    output: ShardSet,
    mixture: StageRef,
    base: Path,
    revision: str,
    config: TrainConfig,
    states: TrainingStates,
    progress: Progress | None,
) -> None:
    load_manifest(output.store, mixture)
    tags = {
        tracking.MIXTURE_TAG: str(mixture),
        tracking.DATASET_TAG: mixture.content_hash,
        tracking.BASE_TAG: f"{base.name}@{revision}",
        tracking.CHECKPOINT_TAG: output.store.url(f"{output.prefix}/{CHECKPOINT_FOLDER}"),
    }
    params = {"train": config.model_dump(mode="json", exclude={"base_model"})}
    with (
        process_folder(STAGE) as work,
        tracking.training_run(store_root(output.store), key=output.key, params=params, tags=tags) as run,
    ):
        from share4video.training import samples as loading
        from share4video.training import sft

        found = loading.load_samples(output.store, mixture, work / "mixture")
        bad = [sample for sample in found if isinstance(sample, loading.RejectedSample)]
        report = sft.train(
            [sample for sample in found if isinstance(sample, loading.Sample)],
            base,
            work / "checkpoint",
            config,
            work=work / "trainer",
            states=states,
            log=run.log_metrics,
            progress=progress,
        )
        rejected = [*bad, *report.rejected]
        metrics = _metrics(report)
        run.log_metrics(metrics, report.steps)
        for path in sorted((work / "checkpoint").iterdir()):
            output.attach(f"{CHECKPOINT_FOLDER}/{path.name}", path)
        counts = {
            "rows_in": len(found),
            "rows_out": report.trained_samples,
            **{f"metric:{name}": value for name, value in metrics.items()},
            **{f"reject:{reason}": n for reason, n in Counter(r.reason for r in rejected).items()},
        }
        tables = {"rejects": table_from_rows("rejects", [_reject(sample) for sample in rejected])}
        output.commit(0, tables, counts)


def _metrics(report: TrainReport) -> dict[str, float]:
    metrics = {
        "loss_first": report.loss_first,
        "loss_last": report.loss_last,
        "steps": float(report.steps),
        "sequences": float(report.sequences),
        "supervised_tokens": float(report.supervised_tokens),
    }
    assert all(math.isfinite(value) for value in metrics.values())
    return metrics


def _reject(sample: RejectedSample) -> dict[str, Any]:
    return {
        "row_id": sample.sample_id,
        "source_uri": "",
        "source_id": None,
        "clip_id": None,
        "stage": STAGE,
        "reason": sample.reason,
        "sentence": sample.sentence,
        "measured": sample.measured,
        "bound": sample.bound,
    }
