"""Sources split into scenes, through every stage up to the training mixture: none shows another's frames."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from share4video.config import EnginesConfig, MixtureConfig, ProbeConfig, RunConfig
from share4video.dataset.shards import StageRef, read_file, read_table
from share4video.errors import UserError
from share4video.media.decode import frames_at
from share4video.report.page import write_report
from share4video.stages import mixture, probe
from share4video.stages.chain import Chain
from share4video.stages.contract import StageResult
from share4video.stages.probe import ProbeInputs
from share4video.store import LocalStore, Store
from tests.engines import FakeEngine
from tests.media.test_scenes import COLOURS, colour_of, drifting

pytest.importorskip("scenedetect")

FPS = 10
# Seconds of each scene; the second is too short for a clip.
FILM_S, SHORT_FILM_S = (6.0, 1.5, 5.5, 7.1), (4.0,)
CONFIG = ProbeConfig(min_duration_s=3, max_duration_s=10, min_height=48, split_scenes=True)
SPANS = [(0.0, 6.0), (6.0, 7.5), (7.5, 13.0), (13.0, 20.1)]


def write_scenes(path: Path, lengths_s: tuple[float, ...]) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for scene, length_s in enumerate(lengths_s):
            for step in range(round(length_s * FPS)):
                rgb = drifting(COLOURS[scene % 3], step)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film of four scenes and its copy, a clip of one scene, and a file that is no video."""
    folder = tmp_path_factory.mktemp("films")
    film = write_scenes(folder / "film.mp4", FILM_S)
    (folder / "film-again.mp4").write_bytes(film.read_bytes())
    write_scenes(folder / "one.mp4", SHORT_FILM_S)
    (folder / "notes.mp4").write_text("not a video")
    return folder


def rows(store: Store, result: StageResult, table: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = read_table(store, result.ref, table).to_pylist()
    return found


def test_each_scene_is_a_clip_or_a_reject(source: Path, store: LocalStore) -> None:
    result = probe.run_stage(ProbeInputs(str(source)), CONFIG, store)
    clips, rejects = rows(store, result, "clips"), rows(store, result, "rejects")
    assert (result.rows_in, result.rows_out, result.metrics["files"]) == (10, 4, 4)
    assert result.rejects == {"exact_duplicate": 3, "not_video": 1, "too_short": 2}
    ours = [clip for clip in clips if clip["source_uri"] == "film-again.mp4"]
    assert [(clip["start_s"], clip["end_s"]) for clip in ours] == [SPANS[0], SPANS[2], SPANS[3]]
    assert [clip["duration_s"] for clip in ours] == pytest.approx([6.0, 5.5, 7.1])
    assert len({clip["clip_id"] for clip in clips}) == 4
    assert {row["row_id"] for row in (*clips, *rejects)} == {
        row["row_id"] for row in probe_whole(source, store)
    }
    answers = [(row["source_uri"], row["sentence"]) for row in rejects]
    assert len(set(answers)) == len(answers)
    short = next(row for row in rejects if row["reason"] == "too_short")
    assert short["sentence"] == "1.50 s is shorter than the 3 s required, in the scene from 6.00 to 7.50 s"
    assert (short["measured"], short["bound"]) == (1.5, 3)
    copy = next(row for row in rejects if row["reason"] == "exact_duplicate")
    assert copy["sentence"] == "the same content as film-again.mp4, in the scene from 0.00 to 6.00 s"


def probe_whole(source: Path, store: LocalStore) -> list[dict[str, Any]]:
    """The clips and rejects of the same files without splitting; a clip of one scene keeps its id."""
    whole = CONFIG.model_copy(update={"split_scenes": False})
    result = probe.run_stage(ProbeInputs(str(source)), whole, store)
    assert (result.rows_in, result.rejects["too_long"]) == (4, 2)
    return [*rows(store, result, "clips"), *rows(store, result, "rejects")]


def test_a_clip_of_one_scene_is_the_same_clip(source: Path, store: LocalStore) -> None:
    split = probe.run_stage(ProbeInputs(str(source)), CONFIG, store)
    (one,) = (row for row in rows(store, split, "clips") if row["source_uri"] == "one.mp4")
    assert one in probe_whole(source, store)


def test_nothing_kept_speaks_of_scenes(source: Path, store: LocalStore) -> None:
    strict = CONFIG.model_copy(update={"min_duration_s": 9.0})
    with pytest.raises(UserError, match="none of 10 scenes became a clip, 9 of them rejected as too_short"):
        probe.run_stage(ProbeInputs(str(source)), strict, store)


def test_no_stage_shows_another_scene(
    source: Path, store: LocalStore, fake_engine: FakeEngine, tmp_path: Path
) -> None:
    engines = EnginesConfig(captioner=fake_engine.spec(), summarizer=None)
    events: list[Any] = []
    chain = Chain(RunConfig(engines=engines, probe=CONFIG), store, events.append)
    curated = chain.curate(str(source))
    captioned = chain.caption(curated)
    clips = {row["clip_id"]: row for row in read_table(store, curated.clips, "clips").to_pylist()}
    assert len(clips) == 4
    scene_of = {
        clip_id: colour_of(frames_at(source / clip["source_uri"], [clip["start_s"] + 1])[0].rgb)
        for clip_id, clip in clips.items()
    }
    for row in read_table(store, curated.keyframes, "keyframes").to_pylist():
        clip = clips[row["clip_id"]]
        assert clip["start_s"] <= row["timestamp_s"] < clip["end_s"]
        assert colour_of(np.asarray(Image.open(io.BytesIO(row["jpeg"])))) == scene_of[row["clip_id"]]
    for row in read_table(store, captioned.captions, "differentials").to_pylist():
        clip = clips[row["clip_id"]]
        assert clip["start_s"] <= row["start_s"] <= row["end_s"] < clip["end_s"]
    whole = read_table(store, captioned.dataset, "captions").to_pylist()
    assert {row["clip_id"] for row in whole} == set(clips)

    inputs = mixture.MixtureInputs(dataset=captioned.dataset, source=str(source))
    mixed = mixture.run_stage(inputs, MixtureConfig(grid_frames=4), store)
    for row in rows(store, mixed, "sft"):
        grid = np.asarray(Image.open(io.BytesIO(read_file(store, mixed.ref, row["image"]))))
        corners = [grid[y, x] for y in (slice(64), slice(-64, None)) for x in (slice(96), slice(-96, None))]
        assert {colour_of(corner) for corner in corners} == {scene_of[row["clip_id"]]}

    refs = {event.stage: event.ref for event in events if event.kind == "finished" and event.ref}
    page = write_report(
        store, {stage: StageRef.parse(ref) for stage, ref in refs.items()}, tmp_path / "report.html"
    ).read_text()
    assert "scenes in" in page
    assert "film-again.mp4, from 7.50 s" in page
