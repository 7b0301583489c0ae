"""A served model as one thing: it starts, answers, and leaves nothing behind, however its owner ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

from serving.gateway.process import free_port, gateway_process, model_folder, serve_model
from serving.gateway.settings import GatewaySettings
from share4video.errors import UserError
from tests.serving.upstream_host import MODEL, UpstreamHost

OWNER = """
import sys, time
from serving.gateway.process import serve_model
with serve_model(sys.argv[1], model_name="m", port=int(sys.argv[2])) as gateway:
    print(gateway.url, flush=True)
    time.sleep(600)
"""


def settings(upstream: UpstreamHost, port: int) -> GatewaySettings:
    return GatewaySettings(upstream_url=upstream.base_url, host="127.0.0.1", port=port)


def test_a_port_in_use_is_one_sentence(upstream: UpstreamHost, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = pytest.raises(UserError, match=f"cannot listen on port {port}")
        with refused, gateway_process(settings(upstream, port), log=tmp_path / "log"):
            pass
        with refused, serve_model(str(tmp_path / "no-such-model"), port=port):
            pass
        run = subprocess.run(
            [sys.executable, "-m", "serving.gateway", "--upstream-url", "http://x/v1", "--port", str(port)],
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1
    assert f"cannot listen on port {port}" in run.stderr


@pytest.mark.parametrize(
    ("arguments", "named"),
    [([], "upstream_url"), (["--upstream-url", "http://x/v1", "--port", "0"], "port")],
)
def test_a_wrong_setting_is_one_sentence(arguments: list[str], named: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "serving.gateway", *arguments], capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1
    assert named in run.stderr


def test_no_such_model_is_one_sentence(tmp_path: Path) -> None:
    for model in (str(tmp_path / "none"), "builtin:none"):
        with pytest.raises(UserError):
            model_folder(model)
    with pytest.raises(UserError, match="not named"), serve_model("http://127.0.0.1:1/v1"):
        pass


def test_a_killed_owner_leaves_no_orphan(upstream: UpstreamHost) -> None:
    port = free_port()
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, upstream.base_url, str(port)], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    assert owner.stdout.readline().strip() == f"http://127.0.0.1:{port}"
    answer = httpx.get(f"http://127.0.0.1:{port}/v1/models", timeout=30, trust_env=False)
    assert answer.json()["models"] == ["m"]
    family = psutil.Process(owner.pid).children(recursive=True)
    assert len(family) >= 2  # the supervisor and the gateway
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    _, alive = psutil.wait_procs(family, timeout=30)
    assert alive == []


def test_the_gateway_ends_with_its_block(upstream: UpstreamHost, tmp_path: Path) -> None:
    port = free_port()
    with gateway_process(settings(upstream, port), log=tmp_path / "gateway.log") as gateway:
        family = psutil.Process(gateway.process.pid).children(recursive=True)
        assert family
        assert not _listens_elsewhere(port)
    assert not any(process.is_running() for process in family)
    assert "gateway.log" in str(gateway.log)
    started = time.monotonic()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{gateway.url}/v1/models", trust_env=False)
    assert time.monotonic() - started < 10
    assert MODEL not in gateway.log.read_text(encoding="utf-8")


def _listens_elsewhere(port: int) -> bool:
    """Whether anything but the loopback address answers on ``port``."""
    addresses = {
        entry.laddr.ip
        for entry in psutil.net_connections("tcp")
        if entry.status == psutil.CONN_LISTEN and entry.laddr.port == port
    }
    return addresses != {"127.0.0.1"}
