"""``share4video demo-ui``: what is wrong with its options is said before anything is loaded."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from serving.gateway.process import free_port
from share4video.cli.main import app


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--model", "builtin:nano-base", "--chat-url", "http://127.0.0.1:9"],
            "--model and --chat-url name two",
        ),
        (
            ["--captioner", "builtin:nano-captioner", "--caption-url", "http://127.0.0.1:9"],
            "--captioner and --caption-url name two",
        ),
        (["--dialect", "klingon"], "no such dialect (klingon)"),
        (["--engine", "none"], "there is no engine none"),
        (
            [
                "--engine",
                "sharecaptioner-video",
                "--caption-url",
                "http://127.0.0.1:9",
                "--dialect",
                "teacher",
            ],
            "tiles are for the dialect that shows one picture",
        ),
        (["--model", "builtin:nano-base", "--chat-model", "x"], "does not go with --model"),
        (["--captioner", "builtin:nano-captioner", "--caption-model", "x"], "does not go with --captioner"),
        (["--summarizer", "builtin:nano-summarizer", "--summarizer-model", "x"], "does not go with a --summ"),
        (["--host", "no such host"], "cannot listen"),
        (["--examples", "no-such-folder"], "cannot read the folder of examples"),
        (["--model", "builtin:none"], "no such built-in model"),
        (["--captioner", "no-such-folder"], "no such model folder"),
        (["--url", "127.0.0.1:8080"], "this is no address"),
        (
            ["--captioner", "builtin:nano-captioner", "--summarizer", "http://127.0.0.1:9"],
            "knows only the synthetic clips",
        ),
    ],
)
def test_mistakes_are_one_sentence(arguments: list[str], sentence: str) -> None:
    run = CliRunner().invoke(app, ["demo-ui", "--port", str(free_port()), *arguments])
    assert run.exit_code == 2
    assert sentence in run.stderr.splitlines()[-1]
    assert "Traceback" not in run.stderr


def test_a_port_that_is_taken_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        run = CliRunner().invoke(app, ["demo-ui", "--port", port])
    assert run.exit_code == 2
    assert f"cannot listen on port {port}" in run.stderr


def test_the_front_door_imports_neither_gradio_nor_torch() -> None:
    code = "import sys, share4video.cli.main; print([m for m in ('gradio', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
