"""The page as a whole: whole HTML, nothing fetched, nothing executed, bounded, and the same every time."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from share4video.dataset.manifest import StageRef
from share4video.dataset.shards import read_table
from share4video.errors import UserError
from share4video.report import write_report
from share4video.report.clip_cards import MAX_CLIPS, MAX_FRAMES
from share4video.report.page import render_report
from share4video.report.pictures import MAX_SIDE, thumbnail
from share4video.report.stage_rows import MAX_ROWS_PER_REASON
from share4video.store import LocalStore
from tests.report.material import Run, publish_run
from tests.report.pages import Page

HOSTILE = """ <script>alert(1)</script><img src=x onerror=alert(2)> "' </style>{{ 7 * 7 }}"""
SECTIONS = {"stages", "funnel", "captions", "tuning", "duplicates", "clips", "rejects"}


def page_of(store: LocalStore, run: Run) -> Page:
    return Page(render_report(store, run.refs, truth=run.truth))


def test_a_whole_run_has_every_section(kept_store: LocalStore, run: Run) -> None:
    page = page_of(kept_store, run)
    assert page.ids() == SECTIONS
    linked = {link.attributes["href"] for link in page.all("a")}
    assert linked == {f"#{section}" for section in SECTIONS}
    for words in (
        "20 files",
        "15 too short",
        "1 near duplicate",
        "gate passed",
        "threshold 0.85",
        "threshold 0.9",
    ):
        assert words in page.text, words
    for role in ("brief", "sliding", "summary", "fast"):
        assert role in page.text
    assert "nano-base@001122334455" in page.text


def test_nothing_is_fetched_and_nothing_runs(kept_store: LocalStore, run: Run) -> None:
    page = page_of(kept_store, run)
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & {
        e.tag for e in page.elements
    }
    for element in page.elements:
        for name, value in element.attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "srcset", "data", "action", "poster"):
                assert value.startswith(("data:image/jpeg;base64,", "#"))
    assert not re.search(r"https?:|//\w|@import|url\(", re.sub(r"base64,[^\"]+", "", page.html))
    [policy] = [e for e in page.all("meta") if e.attributes.get("http-equiv") == "Content-Security-Policy"]
    assert policy.attributes["content"].startswith("default-src 'none'")


def test_pictures_are_small_jpegs_of_every_key_frame(kept_store: LocalStore, run: Run) -> None:
    page = page_of(kept_store, run)
    pictures = page.pictures()
    assert len(pictures) == read_table(kept_store, run.refs["keyframes"], "keyframes").num_rows
    assert all(max(picture.size) <= MAX_SIDE for picture in pictures)


def test_what_comes_from_outside_is_text(store: LocalStore, tmp_path: Path) -> None:
    run = publish_run(store, tmp_path / "truth", clips=2, spoken=HOSTILE)
    page = page_of(store, run)
    assert not page.all("script")
    assert all("onerror" not in element.attributes for element in page.elements)
    assert len(page.all("style")) == 1
    assert page.text.count("<script>alert(1)</script>") > 10
    assert "{{ 7 * 7 }}" in page.text


def test_the_page_is_bounded(store: LocalStore, tmp_path: Path) -> None:
    run = publish_run(
        store,
        tmp_path / "truth",
        clips=MAX_CLIPS + 3,
        spoken="word " * 3000,
        duration_s=(10.0, 11.0),
        side=48,
    )
    page = page_of(store, run)
    assert len(page.all("article")) == MAX_CLIPS
    assert "40 of 43 are shown" in page.text
    assert len(page.html) < 3_000_000
    assert f"and {15 - MAX_ROWS_PER_REASON} more" in page.text


def test_long_clips_show_their_first_key_frames(store: LocalStore, tmp_path: Path) -> None:
    run = publish_run(store, tmp_path / "truth", clips=1, duration_s=(118.0, 119.0), side=32)
    page = page_of(store, run)
    assert len(page.all("img")) == MAX_FRAMES
    assert re.search(r"\b\d+ more key frames", page.text)


def test_the_most_suspicious_clips_come_first(kept_store: LocalStore, run: Run) -> None:
    page = page_of(kept_store, run)
    order = [
        page.text.index(f"clip-{number:04d}.mp4 1", page.text.index("Key frames with what"))
        for number in range(4)
    ]
    assert max(order[1], order[2]) < min(order[0], order[3])  # one has a fallback, one a failed check


