"""A supervised ``transformers serve`` on a free local port, for the time of a ``with`` block.

    owner ── pipe ──> supervisor ── pipe ──> transformers serve ── GET /health, POST /v1/chat/completions

One server serves any number of checkpoints (vision models one request at a time each), so a run pays for one
import of torch. Small models are bound to one core; replicas of the server use the others. It needs no
cleaning up by its owner: when the owner goes, however it goes, the supervisor ends the server's processes.
"""

from __future__ import annotations

import json
import os
import re
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

import share4video
from share4video.captioning.checkpoints import check_checkpoint, checkpoint_bytes, checkpoint_revision
from share4video.errors import UserError, read_user_error
from share4video.work import process_folder, work_folder

SERVER_VARIABLE = "SHARE4VIDEO_MODEL_SERVER"
SMALL_MODEL_BYTES = 256 << 20
START_TIMEOUT_S = 300.0  # importing torch on a busy machine; a server that dies is noticed at once
LOAD_TIMEOUT_S = 600.0
_LOGS_KEPT = 20
_STOP_TIMEOUT_S = 8.0  # TERM, 3 s, KILL, and some air
_ADDRESS_FILE = "server.json"
ON_DEMAND_FILE, WANTED_FILE, FAILED_FILE = "on-demand", "wanted", "failed.json"
POLL_S = 0.1


@dataclass(frozen=True)
class ModelServer:
    """A running server.

    Attributes:
        folder: its work folder; models are links in ``folder/models``, so that requests carry plain names.
        base_url: of the OpenAI protocol, such as ``http://127.0.0.1:41234/v1``.
        log: what the server printed; kept after it ended.
        replicas: addresses of further servers of the same models.
    """

    folder: Path
    base_url: str
    log: Path
    replicas: tuple[str, ...] = ()

    def load(self, checkpoint: Path) -> str:
        """Load a checkpoint folder and return the name requests use for it. Loading it again is cheap.

        Raises:
            UserError: the folder is missing, incomplete, or does not fit its architecture.
        """
        check_checkpoint(checkpoint)
        name = served_name(checkpoint)
        link = self.folder / "models" / name
        with suppress(FileExistsError):  # loaded before, perhaps by another process: same name, same content
            link.symlink_to(checkpoint.resolve())
        tried = (_request_load(base_url, name) for base_url in (self.base_url, *self.replicas))
        failure = next((why for why in tried if why is not None), None)
        if failure is not None:
            link.unlink(missing_ok=True)
            raise UserError(
                f"cannot serve the model: {failure}",
                where=str(checkpoint),
                fix=f"give a complete checkpoint; the server's log is {self.log}",
            )
        return name


def _request_load(base_url: str, name: str) -> str | None:
    """Return None once the model answers requests, or why it does not."""
    url = base_url.removesuffix("/v1") + "/load_model"
    failure: str | None = "the server closed the connection"
    try:
        with (
            httpx.Client(timeout=LOAD_TIMEOUT_S, trust_env=False) as client,
            client.stream("POST", url, json={"model": name}) as response,
        ):
            response.raise_for_status()
            for line in response.iter_lines():
                event = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
                if event.get("status") == "ready":
                    failure = None
                elif event.get("status") == "error":
                    failure = " ".join(str(event.get("message")).split()).rstrip(".")
    except (httpx.HTTPError, ValueError) as error:
        return f"{type(error).__name__} {error}".strip()
    return failure


def served_name(checkpoint: Path) -> str:
    """Return the name a checkpoint is served under: its folder's name and the start of its revision."""
    plain = re.sub(r"[^\w.-]+", "-", checkpoint.resolve().name)  # "@" and ":" mean something to the server
    return f"{plain}-{checkpoint_revision(checkpoint)[:12]}"


def running_server(environment: Mapping[str, str] = os.environ) -> ModelServer | None:
    """Return the server that the process which started this one shares, or None where none answers.

    One that is started on demand (see `on_demand`) is asked for, and waited for. Replicas that do not answer
    are left out.

    Raises:
        UserError: it was asked for and did not start.
    """
    folder = environment.get(SERVER_VARIABLE)
    if not folder:
        return None
    if (Path(folder) / ON_DEMAND_FILE).exists():
        _ask_for_server(Path(folder))
    try:
        fields = json.loads((Path(folder) / _ADDRESS_FILE).read_text(encoding="utf-8"))
        addresses, log = [fields["base_url"], *fields.get("replicas", ())], Path(fields["log"])
    except (OSError, ValueError, KeyError):
        return None
    answering = [base_url for base_url in addresses if _is_healthy(base_url)]
    if not answering:
        return None  # it ended with its owner
    return ModelServer(Path(folder), answering[0], log, tuple(answering[1:]))


def _is_healthy(base_url: str) -> bool:
    try:
        answer = httpx.get(base_url.removesuffix("/v1") + "/health", timeout=30, trust_env=False)
    except httpx.HTTPError:
        return False
    return answer.is_success


