"""Evaluate the champion on a candidate's questions, so that the gate can compare the two.

Once a model is champion, its evaluation is on record and nothing is asked. Other questions, clips or settings
ask it again: without that, no candidate could ever be compared with it.
"""

from __future__ import annotations

from dataclasses import dataclass

from share4video.config import EvaluateConfig
from share4video.dataset.manifest import StageRef, load_manifest
from share4video.errors import UserError
from share4video.evaluation.results import Results, read_results
from share4video.model_registry import ModelRegistry, RegisteredModel, store_root
from share4video.stages import evaluate
from share4video.stages.contract import Progress, StageResult
from share4video.store import Store
from share4video.training import tracking

NONE = "no other model is champion"  # said where there is nothing to evaluate


@dataclass(frozen=True)
class ChampionInputs:
    """Whose champion is asked what.

    Attributes:
        name: of the registered model.
        model: output of the train stage that is to be released.
        candidate: its evaluation; an evaluation of the champion must compare with it.
        questions: as `evaluate.EvaluateInputs` has them.
        clips: likewise.
    """

    name: str
    model: StageRef
    candidate: StageRef
    questions: str
    clips: str


def run_stage(
    inputs: ChampionInputs, config: EvaluateConfig, store: Store, progress: Progress | None = None
) -> StageResult | None:
    """Return the champion's evaluation, on record or new; None where the candidate has no other to beat.

    Raises:
        UserError: as the evaluate stage does, or the registry does not answer.
    """
    champion = ModelRegistry(inputs.name, tracking.configure(store_root(store))).champion()
    if champion is None or champion.checkpoint.content_hash == inputs.model.content_hash:
        return None
    ref = _on_record(champion, read_results(store, inputs.candidate), store)
    if ref is not None:
        return StageResult.from_manifest(load_manifest(store, ref), computed_shards=0, total_shards=1)
    here = store.exists(f"{champion.checkpoint.prefix}/manifest.json")
    asked = evaluate.EvaluateInputs(
        champion.checkpoint,
        inputs.questions,
        inputs.clips,
        shelf=store if here else Store.open(champion.store),
    )
    return evaluate.run_stage(asked, config, store, progress)


def _on_record(champion: RegisteredModel, candidate: Results, store: Store) -> StageRef | None:
    """Return the evaluation that the registry names, if this store can show it."""
    ref = champion.evaluation(candidate.benchmark)
    if ref is None:
        return None
    try:
        read_results(store, ref)
    except UserError:  # published to another store, or gone
        return None
    return ref
