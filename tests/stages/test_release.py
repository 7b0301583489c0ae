"""The release stage on real MLflow: who becomes champion, who does not, and what is said about it."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from share4video.config import GateConfig, TrainConfig
from share4video.dataset.manifest import StageRef
from share4video.dataset.shards import read_file
from share4video.errors import UserError
from share4video.evaluation.gate import GateDecision
from share4video.evaluation.results import read_results
from share4video.model_registry import ModelRegistry, resolve
from share4video.stages import release
from share4video.stages.release import DECISION, ReleaseInputs, ReleaseResult, run_stage
from share4video.store import LocalStore, Store
from share4video.training import tracking
from tests.pipelines.material import until
from tests.registry_material import (
    forget_mlflow,
    make_database,
    place_database,
    publish_checkpoint,
    publish_evaluation,
)

CONFIG = GateConfig(bootstrap_samples=300)
Scores = dict[str, tuple[int, int]]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_database(tmp_path_factory.mktemp("mlflow"))


@pytest.fixture
def store(tmp_path: Path, template: Path, monkeypatch: pytest.MonkeyPatch) -> LocalStore:
    """A store with its own registry."""
    forget_mlflow(monkeypatch)
    made = LocalStore(tmp_path / "store")
    place_database(template, made.root)
    return made


def inputs_of(store: Store, weights: str, scores: Scores, **more: object) -> ReleaseInputs:
    """A candidate with these scores, against a base that is right on half of the questions."""
    model = publish_checkpoint(store, weights)
    asked = {task: of for task, (_, of) in scores.items()}
    questions = str(more.pop("questions", "q"))
    base = publish_evaluation(store, "base@1", {task: (of // 2, of) for task, of in asked.items()}, questions)
    candidate = publish_evaluation(store, model, scores, questions)
    return ReleaseInputs(model=model, candidate=candidate, base=base, **more)  # type: ignore[arg-type]


def champion(store: LocalStore) -> int | None:
    found = ModelRegistry("share4video-chat", tracking.configure(str(store.root))).champion()
    return found.version if found else None


def release_it(store: LocalStore, weights: str, scores: Scores, **more: object) -> ReleaseResult:
    return run_stage(inputs_of(store, weights, scores, **more), CONFIG, store)


def test_a_first_candidate_that_beats_the_base_is_promoted(store: LocalStore) -> None:
    inputs = inputs_of(store, "one", {"order": (80, 100)})
    result = run_stage(inputs, CONFIG, store)
    assert (result.outcome, result.model_uri) == ("promoted", "models:/share4video-chat/1")
    assert "is champion now" in result.sentence()
    assert result.metrics["gate_passed"] == result.metrics["promoted"] == 1.0
    assert result.metrics["difference"] == pytest.approx(0.3)
    published = GateDecision.model_validate_json(read_file(store, result.ref, DECISION))
    assert published == result.decision
    model = resolve("models:/share4video-chat@champion", store)
    assert model.checkpoint == inputs.model
    assert model.release == result.ref
    assert model.decision == result.decision
    assert model.tags["metric.accuracy"] == "0.8"
    assert model.tags["trained_on"] == "mixture of one"
    assert model.tags["compared_with"] == str(inputs.base)


def test_a_first_candidate_that_does_not_is_registered_and_refused(store: LocalStore) -> None:
    result = release_it(store, "one", {"order": (50, 100)})
    assert (result.outcome, champion(store)) == ("refused", None)
    assert "not surely above zero" in result.sentence()
    assert result.metrics["promoted"] == 0.0
    assert resolve("models:/share4video-chat/1", store).tags["gate_passed"] == "false"


def test_the_same_model_again_is_unchanged(store: LocalStore) -> None:
    first = release_it(store, "one", {"order": (80, 100)})
    before = sorted(store.list("release"))
    second = release_it(store, "one", {"order": (80, 100)})
    assert (second.outcome, second.unchanged, second.ref) == ("unchanged", True, first.ref)
    assert second.decision == first.decision
    assert "stays champion" in second.sentence()
    assert sorted(store.list("release")) == before
    assert champion(store) == 1


def test_a_refused_model_again_is_refused_again_without_a_new_version(store: LocalStore) -> None:
    first = release_it(store, "one", {"order": (50, 100)})
    second = release_it(store, "one", {"order": (50, 100)})
    assert (second.outcome, second.unchanged, second.model_uri) == ("refused", True, first.model_uri)


def test_a_second_candidate_must_beat_the_champion_not_the_base(store: LocalStore) -> None:
    release_it(store, "one", {"order": (80, 100)})
    refused = release_it(store, "two", {"order": (80, 100)})
    assert (refused.outcome, refused.model_uri) == ("refused", "models:/share4video-chat/2")
    assert champion(store) == 1
    promoted = release_it(store, "three", {"order": (95, 100)})
    assert (promoted.outcome, champion(store)) == ("promoted", 3)
    assert promoted.decision is not None
    assert promoted.decision.overall.reference == pytest.approx(0.8)


def test_a_task_that_got_worse_keeps_the_champion(store: LocalStore) -> None:
    release_it(store, "one", {"colour": (95, 100), "order": (120, 200)})
    result = release_it(store, "two", {"colour": (60, 100), "order": (200, 200)})
    assert result.outcome == "refused"
    assert "task colour" in result.sentence()
    assert champion(store) == 1


def test_a_champion_without_answers_to_these_questions_must_be_evaluated(store: LocalStore) -> None:
    release_it(store, "one", {"order": (80, 100)})
    with pytest.raises(UserError, match="champion was not evaluated on these questions"):
        release_it(store, "two", {"order": (95, 100)}, questions="new")
    assert champion(store) == 1
    on_record = resolve("models:/share4video-chat@champion", store).checkpoint
    evaluation = publish_evaluation(store, on_record, {"order": (60, 100)}, "new")
    result = release_it(store, "two", {"order": (95, 100)}, questions="new", champion=evaluation)
    assert (result.outcome, champion(store)) == ("promoted", 2)


def test_evaluations_must_be_of_the_models_they_are_given_for(store: LocalStore) -> None:
    good = inputs_of(store, "one", {"order": (80, 100)})
    other = publish_checkpoint(store, "other")
    with pytest.raises(UserError, match="the candidate's evaluation is of another model"):
        run_stage(ReleaseInputs(other, good.candidate, good.base), CONFIG, store)
    run_stage(good, CONFIG, store)
    with pytest.raises(UserError, match="the champion's evaluation is of another model"):
        release_it(store, "two", {"order": (95, 100)}, champion=good.base)
    with pytest.raises(UserError, match=r"holds no results\.json"):
        run_stage(ReleaseInputs(good.model, good.model, good.base), CONFIG, store)


def put_in_service(store: LocalStore, inputs: ReleaseInputs) -> int:
    """Move the alias by hand, as nobody's release: to a version with its evaluation on record."""
    registry = ModelRegistry(inputs.name, tracking.configure(str(store.root)))
    model = registry.register(store, inputs.model)
    benchmark = read_results(store, inputs.candidate).benchmark
    registry.promote(registry.record(model, {f"evaluation.{benchmark}": str(inputs.candidate)}))
    return model.version


