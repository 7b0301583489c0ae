"""A served model as one thing: it starts, answers, and leaves nothing behind, however its owner ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

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
    [
        ([], "upstream_url"),
        (["--upstream-url", "http://x/v1", "--port", "0"], "port"),
        (["--upstream-url", "http://x/v1", "--allowed-hosts", "https://x"], "without https://"),
        (["--upstream-url", "http://x/v1", "--max-buffered-bytes", "9"], "max_buffered_bytes"),
        (["--upstream-url", "http://x/v1", "--host", "a..b"], "give --host an address of this machine"),
    ],
)
def test_a_wrong_setting_is_one_sentence(arguments: list[str], named: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "serving.gateway", *arguments], capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1
    assert named in run.stderr


@pytest.mark.parametrize(
    ("name", "value"), [("ALLOWED_HOSTS", "clips.example.org"), ("FRAMES", "abc"), ("ROLE", "painter")]
)
def test_a_wrong_variable_is_one_sentence(
    upstream: UpstreamHost, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    variable = f"SHARE4VIDEO_GATEWAY_{name}"
    monkeypatch.setenv(variable, value)
    with pytest.raises(UserError, match=variable), serve_model(upstream.base_url, model_name="m"):
        pass
    run = subprocess.run(
        [sys.executable, "-m", "serving.gateway", "--upstream-url", "http://x/v1"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1
    assert variable in run.stderr


def test_nothing_behind_the_gateway_is_refused_at_once(upstream: UpstreamHost) -> None:
    for address in ("http://127.0.0.1:9/v1", "http://[::1/v1"):
        with pytest.raises(UserError, match="no model server answers"), serve_model(address, model_name="m"):
            pass
    upstream.healthy = False
    with pytest.raises(UserError, match="status 503"), serve_model(upstream.base_url, model_name="m"):
        pass


def test_an_unknown_encoder_is_refused_at_the_start(upstream: UpstreamHost, tmp_path: Path) -> None:
    wrong: dict[str, Any] = {"role": "captioner", "encoder": "nosuch"}
    refused = pytest.raises(UserError, match="unknown frame encoder")
    with refused, serve_model(upstream.base_url, model_name="m", **wrong):
        pass
    alone = GatewaySettings(upstream_url=upstream.base_url, host="127.0.0.1", port=free_port(), **wrong)
    with refused, gateway_process(alone, log=tmp_path / "log"):
        pass


def test_a_summarizer_of_another_world_is_refused(upstream: UpstreamHost) -> None:
    names: dict[str, Any] = {"model_name": "big", "summarizer": "builtin:nano-summarizer"}
    refused = pytest.raises(UserError, match=r"nano-summarizer knows only .* and big takes any")
    with refused, serve_model(upstream.base_url, role="captioner", **names):
        pass


def test_an_ipv6_address_stands_in_brackets(upstream: UpstreamHost) -> None:
    try:
        port = free_port("::1")
    except OSError:
        pytest.skip("this machine has no IPv6")
    with serve_model(upstream.base_url, model_name="m", host="::1", port=port) as gateway:
        assert gateway.url == f"http://[::1]:{port}"
        answer = httpx.get(f"{gateway.url}/v1/models", timeout=30, trust_env=False)
        assert answer.json()["models"] == ["m"]


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
