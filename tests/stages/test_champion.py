"""Releases one after another: the champion is asked what it has not been asked, and no more."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from share4video.config import GateConfig, RunConfig, TrainConfig
from share4video.dataset.manifest import StageRef
from share4video.dataset.shards import ShardSet
from share4video.events import StageEvent
from share4video.model_registry import ModelRegistry
from share4video.stages.chain import RELEASE_STAGES, Chain
from share4video.stages.release import ReleaseResult
from share4video.store import LocalStore
from share4video.training import tracking
from tests.evaluation.engine_host import Body, EngineHost, engine_host
from tests.evaluation.material import record, write_clip, write_questions
from tests.registry_material import forget_mlflow, make_database, place_database

CLIPS = 12
CONFIG = RunConfig(gate=GateConfig(bootstrap_samples=300, min_questions=CLIPS))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_database(tmp_path_factory.mktemp("mlflow"))


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve clips, and two sets of questions about them."""
    folder = tmp_path_factory.mktemp("material")
    one = write_clip(folder / "clips" / "0.mp4", ["red"])
    for number in range(1, CLIPS):
        shutil.copyfile(one, folder / "clips" / f"{number}.mp4")
    for name in ("old", "new"):
        asked = [record(f"{i}.mp4", f"An {name} question?", ["yes", "no"], "yes") for i in range(CLIPS)]
        write_questions(folder / name, {"order": asked})
    return folder


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EngineHost]:
    """A server on which each model is right on as many clips as its configuration says."""
    with engine_host() as server:
        folder = server.share_as_model_server(tmp_path / "server")
        monkeypatch.setenv("SHARE4VIDEO_MODEL_SERVER", folder)
        monkeypatch.setenv("SHARE4VIDEO_WORK", str(tmp_path / "work"))
        answered: Counter[str] = Counter()

        def answer(body: Body) -> str:
            skill = json.loads((Path(folder) / "models" / body["model"] / "config.json").read_text())["skill"]
            with server.lock:
                answered[body["model"]] += 1
                return "A)" if (answered[body["model"]] - 1) % CLIPS < skill else "B)"

        server.answer = answer
        yield server


@pytest.fixture
def store(tmp_path: Path, template: Path, monkeypatch: pytest.MonkeyPatch) -> LocalStore:
    forget_mlflow(monkeypatch)
    made = LocalStore(tmp_path / "store")
    place_database(template, made.root)
    return made


def write_model(folder: Path, skill: int) -> Path:
    """Write a checkpoint without a single weight."""
    folder.mkdir(parents=True)
    header = b"{}"
    (folder / "config.json").write_text(json.dumps({"model_type": "tiny", "skill": skill}))
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    return folder


def publish_model(store: LocalStore, tmp_path: Path, skill: int) -> StageRef:
    """Publish what the train stage would."""
    output = ShardSet(store, "train", "1", inputs=[str(skill)], config=TrainConfig())
    for file in sorted(write_model(tmp_path / f"skill-{skill}", skill).iterdir()):
        output.attach(f"checkpoint/{file.name}", file)
    output.commit(0, {}, {"rows_in": 0, "rows_out": 0})
    return output.publish(1).ref


class Releases:
    """Releases models against one base, and keeps count of the questions asked."""

    def __init__(self, host: EngineHost, material: Path, folder: Path) -> None:
        self.host, self.material = host, material
        base = str(write_model(folder / "base", 0))
        self.config = CONFIG.model_copy(update={"train": TrainConfig(base_model=base)})
        self.events: list[StageEvent] = []
        self.asked = 0

    def release(self, store: LocalStore, model: StageRef, questions: str) -> ReleaseResult:
        before = len(self.host.seen)
        chain = Chain(self.config, store, self.events.append)
        result = chain.release(model, str(self.material / questions), str(self.material / "clips"))
        self.asked = len(self.host.seen) - before
        return result

    def last(self, stage: str) -> StageEvent:
        return next(e for e in reversed(self.events) if (e.stage, e.kind) == (stage, "finished"))


@pytest.fixture
def releases(host: EngineHost, material: Path, tmp_path: Path) -> Releases:
    return Releases(host, material, tmp_path)


def test_new_questions_are_put_to_the_champion(store: LocalStore, releases: Releases, tmp_path: Path) -> None:
    first, worse, better = (publish_model(store, tmp_path, skill) for skill in (6, 3, 12))
    assert releases.release(store, first, "old").outcome == "promoted"
    assert releases.asked == 2 * CLIPS  # base and candidate: there was no champion
    assert releases.last("evaluate-champion").ref == ""
    assert [e.stage for e in releases.events if e.kind == "finished"] == [*RELEASE_STAGES]

    assert releases.release(store, worse, "old").outcome == "refused"
    assert releases.asked == CLIPS  # the champion's answers are on record
    assert releases.last("evaluate-champion").reused

    refused = releases.release(store, worse, "new")
    assert refused.outcome == "refused"
    assert releases.asked == 3 * CLIPS
    assert not releases.last("evaluate-champion").reused
    assert refused.decision is not None
    assert refused.decision.reference == str(first)
    assert refused.decision.overall.reference == 0.5

    promoted = releases.release(store, better, "new")
    assert promoted.outcome == "promoted"
    assert releases.asked == CLIPS

    assert releases.release(store, better, "new").outcome == "unchanged"
    assert releases.asked == 0
    assert releases.last("evaluate-champion").ref == ""


def test_other_settings_are_put_to_the_champion(
    store: LocalStore, releases: Releases, tmp_path: Path
) -> None:
    assert releases.release(store, publish_model(store, tmp_path, 6), "old").outcome == "promoted"
    evaluate = releases.config.evaluate.model_copy(update={"frames": 4})
    releases.config = releases.config.model_copy(update={"evaluate": evaluate})
    assert releases.release(store, publish_model(store, tmp_path, 12), "old").outcome == "promoted"
    assert releases.asked == 3 * CLIPS


def test_a_champion_of_another_store_is_asked_where_it_lies(
    store: LocalStore, releases: Releases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two stores share one registry; neither checkpoint nor answers of the first are in the second."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking.configure(str(store.root)))
    assert releases.release(store, publish_model(store, tmp_path / "a", 6), "old").outcome == "promoted"
    other = LocalStore(tmp_path / "other")
    assert releases.release(other, publish_model(other, tmp_path / "b", 12), "old").outcome == "promoted"
    assert releases.asked == 3 * CLIPS
    champion = ModelRegistry("share4video-chat", tracking.configure(None)).champion()
    assert champion is not None
    assert (champion.version, champion.store) == (2, str(other.root))
