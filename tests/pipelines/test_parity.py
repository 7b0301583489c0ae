"""The command line and the local runner do the same: same keys, same bytes; each finds the other's work."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pipelines.catalogue import PIPELINES
from pipelines.local import LocalRun, run_local
from share4video.cli.options import read_settings
from share4video.events import StageEvent
from share4video.stages.chain import CAPTION_STAGES, CURATE_STAGES, Chain
from share4video.store import LocalStore
from tests.engines import FakeEngine
from tests.pipelines.material import start_share4video, until, write_config, write_source


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_source(tmp_path_factory.mktemp("videos") / "source")


def published(store: Path) -> dict[str, bytes]:
    """Every byte of every output, by its key in the store."""
    found = {path.relative_to(store).as_posix(): path for path in store.rglob("*") if path.is_file()}
    return {key: path.read_bytes() for key, path in found.items() if not key.startswith(("locks/", "usage/"))}


def test_pipelines_and_verbs_publish_the_same_bytes(
    source: Path, fake_engine: FakeEngine, tmp_path: Path
) -> None:
    config = read_settings(str(write_config(tmp_path / "config.yaml", fake_engine)))
    shelf = tmp_path / "pipeline"

    def run(name: str, **given: str) -> LocalRun:
        entry = PIPELINES[name]
        arguments = entry.arguments(config, {**given, "store": str(shelf)})
        return run_local(name, arguments, tmp_path / "runs" / name)

    curated = run("curate", source=str(source))
    inputs = {"clips": curated.refs["dedup"], "brief_captions": curated.refs["brief"]}
    captioned = run("caption", keyframes=curated.refs["keyframes"], **inputs)
    assert not curated.unchanged
    assert not captioned.unchanged

    chain = Chain(config, LocalStore(tmp_path / "verbs"))
    direct = chain.curate(str(source))
    ours = chain.caption(direct)
    assert {str(direct.clips), str(direct.brief_captions), str(direct.keyframes)} <= {*curated.refs.values()}
    assert {str(ours.captions), str(ours.dataset)} == {*captioned.refs.values()}
    assert published(shelf) == published(tmp_path / "verbs")

    events: list[StageEvent] = []
    again = Chain(config, LocalStore(shelf), events.append)
    assert again.caption(again.curate(str(source))) == ours
    finished = [event for event in events if event.kind == "finished"]
    assert [event.stage for event in finished] == [*PIPELINES["curate"].stages, *PIPELINES["caption"].stages]
    assert all(event.reused for event in finished)
    assert finished[0].rejects == {"exact_duplicate": 1, "not_video": 1}


@pytest.fixture(scope="module")
def undisturbed(
    source: Path, fake_engine_process: FakeEngine, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, bytes], int]:
    """What a run that nobody disturbs publishes, and how many calls of the engine it takes."""
    folder = tmp_path_factory.mktemp("undisturbed")
    fake_engine_process.settings()
    config = write_config(folder / "config.yaml", fake_engine_process)
    chain = Chain(read_settings(str(config)), LocalStore(folder / "store"))
    chain.caption(chain.curate(str(source)))
    return published(folder / "store"), len(fake_engine_process.calls())


@pytest.mark.parametrize("stage", [*CURATE_STAGES, *CAPTION_STAGES])
def test_a_run_killed_when_a_stage_starts_publishes_the_same(
    stage: str,
    undisturbed: tuple[dict[str, bytes], int],
    source: Path,
    fake_engine: FakeEngine,
    tmp_path: Path,
) -> None:
    config = write_config(tmp_path / "config.yaml", fake_engine)
    shelf = tmp_path / "store"
    command = ["caption", str(source), "--store", str(shelf), "--config", str(config)]
    victim = start_share4video(*command, cwd=tmp_path, stderr=subprocess.PIPE)
    assert victim.stderr is not None
    lines = iter(victim.stderr.readline, b"")
    assert any(line.startswith(f"{stage} ...".encode()) for line in lines), "it ended before the stage"
    victim.kill()
    victim.wait()
    victim.stderr.close()
    assert published(shelf).keys() != undisturbed[0].keys()

    rest = Chain(read_settings(str(config)), LocalStore(shelf))
    rest.caption(rest.curate(str(source)))
    assert published(shelf) == undisturbed[0]
    in_flight = read_settings(str(config)).engines.captioner.max_in_flight
    assert len(fake_engine.calls()) <= undisturbed[1] + in_flight


def test_a_run_killed_amid_captions_goes_on_where_it_was(
    undisturbed: tuple[dict[str, bytes], int], source: Path, fake_engine: FakeEngine, tmp_path: Path
) -> None:
    config = write_config(tmp_path / "config.yaml", fake_engine)
    whole, calls = undisturbed
    fake_engine.settings(latency_s=0.3)
    shelf = tmp_path / "killed"
    command = ["caption", str(source), "--store", str(shelf), "--config", str(config)]
    victim = start_share4video(*command, cwd=tmp_path)
    until(lambda: len(fake_engine.calls()) >= calls // 2, 120)
    victim.kill()
    victim.wait()
    made_before = len(fake_engine.calls())

    fake_engine.settings()
    rest = Chain(read_settings(str(config)), LocalStore(shelf))
    rest.caption(rest.curate(str(source)))
    assert published(shelf) == whole
    in_flight = read_settings(str(config)).engines.captioner.max_in_flight
    assert len(fake_engine.calls()) <= calls - made_before + in_flight
