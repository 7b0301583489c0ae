"""A gateway as a child process, alone or with the model behind it, for the time of a ``with`` block."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

import serving
from serving.gateway.listening import check_port_free
from serving.gateway.settings import ENVIRONMENT_PREFIX, GatewaySettings
from share4video.captioning.checkpoints import checkpoint_folder
from share4video.captioning.domain_guard import domain_of
from share4video.captioning.engine import connect_all, resolve
from share4video.config import EngineSpec
from share4video.errors import USER_ERROR_EXIT_CODE, UserError
from share4video.store import Store
from share4video.work import work_folder

START_TIMEOUT_S = 180.0
_STOP_TIMEOUT_S = 8.0  # TERM, 3 s, KILL, and some air
_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Gateway:
    """A running gateway.

    Attributes:
        url: its root, such as ``http://127.0.0.1:8080``.
        model_name: what requests call the model.
        log: what it printed; kept after it ended.
    """

    url: str
    model_name: str
    log: Path
    process: subprocess.Popen[bytes]

    def wait(self) -> int:
        """Block until the gateway ends by itself; return its exit status."""
        return self.process.wait()


@contextmanager
def gateway_process(settings: GatewaySettings, *, log: Path | None = None) -> Iterator[Gateway]:
    """Run a gateway in front of a model that is already being served, until the block ends.

    It ends with its owner, however the owner ends (``kill -9`` included).

    Raises:
        UserError: its port is in use or it did not start (the sentence names its log).
    """
    check_port_free(settings.host, settings.port)
    log = log or work_folder("logs") / f"gateway-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    process = _start(settings, log)
    try:
        host = _LOOPBACK if settings.host in ("0.0.0.0", "::") else settings.host
        gateway = Gateway(f"http://{host}:{settings.port}", settings.model_name, log, process)
        _wait_until_live(gateway)
        yield gateway
    finally:
        assert process.stdin is not None
        process.stdin.close()  # what tells the supervisor to end it
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def serve_model(
    model: str,
    *,
    model_name: str = "",
    summarizer: str = "",
    store: Store | None = None,
    port: int | None = None,
    log: Path | None = None,
    **settings: Any,
) -> Iterator[Gateway]:
    """Serve a model with a gateway in front of it until the block ends.

    Args:
        model: ``models:/NAME@champion``, a checkpoint folder, ``builtin:NAME``, or the address of an
            OpenAI endpoint that runs (``http://HOST:PORT/v1``; ``model_name`` is what it calls the model).
        model_name: what clients call the model; its folder's name where it is empty.
        summarizer: the model a captioner's summaries come from; the same one where it is empty.
        store: whose registry ``models:/`` means where the environment names none, see
            `model_registry.resolve`.
        port: to listen on at 127.0.0.1; a free one where it is None.
        settings: further fields of ``GatewaySettings``.

    Raises:
        UserError: a model is missing or damaged, the port is in use, or a server did not start.
    """
    host = settings.setdefault("host", _LOOPBACK)
    port = port or free_port(host)
    check_port_free(host, port)  # before a model is loaded for nothing
    spec = _engine(model, store, model_name)
    specs = [spec, _engine(summarizer, store)] if summarizer else [spec]
    if spec.model_path is not None:
        settings.setdefault("domain", domain_of(Path(spec.model_path)))
    with connect_all(specs) as (upstream, *others):
        for other in others:
            settings |= {"summarizer_url": other.base_url, "summarizer_model": other.model}
        gateway_settings = GatewaySettings(
            upstream_url=upstream.base_url,
            upstream_model=upstream.model,
            model_name=model_name or upstream.spec.model,
            model_revision=upstream.spec.revision,
            port=port,
            **settings,
        )
        with gateway_process(gateway_settings, log=log) as gateway:
            yield gateway


def _engine(model: str, store: Store | None, model_name: str = "") -> EngineSpec:
    if model.startswith(("http://", "https://")):
        return resolve(EngineSpec(url=model, model=model_name))
    return EngineSpec(model_path=str(model_folder(model, store)))


def model_folder(model: str, store: Store | None = None) -> Path:
    """Return the local folder of a registered model, of a built-in one or of a path.

    Raises:
        UserError: there is no such model, or it is not whole.
    """
    if model.startswith("models:/"):
        from share4video import model_registry  # imports MLflow

        return checkpoint_folder(str(model_registry.resolve(model, store).folder()))
    return checkpoint_folder(model)


def free_port(host: str = _LOOPBACK) -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
    return port


def _start(settings: GatewaySettings, log: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "share4video.captioning.supervisor"]
    command += [sys.executable, "-m", "serving.gateway"]
    package_root = str(Path(serving.__file__ or "").parents[1])
    inherited = os.environ.get("PYTHONPATH")
    environment = {
        **os.environ,
        **_as_environment(settings),
        "PYTHONPATH": os.pathsep.join([package_root, *([inherited] if inherited else [])]),
    }
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,  # Ctrl-C is the owner's to handle: answers under way may end
        )


def _as_environment(settings: GatewaySettings) -> dict[str, str]:
    values = settings.model_dump(mode="json", exclude_none=True)
    values["upstream_api_key"] = settings.upstream_api_key.get_secret_value()
    return {
        ENVIRONMENT_PREFIX + name.upper(): value if isinstance(value, str) else json.dumps(value)
        for name, value in values.items()
    }


def _wait_until_live(gateway: Gateway) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    with httpx.Client(trust_env=False, timeout=5.0) as client:
        while time.monotonic() < deadline:
            status = gateway.process.poll()
            if status is not None:
                raise _not_started(gateway.log, status)
            try:
                if client.get(f"{gateway.url}/v2/health/live").is_success:
                    return
            except httpx.HTTPError:
                time.sleep(0.05)  # it is still importing
    raise UserError("the gateway did not start in time", where=str(gateway.log), fix="read its log")


def _not_started(log: Path, status: int) -> UserError:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    last = next((line.strip()[:300] for line in reversed(lines) if line.strip()), "it ended without a word")
    fix = "correct the setting" if status == USER_ERROR_EXIT_CODE else "read its log"
    return UserError(f"the gateway did not start: {last.rstrip('.')}", where=str(log), fix=fix)
