"""One upstream and one gateway process for all tests here."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest

from serving.gateway.process import Gateway, free_port, gateway_process
from serving.gateway.settings import GatewaySettings
from tests.serving.clips import write_clip
from tests.serving.media_host import MediaHost, media_host
from tests.serving.upstream_host import MODEL, MODEL_NAME, UpstreamHost


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("serving")


@pytest.fixture(scope="session")
def clip(folder: Path) -> Path:
    return write_clip(folder / "clip.mp4")


@pytest.fixture(scope="session")
def clip_uri(clip: Path) -> str:
    return "data:video/mp4;base64," + base64.b64encode(clip.read_bytes()).decode()


@pytest.fixture(scope="session")
def media() -> Iterator[MediaHost]:
    with media_host() as host:
        yield host


@pytest.fixture(scope="session")
def gateway(running_upstream: UpstreamHost, media: MediaHost, folder: Path) -> Iterator[Gateway]:
    """A chat gateway with tight limits that may read from one host and one folder."""
    os.environ["OMP_NUM_THREADS"] = "1"
    settings = GatewaySettings(
        upstream_url=running_upstream.base_url,
        upstream_model=MODEL,
        model_name=MODEL_NAME,
        host="127.0.0.1",
        port=free_port(),
        allowed_hosts=(f"127.0.0.1:{media.port}", f"127.0.0.2:{media.port}", "*.example.org"),
        allowed_networks=(ip_network("127.0.0.1/32"),),
        file_root=folder,
        fetch_timeout_s=3.0,
        max_video_bytes=2 << 20,
        max_body_bytes=4 << 20,
        max_in_flight=4,
        max_tokens=256,
    )
    with gateway_process(settings, log=folder / "gateway.log") as running:
        yield running
