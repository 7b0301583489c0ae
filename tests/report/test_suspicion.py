from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from share4video.config import CaptionConfig
from share4video.dataset.shards import ShardSet, read_table, table_from_rows
from share4video.report import write_suspicious
from share4video.report.suspicion import suspicions
from share4video.store import LocalStore
from tests.report.material import publish_run


def frame(clip: str, end_s: float = 2.0, *, checks: tuple[str, ...] = (), **given: Any) -> dict[str, Any]:
    row = {
        "clip_id": clip,
        "end_s": end_s,
        "checks": list(checks),
        "fallback": False,
        "frame_text_score": None,
    }
    return {**row, **given}


def whole(clip: str, *checks: str, role: str = "summary") -> dict[str, Any]:
    return {"clip_id": clip, "role": role, "checks": list(checks)}


def test_reasons_add_up() -> None:
    found = suspicions(
        [frame("a"), frame("b", checks=("refusal",), fallback=True), frame("b", 4.0, checks=("frame_text",))],
        [whole("a"), whole("b", "truncated", "time_out_of_range"), whole("b", "refusal", role="sliding")],
        [
            {
                "clip_id": "b",
                "role": "summary",
                "omissions_fabrications": 1,
                "distortion": 0,
                "temporal_mismatch": 0,
            },
            {
                "clip_id": "c",
                "role": "summary",
                **dict.fromkeys(("omissions_fabrications", "distortion", "temporal_mismatch")),
            },
        ],
    )
    assert "a" not in found
    assert "c" not in found
    assert found["b"].score == 1 + 1 + 2 * 2 + 2
    assert found["b"].reasons == [
        "no sound difference at 2.00 s (refusal)",
        "frame text at 4.00 s",
        "summary: truncated",
        "summary: time out of range",
        "judge, summary: distortion, temporal mismatch",
    ]


def test_only_captions_far_below_the_others_are_misfits() -> None:
    scores = {"a": 0.30, "b": 0.29, "c": 0.31, "d": 0.28, "e": 0.10}
    rows = [frame(clip, frame_text_score=score) for clip, score in scores.items()]
    rows.append(frame("a", 4.0, frame_text_score=0.5))
    found = suspicions(rows, [])
    assert list(found) == ["e"]
    assert found["e"].score == pytest.approx(1.0)
    assert found["e"].reasons == ["a frame-text score of 0.10"]
    assert not suspicions([frame("a", frame_text_score=0.3)], [])


def test_the_page_shows_ten_clips_with_their_reasons(store: LocalStore, tmp_path: Path) -> None:
    refs = publish_run(store, tmp_path / "run", clips=12, duration_s=(4.0, 6.0), side=48).refs
    tables = {
        name: read_table(store, refs["dataset"], name).to_pylist() for name in ("differentials", "captions")
    }
    worst = sorted({row["clip_id"] for row in tables["differentials"]})[7]
    for row in tables["differentials"]:
        failed = row["clip_id"] == worst and row["index"] == 1
        row.update(checks=["contradiction"] if failed else [], fallback=failed)
    for row in tables["captions"]:
        row["checks"] = []
    output = ShardSet(store, "caption", "9", inputs=["suspicious"], config=CaptionConfig())
    output.commit(0, {name: table_from_rows(name, rows) for name, rows in tables.items()})
    given = {"dedup": refs["dedup"], "keyframes": refs["keyframes"], "caption": output.publish(1).ref}
    page = write_suspicious(store, given, tmp_path / "new" / "page.html").read_text()
    assert page.count("<article") == 10
    assert "10 of 12 clips" in page
    assert re.findall(r'title="(clip-[^"]+|[0-9a-f-]+)"', page)[0] == worst
    assert re.search(r"no sound difference at \d\.\d\d s \(contradiction\)", page)
    assert page.count("data:image/jpeg") >= 10
    assert "http" not in page.replace("http-equiv", "")
    assert page == write_suspicious(store, given, tmp_path / "again.html").read_text()