def _ask_for_server(folder: Path) -> None:
    """Ask the owner of ``folder`` for its server, and wait until it listens or the owner gave up."""
    (folder / WANTED_FILE).touch()
    deadline = time.monotonic() + START_TIMEOUT_S
    while not (folder / _ADDRESS_FILE).exists() and time.monotonic() < deadline:
        if not (folder / ON_DEMAND_FILE).exists():
            return
        error = read_user_error(folder / FAILED_FILE)
        if error is not None:
            raise error
        time.sleep(POLL_S)


@contextmanager
def serve_models(
    checkpoints: Sequence[Path],
    *,
    port: int | None = None,
    log: Path | None = None,
    folder: Path | None = None,
    replicas: int = 0,
) -> Iterator[ModelServer]:
    """Serve checkpoint folders in one ``transformers serve`` until the block ends.

    Small models run on the CPU in float32 with one thread each (fp16 is slow on a CPU, and the nano models
    gain nothing from a second thread); with a large one the server takes the GPU where there is one.

    Args:
        port: the port to listen on at 127.0.0.1; a free one where it is None.
        log: the file for the server's output; one in the work folder where it is None.
        folder: the server's work folder, which the caller removes; a temporary one where it is None.
        replicas: how many more servers share the work where all models are small; a large one has the GPU
            for itself.

    Raises:
        UserError: the port is in use, a model folder is missing or incomplete, or the server did not start
            (the sentence names its log).
    """
    for checkpoint in checkpoints:
        check_checkpoint(checkpoint)
    if port is not None:
        _check_port_free(port)
    log = log or _new_log()
    log.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        if folder is None:
            folder = stack.enter_context(process_folder("servers"))
        (folder / "models").mkdir()
        small = all(checkpoint_bytes(checkpoint) <= SMALL_MODEL_BYTES for checkpoint in checkpoints)
        processes = []
        for number in range(1 + (replicas if small else 0)):
            processes.append(_start(folder / "models", log, port=0 if number else port or 0, small=small))
            stack.callback(_stop, processes[-1])
        first, *further = [
            f"http://127.0.0.1:{_wait_until_listening(process, log)}/v1" for process in processes
        ]
        server = ModelServer(folder, first, log, tuple(further))
        address = {"base_url": server.base_url, "log": str(log), "replicas": server.replicas}
        partial = folder / f".{_ADDRESS_FILE}"
        partial.write_text(json.dumps(address), encoding="utf-8")
        partial.rename(folder / _ADDRESS_FILE)  # whoever waits for it sees all of it
        for checkpoint in checkpoints:
            server.load(checkpoint)
        yield server


def _start(models: Path, log: Path, *, port: int, small: bool) -> subprocess.Popen[bytes]:
    device, dtype = ("cpu", "float32") if small else ("auto", "auto")
    server = [sys.executable, "-P", "-m", "share4video.models.transformers_server"]
    server += ["--port", str(port), "--device", device, "--dtype", dtype]
    package_root = str(Path(share4video.__file__).parents[1])
    inherited = os.environ.get("PYTHONPATH")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([package_root, *([inherited] if inherited else [])]),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if small:
        environment |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "share4video.captioning.supervisor", *server],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            cwd=models,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the owner, who then ends the block
        )


def _wait_until_listening(process: subprocess.Popen[bytes], log: Path) -> int:
    """Return the port. Raises UserError where the server ends or stays silent."""
    assert process.stdout is not None
    deadline = time.monotonic() + START_TIMEOUT_S
    line = b""
    while not line.endswith(b"\n"):
        readable, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))
        if not readable:
            raise _not_started(f"it was not ready after {START_TIMEOUT_S:.0f} s", log)
        block = os.read(process.stdout.fileno(), 4096)
        if not block:
            raise _not_started(_last_line(log), log)
        line += block
    report: dict[str, Any] = json.loads(line)
    if "error" in report:
        raise _not_started(report["error"], log)
    return int(report["port"])


def _not_started(why: str, log: Path) -> UserError:
    return UserError(f"the model server did not start: {why}", where=str(log), fix="read its log")


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "it ended without a word")


def _stop(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()  # the server sees its own pipe close
        process.wait()
    process.stdout.close()


def _check_port_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            what = f"cannot listen on port {port}: {error.strerror}"
            raise UserError(what, where="127.0.0.1", fix="choose another port") from None


def _new_log() -> Path:
    """Return a new log file's path in the work folder; the oldest logs make room for it."""
    folder = work_folder("logs")
    logs = sorted(folder.glob("model-server-*.log"), key=lambda log: log.stat().st_mtime)
    for old in logs[: max(0, len(logs) - _LOGS_KEPT + 1)]:
        old.unlink(missing_ok=True)
    return folder / f"model-server-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
