"""``share4video serve`` with a real model: a random nano checkpoint behind ``transformers serve``."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import openai
import psutil
import pytest
from typer.testing import CliRunner

from serving.gateway.process import free_port
from share4video.cli.main import app
from share4video.cli.serve import example
from share4video.synthetic.clips import write_clip
from share4video.synthetic.world import sample_clip

COMMAND = "from share4video.cli.main import app; app()"
START_S = 170.0


@pytest.fixture(scope="module")
def checkpoint(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random nano model that says what it knows."""
    folder = tmp_path_factory.mktemp("served") / "nano-random"
    shutil.copytree(checkpoints["captioner"], folder)
    (folder / "share4video.json").write_text('{"domain": "synthetic"}', encoding="utf-8")
    return folder


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_serves_a_model_until_interrupted(checkpoint: Path, tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    write_clip(clip, sample_clip(5))
    uri = "data:video/mp4;base64," + base64.b64encode(clip.read_bytes()).decode()
    port = free_port()
    process = _serve(str(checkpoint), "--port", str(port), "--name", "nano")
    try:
        printed = _read_until(process, "share4video chat")
        assert f"nano answers at http://127.0.0.1:{port}" in printed
        assert "curl" in printed
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", timeout=120)
        content = [
            {"type": "video_url", "video_url": {"url": uri}},
            {"type": "text", "text": "Which colour is the circle?"},
        ]
        messages = [{"role": "user", "content": content}, {"role": "assistant", "content": "Best option:("}]
        whole = client.chat.completions.create(model="nano", messages=messages, max_tokens=8)  # type: ignore[arg-type]
        assert whole.model == "nano"
        assert whole.usage is not None
        assert 0 < whole.usage.completion_tokens <= 8
        assert whole.usage.prompt_tokens > 100  # the image's tokens are among them
        chunks = list(
            client.chat.completions.create(model="nano", messages=messages, max_tokens=8, stream=True)  # type: ignore[call-overload]
        )
        assert {chunk.model for chunk in chunks} == {"nano"}
        assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
        pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
        assert _readable("".join(pieces)) == _readable(whole.choices[0].message.content or "")

        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) >= 4  # two supervisors, the model server, the gateway
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert psutil.wait_procs(family, timeout=10)[1] == []
    finally:
        process.kill()


def test_a_stopped_start_leaves_no_orphan(checkpoint: Path) -> None:
    process = _serve(str(checkpoint), "--port", str(free_port()))
    try:
        deadline = time.monotonic() + START_S
        while not (family := psutil.Process(process.pid).children(recursive=True)):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert psutil.wait_procs(family, timeout=30)[1] == []
    finally:
        process.kill()


def test_mistakes_are_one_sentence(checkpoint: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for arguments, sentence in [
            ([str(checkpoint), "--port", port], f"cannot listen on port {port}"),
            (["no-such-folder"], "no such model folder"),
            (["builtin:none"], "no such built-in model"),
            (["models:/none"], "not the address of a registered model"),
            ([str(checkpoint), "--role", "painter"], "no such role"),
            ([str(checkpoint), "--file-root", "no-such-folder"], "no such folder"),
            ([str(checkpoint), "--allow-host", "https://clips.example.org"], "correct --allow-host or"),
            (["http://127.0.0.1:9/v1", "--name", "x"], "no model server answers"),
        ]:
            run = CliRunner().invoke(app, ["serve", *arguments])
            assert run.exit_code == 2
            assert sentence in run.stderr.splitlines()[-1]


@pytest.mark.parametrize("role", ["chat", "captioner"])
def test_the_curl_line_is_a_request(role: str, tmp_path: Path) -> None:
    """What the shell makes of the line, with ``curl`` standing in, is the JSON the route takes."""
    (tmp_path / "CLIP.mp4").write_bytes(b"some bytes of a clip" * 20_000)
    curl = tmp_path / "curl"
    curl.write_text('#!/bin/sh\necho "$@" > arguments\ncat > body\n')
    curl.chmod(0o755)
    line = example("http://127.0.0.1:8080", role)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run(["sh", "-c", line], cwd=tmp_path, env=environment, check=True, timeout=60)
    assert re.search(
        r"http://127\.0\.0\.1:8080/v1/(chat/completions|captions)", (tmp_path / "arguments").read_text()
    )
    body = json.loads((tmp_path / "body").read_text())
    url = (
        body["messages"][0]["content"][0]["video_url"]["url"] if role == "chat" else body["video_url"]["url"]
    )
    assert base64.b64decode(url.partition(",")[2]) == (tmp_path / "CLIP.mp4").read_bytes()


def _serve(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, "serve", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _read_until(process: subprocess.Popen[str], text: str) -> str:
    assert process.stdout is not None
    printed = ""
    for line in process.stdout:
        printed += line
        if text in line:
            return printed
    raise AssertionError(f"it ended early: {printed}{process.stderr.read() if process.stderr else ''}")


def _readable(text: str) -> str:
    """Drop what is no character: a random model writes any bytes, and a stream holds half ones back."""
    return text.replace("\ufffd", "")
