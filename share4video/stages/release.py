"""Register a trained model, decide whether it may replace the one in service, and promote it if it may.

The order makes a kill at any point harmless: the version is registered (found again by content), the decision
is published, written on the version, and only then does the alias move. Releases of one model take turns: a
candidate replaces no champion but the one it was compared with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from share4video.config import GateConfig
from share4video.dataset.manifest import StageRef, load_manifest
from share4video.dataset.shards import ShardSet
from share4video.errors import UserError
from share4video.evaluation.gate import GateDecision, decide
from share4video.evaluation.results import Results, read_results
from share4video.model_registry import (
    CHAMPION,
    MODEL_SCHEME,
    ModelRegistry,
    RegisteredModel,
    store_root,
)
from share4video.stages.contract import StageResult
from share4video.store import Store
from share4video.training import tracking

STAGE, VERSION = "release", "2"
DECISION = "decision.json"
_AGAIN = "run the release again, which evaluates the champion first"

Outcome = Literal["promoted", "refused", "unchanged"]


@dataclass(frozen=True)
class ReleaseInputs:
    """What is released, and on what evidence.

    Attributes:
        model: output of the train stage.
        candidate: its evaluation.
        base: evaluation of the model it was tuned from, which a first candidate must beat.
        champion: evaluation of the current champion on the same questions, as `share4video.stages.champion`
            returns it; None takes the one on record.
        name: of the registered model.
    """

    model: StageRef
    candidate: StageRef
    base: StageRef
    champion: StageRef | None = None
    name: str = "share4video-chat"


@dataclass(frozen=True)
class ReleaseResult(StageResult):
    """The stage result, and what became of the model.

    Attributes:
        outcome: ``unchanged`` where the model is the champion already.
        model_uri: the version, as ``models:/NAME/NUMBER``.
        decision: the gate's decision, as it is published in ``decision.json``.
    """

    outcome: Outcome = "refused"
    model_uri: str = ""
    decision: GateDecision | None = None

    def sentence(self) -> str:
        """Return what happened as a paragraph for people."""
        reasons = " ".join(self.decision.reasons) if self.decision is not None else ""
        if self.outcome == "unchanged":
            return f"{self.model_uri} is this model already and stays champion."
        if self.outcome == "promoted":
            return f"{self.model_uri} is champion now. {reasons}"
        return f"{self.model_uri} is registered and not promoted. {reasons}"


def run_stage(inputs: ReleaseInputs, config: GateConfig, store: Store) -> ReleaseResult:
    """Register, decide, publish the decision, promote.

    Raises:
        UserError: an input is missing or about another model, the champion has no evaluation on these
            questions, another model became champion meanwhile, or the registry does not answer.
    """
    candidate = read_results(store, inputs.candidate)
    _check_about(candidate, inputs.model, "the candidate's evaluation", fix="evaluate the model itself")
    registry = ModelRegistry(inputs.name, tracking.configure(store_root(store)))
    with store.lock(lock_key(inputs.name)):
        return _settle(inputs, config, store, registry, candidate)


def lock_key(name: str) -> str:
    """Return the lock of a registered model: who holds it may move the alias."""
    return f"locks/champion-{name}"


def _settle(
    inputs: ReleaseInputs, config: GateConfig, store: Store, registry: ModelRegistry, candidate: Results
) -> ReleaseResult:
    champion = registry.champion()
    same = champion is not None and champion.checkpoint.content_hash == inputs.model.content_hash
    if champion is not None and same and champion.release is not None:
        model = registry.register(store, inputs.model)
        return _result(model, champion.release, champion.decision, "unchanged", computed=0)

    reference_ref = (
        inputs.base if champion is None or same else _champion_evaluation(inputs, champion, candidate)
    )
    reference = read_results(store, reference_ref)
    if champion is not None and not same:
        _check_about(reference, champion.checkpoint, "the champion's evaluation", fix=_AGAIN)
    model = registry.register(store, inputs.model)
    decision = decide(candidate, reference, config)
    output, computed = _publish(inputs, config, store, reference_ref, decision)
    evidence = _evidence(inputs, store, candidate, reference_ref, decision, output)
    model = registry.record(model, evidence, decision.sentence())
    if same:
        return _result(model, output, decision, "unchanged", computed=computed)
    if decision.passed:
        _check_unmoved(registry, champion)
        registry.promote(model)
    return _result(model, output, decision, "promoted" if decision.passed else "refused", computed=computed)


def _check_about(results: Results, model: StageRef, what: str, *, fix: str) -> None:
    """Compare contents: one checkpoint may be published under several keys."""
    if results.model.rpartition("@")[2] != model.content_hash:
        raise UserError(f"{what} is of another model", where=f"{results.model} instead of {model}", fix=fix)


def _check_unmoved(registry: ModelRegistry, champion: RegisteredModel | None) -> None:
    """Look once more: people, and releases from other stores, move the alias without our lock."""
    now = registry.champion()
    if (now and now.version) != (champion and champion.version):
        raise UserError(
            "the champion changed while the candidate was compared with the one before",
            where=f"{MODEL_SCHEME}{registry.name}@{CHAMPION}",
            fix=_AGAIN,
        )


def _champion_evaluation(inputs: ReleaseInputs, champion: RegisteredModel, candidate: Results) -> StageRef:
    ref = inputs.champion or champion.evaluation(candidate.benchmark)
    if ref is None:
        raise UserError("the champion was not evaluated on these questions", where=champion.uri, fix=_AGAIN)
    return ref


def _publish(
    inputs: ReleaseInputs, config: GateConfig, store: Store, reference: StageRef, decision: GateDecision
) -> tuple[StageRef, int]:
    """Publish the decision, and return where it is and whether this run wrote it."""
    output = ShardSet(
        store,
        STAGE,
        VERSION,
        inputs=[inputs.model.content_hash, inputs.candidate.content_hash, reference.content_hash],
        config=config,
        identity={"name": inputs.name},
    )
    if (manifest := output.published()) is not None:
        return manifest.ref, 0
    with output.writing(0) as finished:
        if finished is None:
            output.attach(DECISION, decision.model_dump_json(indent=1).encode())
            output.commit(0, {}, {"rows_in": 1, "rows_out": 1})
    return output.publish(1).ref, 1


def _evidence(
    inputs: ReleaseInputs,
    store: Store,
    candidate: Results,
    reference: StageRef,
    decision: GateDecision,
    release: StageRef,
) -> dict[str, str]:
    """Return all that the decision rests on, as tags of the version."""
    return {
        "trained_on": " ".join(load_manifest(store, inputs.model).inputs),
        f"evaluation.{candidate.benchmark}": str(inputs.candidate),
        "questions": candidate.questions,
        "compared_with": str(reference),
        **{f"metric.{name}": f"{value:.6g}" for name, value in candidate.metrics().items()},
        "gate": decision.model_dump_json(),
        "gate_passed": str(decision.passed).lower(),
        "release": str(release),
    }


def _result(
    model: RegisteredModel, ref: StageRef, decision: GateDecision | None, outcome: Outcome, *, computed: int
) -> ReleaseResult:
    metrics = {"promoted": float(outcome == "promoted")}
    if decision is not None:
        overall = decision.overall
        metrics |= {
            "gate_passed": float(decision.passed),
            "accuracy_candidate": overall.candidate,
            "accuracy_reference": overall.reference,
            "difference": overall.difference.estimate,
            "difference_low": overall.difference.low,
            "difference_high": overall.difference.high,
        }
    return ReleaseResult(
        ref=ref,
        rows_in=1,
        rows_out=1,
        computed_shards=computed,
        metrics=metrics,
        outcome=outcome,
        model_uri=model.uri,
        decision=decision,
    )