def test_equal_runs_give_equal_files(kept_store: LocalStore, run: Run, tmp_path: Path) -> None:
    written = [
        write_report(kept_store, run.refs, tmp_path / f"{n}" / "r.html", truth=run.truth) for n in "ab"
    ]
    assert written[0].read_bytes() == written[1].read_bytes()
    assert [path.name for path in written[0].parent.iterdir()] == ["r.html"]


@pytest.mark.parametrize(
    ("stages", "sections"),
    [
        ((), {"stages"}),
        (("probe",), {"stages", "clips", "rejects"}),
        (("probe", "brief", "dedup", "keyframes"), {"stages", "duplicates", "clips", "rejects"}),
        (("evaluate-base", "evaluate-candidate"), {"stages", "tuning"}),
    ],
)
def test_a_part_of_a_run_has_a_report(
    kept_store: LocalStore, run: Run, stages: tuple[str, ...], sections: set[str]
) -> None:
    page = Page(render_report(kept_store, {name: run.refs[name] for name in stages}))
    assert page.ids() == sections


def test_without_truth_there_is_no_funnel_and_no_score(
    kept_store: LocalStore, run: Run, tmp_path: Path
) -> None:
    page = Page(render_report(kept_store, run.refs))
    assert page.ids() == SECTIONS - {"funnel", "captions"}
    assert page.ids() == Page(render_report(kept_store, run.refs, truth=tmp_path)).ids()


def test_truth_that_is_none(kept_store: LocalStore, run: Run, tmp_path: Path) -> None:
    page = tmp_path / "r.html"
    with pytest.raises(UserError, match="no folder"):
        write_report(kept_store, run.refs, page, truth=tmp_path / "elsewhere")
    for content in ("{", '{"anything": 1}'):
        (tmp_path / "clip-0001.json").write_text(content)
        with pytest.raises(UserError, match=r"not the truth .*clip-0001\.json"):
            write_report(kept_store, run.refs, page, truth=tmp_path)
        captioned = {name: ref for name, ref in run.refs.items() if name != "dataset"}
        with pytest.raises(UserError, match="not the truth"):
            write_report(kept_store, captioned, page, truth=tmp_path)
    assert not page.exists()


def test_short_states_have_their_own_rows(store: LocalStore, tmp_path: Path) -> None:
    run = publish_run(store, tmp_path, clips=1, errors=0.0, seed=521, side=32)  # a sample shows its blink
    page = page_of(store, run)
    row = "short states in no score above: 3 facts, 3 of them shown at 2 s 1.00 3 0"
    assert all(f"{role}, {row}" in page.text for role in ("sliding", "summary", "fast"))
    assert "brief, short states" not in page.text
    calm = page_of(store, publish_run(store, tmp_path / "calm", clips=1, side=32))
    assert ", short states" not in calm.text


def test_the_champions_evaluation_comes_before_the_release(kept_store: LocalStore, run: Run) -> None:
    refs = {**run.refs, "evaluate-champion": run.refs["evaluate-base"]}
    text = Page(render_report(kept_store, refs)).text
    places = [text.index(f" {name} ") for name in ("evaluate-candidate", "evaluate-champion", "release")]
    assert places == sorted(places)


def test_an_output_that_is_gone(kept_store: LocalStore, run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no published output"):
        write_report(kept_store, {**run.refs, "probe": StageRef("probe", "gone", "x")}, tmp_path / "r.html")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written(kept_store: LocalStore, run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write the report"):
        write_report(kept_store, run.refs, tmp_path / "file" / "r.html")


@pytest.mark.parametrize("data", [b"", b"x", b"\xff\xd8\xff\xe0" + b"\0" * 50, b"GIF89a" + b"\xff" * 40])
def test_a_picture_that_is_none(data: bytes) -> None:
    assert thumbnail(data) is None


def test_the_report_does_without_torch() -> None:
    script = "import sys, share4video.report; sys.exit('torch' in sys.modules or 'mlflow' in sys.modules)"
    subprocess.run(
        [sys.executable, "-c", script], check=True, timeout=120, env=os.environ | {"PYTHONPATH": "."}
    )