def test_releases_of_one_model_take_turns(store: LocalStore, caplog: pytest.LogCaptureFixture) -> None:
    """A candidate that comes while another release is under way is compared with what that one leaves."""
    release_it(store, "one", {"order": (120, 200)})
    middling = inputs_of(store, "middling", {"order": (150, 200)})
    good = inputs_of(store, "good", {"order": (195, 200)})
    with ThreadPoolExecutor(1) as pool:
        with store.lock(release.lock_key(middling.name)):
            running = pool.submit(run_stage, middling, CONFIG, store)
            until(lambda: running.done() or "waiting for process" in caplog.text, 120)
            assert put_in_service(store, good) == 2
        result = running.result(120)
    assert (result.outcome, champion(store)) == ("refused", 2)
    assert result.decision is not None
    assert result.decision.reference == str(good.model)


class Disturbed(LocalStore):
    """A store in which something happens once, when a decision is published."""

    meanwhile: Callable[[], object] | None = None

    def put(self, key: str, data: bytes) -> None:
        super().put(key, data)
        if key.startswith("release/") and key.endswith("/manifest.json") and self.meanwhile is not None:
            happens, self.meanwhile = self.meanwhile, None
            happens()


@pytest.mark.parametrize("first", [True, False])
def test_a_champion_that_appears_meanwhile_is_not_replaced(store: LocalStore, first: bool) -> None:
    if not first:
        release_it(store, "one", {"order": (120, 200)})
    good = inputs_of(store, "good", {"order": (195, 200)})
    middling = inputs_of(store, "middling", {"order": (150, 200)})
    disturbed = Disturbed(store.root)
    disturbed.meanwhile = lambda: put_in_service(store, good)
    with pytest.raises(UserError, match="the champion changed") as caught:
        run_stage(middling, CONFIG, disturbed)
    now = ModelRegistry(good.name, tracking.configure(str(store.root))).champion()
    assert now is not None
    assert now.checkpoint == good.model
    assert caught.value.where == "models:/share4video-chat@champion"
    assert run_stage(middling, CONFIG, disturbed).outcome == "refused"


