"""``share4video caption-audit`` on real files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from typer.testing import CliRunner

from share4video.caption_audit import AuditReport
from share4video.cli.main import app
from share4video.synthetic.clips import write_clip
from share4video.synthetic.world import sample_clip
from tests.evaluation.engine_host import EngineHost, engine_host


@pytest.fixture
def host() -> Iterator[EngineHost]:
    with engine_host() as running:
        yield running


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    for number in range(2):
        write_clip(folder / f"clip-{number}.mp4", sample_clip(number))
    (folder / "words.mp4").write_text("not a video")
    return folder


def audit(*arguments: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["caption-audit", *map(str, arguments)], env={"COLUMNS": "120"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_an_engine_that_says_one_thing_only(host: EngineHost, source: Path, tmp_path: Path) -> None:
    host.answer = lambda _: "The camera pans to the left."
    out = tmp_path / "found" / "audit.json"
    code, shown, _ = audit(source, "--engine", f"{host.root}/v1#tiny", "--frames", "4", "--out", out)
    assert code == 0
    assert "tiny@unversioned, 2 clips" in shown
    assert "100%" in shown
    assert "words.mp4" in shown
    report = AuditReport.model_validate_json(out.read_text())
    assert (report.clips, report.nothing_to_test, list(report.left_out)) == (2, 0, ["words.mp4"])
    assert report.tests["reversed"].violated == report.tests["reversed"].tested == 6
    assert len(report.played["clip-0.mp4"]["shuffled"].captions) == 3
    assert str(source) not in out.read_text()


def test_an_engine_that_tells_no_change(host: EngineHost, source: Path) -> None:
    host.answer = lambda _: "Nothing changes."
    code, shown, _ = audit(source, "--engine", f"{host.root}/v1#tiny", "--frames", "3", "--clips", "1")
    assert code == 0
    assert "1 of 1 clips had nothing to test" in shown


def test_what_a_run_would_reject_is_left_out(host: EngineHost, source: Path, tmp_path: Path) -> None:
    host.answer = lambda _: "Nothing changes."
    shutil.copy(source / "clip-0.mp4", tmp_path / "good.mp4")
    with av.open(str(tmp_path / "black.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((64, 96, 3), np.uint8), format="rgb24")
        for _ in range(40):
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    code, shown, _ = audit(
        tmp_path, "--engine", f"{host.root}/v1#tiny", "--frames", "2", "--set", "probe.min_height=48"
    )
    assert code == 0
    assert "1 clips" in shown
    assert "left out: black.mp4: " in shown


def test_mistakes_are_sentences(host: EngineHost, source: Path, tmp_path: Path) -> None:
    code, _, complaint = audit(source, "--engine", f"{host.root}/v1")
    assert code == 2
    assert "URL#MODEL" in complaint
    host.answer = lambda _: 400
    code, _, complaint = audit(source / "clip-0.mp4", "--engine", f"{host.root}/v1#tiny")
    assert code == 2
    assert "no clip could be captioned: " in complaint and "HTTP 400" in complaint
    host.answer = lambda _: " "
    code, _, complaint = audit(source / "clip-0.mp4", "--engine", f"{host.root}/v1#tiny")
    assert code == 2
    assert "no clip could be captioned: the engine gave no caption (clip-0.mp4)" in complaint
    out = tmp_path / "file"
    out.write_text("")
    host.answer = lambda _: "Nothing changes."
    code, _, complaint = audit(
        source / "clip-0.mp4", "--engine", f"{host.root}/v1#tiny", "--frames", "2", "--out", out / "a.json"
    )
    assert code == 2
    assert "cannot write the findings" in complaint


@pytest.mark.slow  # it starts the model server
@pytest.mark.timeout(600)
def test_the_nano_captioner_looks_at_time(source: Path, work_root: Path, tmp_path: Path) -> None:
    out = tmp_path / "audit.json"
    code, _, _ = audit(source / "clip-0.mp4", "--config", "laptop", "--frames", "5", "--out", out)
    assert code == 0
    tests = json.loads(out.read_text())["tests"]
    assert tests["reversed"]["tested"] > 0
    assert tests["reversed"]["violated"] <= tests["reversed"]["tested"] / 2
    assert tests["frozen"]["violated"] <= tests["frozen"]["tested"] / 2


def test_steps_are_of_two_frames_whatever_the_window(host: EngineHost, source: Path, tmp_path: Path) -> None:
    host.answer = lambda _: "The camera pans to the left."
    engine = (source / "clip-0.mp4", "--engine", f"{host.root}/v1#tiny", "--frames", "5")
    reports = []
    for window in (2, 4):
        out = tmp_path / f"{window}.json"
        assert audit(*engine, "--set", f"caption.window={window}", "--out", out)[0] == 0
        reports.append(AuditReport.model_validate_json(out.read_text()))
    assert len(reports[0].played["clip-0.mp4"]["forward"].captions) == 4
    assert reports[0] == reports[1]


def test_the_report_names_the_prompts_that_were_sent(host: EngineHost, source: Path, tmp_path: Path) -> None:
    host.answer = lambda _: "Nothing changes."
    roles = {"difference": {"user": "Was ist neu seit {before}?"}}
    own = json.dumps({"name": "german", "base": "teacher", "roles": roles})
    out = tmp_path / "audit.json"
    engine = f"engines.captioner={{url: {host.root}/v1, model: tiny, dialect: teacher, prompts: {own}}}"
    code, _, complaint = audit(source / "clip-0.mp4", "--frames", "2", "--out", out, "--set", engine)
    assert code == 0, complaint
    assert AuditReport.model_validate_json(out.read_text()).prompt_version.startswith("german")
