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
from serving.gateway.listening import check_port_free, family_of
from serving.gateway.settings import ENVIRONMENT_PREFIX, GatewaySettings, setting_mistakes
from serving.gateway.upstream import health_address, is_healthy
from share4video.captioning.checkpoints import checkpoint_folder
from share4video.captioning.domain_guard import domain_of, engine_domain, refuse_mixed
from share4video.captioning.engine import connect_all, resolve
from share4video.config import EngineSpec
from share4video.curation.encoders import frame_encoder
from share4video.errors import USER_ERROR_EXIT_CODE, UserError
from share4video.store import Store
from share4video.work import work_folder

START_TIMEOUT_S = 180.0
_STOP_TIMEOUT_S = 8.0  # TERM, 3 s, KILL, and some air
_UPSTREAM_TIMEOUT_S = 10.0
_LOOPBACK = "127.0.0.1"
_UNKNOWN_YET = "http://127.0.0.1/v1"  # where the model will be: its settings are checked before it is loaded
_SERVE_FLAGS = {
    "allowed_hosts": "--allow-host",
    "file_root": "--file-root",
    "role": "--role",
    "port": "--port",
}


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
        gateway = Gateway(_address(settings), settings.model_name, log, process)
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
        UserError: a setting is wrong; a model is missing or damaged, or nothing answers at its address; one
            model knows only synthetic clips and the other takes any; the port is in use; or a server did not
            start.
    """
    host = settings.setdefault("host", _LOOPBACK)
    port = port or free_port(host)
    check_port_free(host, port)  # this, too, before a model is loaded for nothing
    spec = _engine(model, store, model_name)
    specs = [spec, _engine(summarizer, store)] if summarizer else [spec]
    if spec.model_path is not None:
        settings.setdefault("domain", domain_of(Path(spec.model_path)))
    with setting_mistakes(_SERVE_FLAGS):
        wanted = GatewaySettings(
            upstream_url=_UNKNOWN_YET,
            model_name=model_name or _name(spec),
            port=port,
            **settings,
        )
    if wanted.role == "captioner":
        frame_encoder(wanted.encoder)
    for other in specs[1:]:
        refuse_mixed(wanted.domain, engine_domain(other), names=(wanted.model_name, _name(other)))
    with connect_all(specs) as (upstream, *others):
        found: dict[str, Any] = {
            "upstream_url": upstream.base_url,
            "upstream_model": upstream.model,
            "model_name": model_name or upstream.spec.model,
            "model_revision": upstream.spec.revision,
        }
        for one in others:
            found |= {"summarizer_url": one.base_url, "summarizer_model": one.model}
        with gateway_process(wanted.model_copy(update=found), log=log) as gateway:
            yield gateway


def _engine(model: str, store: Store | None, model_name: str = "") -> EngineSpec:
    if model.startswith(("http://", "https://")):
        spec = resolve(EngineSpec(url=model, model=model_name))
        _check_answers(model)
        return spec
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
    with socket.socket(family_of(host)) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
    return port


def _check_answers(url: str) -> None:
    """Raise UserError where no model server answers at ``url``."""
    fix = "start the model server, or correct its address"
    try:
        answer = httpx.get(health_address(url), timeout=_UPSTREAM_TIMEOUT_S, trust_env=False)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise UserError(f"no model server answers: {error}".rstrip(".: "), where=url, fix=fix) from None
    if not is_healthy(answer):
        what = f"the model server is not ready: it answers with status {answer.status_code}"
        raise UserError(what, where=url, fix="wait until it has loaded its model")


def _name(spec: EngineSpec) -> str:
    return spec.model or Path(spec.model_path or "").name


def _address(settings: GatewaySettings) -> str:
    """Return where a gateway on this machine is reached."""
    host = {"0.0.0.0": _LOOPBACK, "::": "::1"}.get(settings.host, settings.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"


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
