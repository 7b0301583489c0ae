"""A whole curation: neither the order of the files nor the division among tasks changes what comes of it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from share4video.config import RunConfig
from share4video.dataset.manifest import Manifest, StageRef
from share4video.dataset.shards import read_table
from share4video.stages.chain import Chain, Curated
from share4video.store import LocalStore, Store
from share4video.synthetic.world import Body, Clip, Event, Motion
from tests.curation.films import FPS, brighter, rendered, write_film
from tests.engines import FakeEngine

STORY = Clip(
    1,
    8.0,
    "grey",
    (Body("square", "red", "small", 0.2, 0.5),),
    (Motion(0, "right", 0.1, 1.0, 4.0),),
    (Event("turns_colour", 6.0, 6.0, 0, "green"),),
)
OTHER = Clip(
    2, 7.0, "grey", (Body("circle", "blue", "large", 0.6, 0.4),), (Motion(0, "up", 0.1, 1.0, 3.0),), ()
)
SHARDS = {
    "probe": {"shards": 3},
    "brief": {"shards": 2},
    "dedup": {"shards": 3},
    "keyframes": {"shards": 3},
}


def write_source(folder: Path, names: list[str]) -> str:
    frames = rendered(STORY)
    films = {
        "story.mp4": frames,
        "darker.mp4": brighter(frames, 0.85),
        "reversed.mp4": frames[::-1],
        "other.mp4": rendered(OTHER),
        "short.mp4": frames[: 2 * FPS],
    }
    folder.mkdir()
    for name in names:
        if name in films:
            write_film(folder / name, films[name])
    if "again.mp4" in names:
        shutil.copy(folder / "story.mp4", folder / "again.mp4")
    if "words.mp4" in names:
        (folder / "words.mp4").write_text("no video")
    return str(folder)


def everything(store: Store, curated: Curated) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of every table of a curation, in an order of their own."""
    tables = {
        (ref.stage, name): read_table(store, ref, name).to_pylist()
        for ref, names in (
            (probed(store), ("clips", "rejects")),
            (curated.brief_captions, ("brief_captions", "rejects")),
            (curated.clips, ("clips", "dedup", "sweep", "rejects")),
            (curated.keyframes, ("keyframes", "rejects")),
        )
        for name in names
    }
    return {f"{stage} {name}": sorted(rows, key=repr) for (stage, name), rows in tables.items()}


def probed(store: Store) -> StageRef:
    (key,) = (key for key in store.list("probe") if key.endswith("/manifest.json"))
    return Manifest.model_validate_json(store.get(key)).ref


def test_order_and_division_change_nothing(tmp_path: Path, fake_engine: FakeEngine, work_root: Path) -> None:
    names = [
        "story.mp4",
        "darker.mp4",
        "reversed.mp4",
        "other.mp4",
        "short.mp4",
        "again.mp4",
        "words.mp4",
    ]
    engines = {"captioner": fake_engine.spec(max_in_flight=2).model_dump(), "summarizer": None}
    rules: dict[str, Any] = {
        "probe": {"min_duration_s": 3},
        "dedup": {"mode": "visual"},
    }
    found = []
    for number, (order, shards) in enumerate(((names, {}), (["story.mp4", *names[:0:-1]], SHARDS))):
        stages = {stage: {**rules.get(stage, {}), **shards.get(stage, {})} for stage in SHARDS}
        config = RunConfig.model_validate({"engines": engines, **stages})
        store = LocalStore(tmp_path / f"store-{number}")
        source = write_source(tmp_path / f"source-{number}", order)
        found.append(everything(store, Chain(config, store).curate(source)))
    assert found[0] == found[1]
    assert {row["reason"] for row in found[0]["probe rejects"]} == {
        "too_short",
        "exact_duplicate",
        "not_video",
    }
    assert [row["reason"] for row in found[0]["dedup rejects"]] == ["near_duplicate"]
    assert len(found[0]["dedup clips"]) == 3