def test_the_same_weights_under_another_key_keep_their_evidence(store: LocalStore) -> None:
    first = inputs_of(store, "one", {"order": (120, 200)})
    run_stage(first, CONFIG, store)
    again = publish_checkpoint(store, "one", TrainConfig(log_every_steps=7))
    assert again != first.model
    rekeyed = ReleaseInputs(again, publish_evaluation(store, again, {"order": (120, 200)}), first.base)
    assert run_stage(rekeyed, CONFIG, store).outcome == "unchanged"
    better = release_it(store, "better", {"order": (190, 200)})
    assert (better.outcome, champion(store)) == ("promoted", 2)
    assert better.decision is not None
    assert better.decision.overall.reference == pytest.approx(0.6)


def test_an_evaluation_counts_for_all_keys_of_the_same_weights(store: LocalStore) -> None:
    first = inputs_of(store, "one", {"order": (80, 100)})
    again = publish_checkpoint(store, "one", TrainConfig(log_every_steps=7))
    result = run_stage(ReleaseInputs(again, first.candidate, first.base), CONFIG, store)
    assert (result.outcome, champion(store)) == ("promoted", 1)


def test_a_task_may_have_any_file_name(store: LocalStore) -> None:
    result = release_it(store, "one", {"order (1)": (80, 100), "größe [a:b]": (80, 100)})
    assert (result.outcome, champion(store)) == ("promoted", 1)
    tags = resolve("models:/share4video-chat@champion", store).tags
    assert tags["metric.accuracy_task_order _1_"] == "0.8"


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("at", ["register", "record", "promote"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_release_killed_anywhere_ends_as_if_it_had_not_been(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, at: str, when: str
) -> None:
    inputs = inputs_of(store, "one", {"order": (80, 100)})
    step = getattr(ModelRegistry, at)

    def killed(self: ModelRegistry, *arguments: object) -> object:
        if when == "after":
            step(self, *arguments)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(ModelRegistry, at, killed)
        with pytest.raises(Killed):
            run_stage(inputs, CONFIG, store)
    assert champion(store) == (1 if (at, when) == ("promote", "after") else None)

    result = run_stage(inputs, CONFIG, store)
    assert result.model_uri == "models:/share4video-chat/1"
    assert result.outcome == ("unchanged" if (at, when) == ("promote", "after") else "promoted")
    assert champion(store) == 1
    model = resolve("models:/share4video-chat@champion", store)
    assert (model.release, model.decision) == (result.ref, result.decision)
    assert len(list(store.list("release"))) == 3  # decision, shard, manifest


def test_a_champion_set_by_hand_gets_its_evidence_and_stays(store: LocalStore) -> None:
    inputs = inputs_of(store, "one", {"order": (50, 100)})
    registry = ModelRegistry(inputs.name, tracking.configure(str(store.root)))
    registry.promote(registry.register(store, inputs.model))
    result = run_stage(inputs, CONFIG, store)
    assert (result.outcome, champion(store)) == ("unchanged", 1)
    assert resolve("models:/share4video-chat@champion", store).release == result.ref


def test_what_is_published_is_the_same_wherever_it_ran(
    store: LocalStore, template: Path, tmp_path: Path
) -> None:
    first = release_it(store, "one", {"order": (80, 100)})
    elsewhere = LocalStore(tmp_path / "elsewhere")
    place_database(template, elsewhere.root)
    release_it(elsewhere, "zero", {"order": (50, 100)})  # takes version 1 there
    second = release_it(elsewhere, "one", {"order": (80, 100)})
    assert first.model_uri != second.model_uri
    assert first.ref == second.ref
    for key in store.list(first.ref.prefix):
        assert store.get(key) == elsewhere.get(key)


def test_the_decision_is_json_people_can_read(store: LocalStore) -> None:
    result = release_it(store, "one", {"order": (80, 100)})
    decision = json.loads(read_file(store, result.ref, DECISION))
    assert decision["passed"] is True
    assert decision["reasons"]
    assert StageRef.parse(decision["candidate"]).stage == "train"
    assert result.ref.stage == release.STAGE
