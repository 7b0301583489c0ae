"""Engines: from an `EngineSpec` to a running endpoint, and from there to answers.

Where an engine runs never shows in what is published: tables and store keys hold ``model@revision``.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from urllib.parse import urlsplit

from share4video.captioning.checkpoints import checkpoint_bytes, checkpoint_folder, checkpoint_revision
from share4video.captioning.client import (
    CallError,
    ChatClient,
    ChatRequest,
    Completion,
    Endpoint,
    image_part,
    text_part,
)
from share4video.captioning.model_server import (
    SERVER_VARIABLE,
    SMALL_MODEL_BYTES,
    ModelServer,
    running_server,
    serve_models,
)
from share4video.captioning.tiles import check_grids
from share4video.config import EngineSpec
from share4video.errors import UserError
from share4video.served_models import API_KEY_VARIABLE, NO_KEY

__all__ = [
    "CallError",
    "ChatClient",
    "ChatRequest",
    "Completion",
    "Endpoint",
    "answer_all",
    "connect",
    "connect_all",
    "identity",
    "image_part",
    "resolve",
    "shared_server",
    "text_part",
]

ENDPOINTS_VARIABLE = "SHARE4VIDEO_ENDPOINTS"
UNVERSIONED = "unversioned"
_CONNECT_TIMEOUT_S = 10.0


def resolve(spec: EngineSpec) -> EngineSpec:
    """Fill in model and revision: of a local checkpoint, its folder's name and the hash of its files.

    The revision of an endpoint elsewhere cannot be looked up; where none is given it is ``unversioned``.

    Raises:
        UserError: the checkpoint is missing or damaged or takes no such tiles as the spec has, or an
            endpoint's model is not named.
    """
    if spec.model_path is not None:
        folder = checkpoint_folder(spec.model_path)
        if spec.tiles is not None:
            check_grids(folder, spec.tiles)
        revision = spec.revision or checkpoint_revision(folder)
        return spec.model_copy(update={"model": spec.model or folder.name, "revision": revision})
    model = spec.model or spec.inference_service or ""
    if not model:
        raise UserError("the engine's model is not named", where=str(spec.url), fix="set the model's name")
    return spec.model_copy(update={"model": model, "revision": spec.revision or UNVERSIONED})


def identity(spec: EngineSpec) -> str:
    """Return ``model@revision``, what outputs depend on. Resolves the spec where that is still to be done."""
    resolved = spec if spec.model and spec.revision else resolve(spec)
    return f"{resolved.model}@{resolved.revision}"


@contextmanager
def connect(spec: EngineSpec) -> Iterator[Endpoint]:
    """Yield a running endpoint for ``spec``.

    In this order: an endpoint that the environment names for this revision; the spec's own address; the
    model server that the process which started this one shares; a server of our own until the block ends.

    Raises:
        UserError: the engine cannot be resolved or started.
    """
    spec = resolve(spec)
    base_url, _, model = _named_endpoints().get(identity(spec), "").partition("#")
    shared = running_server() if spec.model_path is not None else None
    log = str(shared.log) if shared else ""
    if base_url and (spec.model_path is None or _listens(base_url)):
        yield _endpoint(base_url, model or spec.model, spec, log)
    elif spec.url is not None:
        yield _endpoint(spec.url.rstrip("/"), spec.model, spec)
    elif spec.inference_service is not None:
        yield _endpoint(_service_url(spec.inference_service), spec.model, spec)
    else:
        assert spec.model_path is not None
        folder = checkpoint_folder(spec.model_path)
        if shared is not None and checkpoint_bytes(folder) <= SMALL_MODEL_BYTES:
            yield _endpoint(shared.base_url, shared.load(folder), spec, log, shared.replicas)
        else:
            with serve_models([folder]) as server:
                yield _endpoint(server.base_url, server.load(folder), spec, str(server.log))


@contextmanager
def shared_server(specs: Sequence[EngineSpec], *, port: int | None = None) -> Iterator[ModelServer]:
    """Serve every local checkpoint among ``specs`` in one process, and tell child processes of it.

    Inside the block `connect`, here and in processes started from here, finds these models running, and can
    have the server load further small ones (the model a run has just trained).

    Raises:
        UserError: a checkpoint is missing or damaged, or the server does not start.
    """
    local = {identity(s): checkpoint_folder(s.model_path) for s in specs if s.model_path is not None}
    with serve_models(list(local.values()), port=port) as server:
        known = _named_endpoints()
        known |= {name: f"{server.base_url}#{server.load(folder)}" for name, folder in local.items()}
        with environment_of({ENDPOINTS_VARIABLE: json.dumps(known), SERVER_VARIABLE: str(server.folder)}):
            yield server


@contextmanager
def connect_all(specs: Sequence[EngineSpec]) -> Iterator[list[Endpoint]]:
    """Yield a running endpoint for each of ``specs``, as `connect` does, with that spec's own settings.

    Those that name one model at one place share it. Local checkpoints that nobody serves yet are served by
    one process for all of them.

    Raises:
        UserError: an engine cannot be resolved or started, or two different checkpoints go by one name.
    """
    resolved = [resolve(spec) for spec in specs]
    distinct = {_place(spec): spec for spec in resolved}
    local = [spec for spec in distinct.values() if spec.model_path is not None]
    _refuse_namesakes(local)
    with ExitStack() as stack:
        if len(local) > 1 and running_server() is None:
            stack.enter_context(shared_server(local))
        endpoints = {place: stack.enter_context(connect(spec)) for place, spec in distinct.items()}
        yield [replace(endpoints[_place(spec)], spec=spec) for spec in resolved]


def _place(spec: EngineSpec) -> tuple[str, str]:
    """Return what a resolved spec asks, and where: engines that differ in no more share a server."""
    if spec.model_path is not None:
        return identity(spec), str(checkpoint_folder(spec.model_path))
    return identity(spec), (spec.url or _service_url(spec.inference_service or "")).rstrip("/")


def _refuse_namesakes(local: Sequence[EngineSpec]) -> None:
    """Check that resolved specs of one name, by which a server is found, are of one checkpoint."""
    known: dict[str, str] = {}
    for spec in local:
        first = known.setdefault(identity(spec), spec.model_path or "")
        if first != spec.model_path and len({_content(path) for path in (first, spec.model_path)}) > 1:
            raise UserError(
                f"two different checkpoints are both named {identity(spec)}",
                where=f"{first} and {spec.model_path}",
                fix="give them different names, or leave the revision out",
            )


def _content(model_path: str | None) -> str:
    return checkpoint_revision(checkpoint_folder(model_path or ""))


def answer_all(
    endpoint: Endpoint,
    requests: Mapping[str, Callable[[], ChatRequest]],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Completion | CallError]:
    """Send every request, as many at a time as the engine takes, and return the answers by the requests' ids.

    Args:
        requests: how to build each request; built when its turn comes, so that images need not all be in
            memory.
        progress: called with (answered, total).

    Raises:
        UserError: the engine refuses the key, knows no such model, or answered nothing at all.
    """
    return asyncio.run(_answer_all(endpoint, requests, progress))


async def _answer_all(
    endpoint: Endpoint,
    requests: Mapping[str, Callable[[], ChatRequest]],
    progress: Callable[[int, int], None] | None,
) -> dict[str, Completion | CallError]:
    answers: dict[str, Completion | CallError] = {}
    waiting = iter(requests.items())

    async def work(client: ChatClient) -> None:
        for name, build in waiting:
            request = await asyncio.to_thread(build)
            try:
                answers[name] = await client.ask(request)
            except CallError as error:
                answers[name] = error
            if progress is not None:
                progress(len(answers), len(requests))

    async with ChatClient(endpoint) as client:
        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(min(endpoint.spec.max_in_flight, len(requests))):
                    tasks.create_task(work(client))
        except BaseExceptionGroup as group:
            raise user_error_in(group) or group from None
    failed = [answer for answer in answers.values() if isinstance(answer, CallError)]
    if failed and len(failed) == len(answers) and failed[0].reason != "refused":
        raise engine_silent(endpoint, failed[0])
    return {name: answers[name] for name in requests}


def engine_silent(endpoint: Endpoint, error: CallError) -> UserError:
    """Return what to tell a person whose engine does not answer (any more)."""
    return _engine_error(endpoint, "the engine does not answer", error, "check that it runs, then run again")


def engine_refuses(endpoint: Endpoint, error: CallError) -> UserError:
    """Return what to tell a person whose engine refuses every request; ``error`` is the first refusal."""
    fix = (
        "check that the model takes pictures and texts of this size, and system messages (with the engine's "
        "system_message: false none are sent), then run again"
    )
    return _engine_error(endpoint, "the engine refuses every request", error, fix)


def _engine_error(endpoint: Endpoint, what: str, error: CallError, fix: str) -> UserError:
    if endpoint.log:
        fix = f"{fix}; the server's log is {endpoint.log}"
    return UserError(f"{what}: {str(error).rstrip('.')}", where=endpoint.spec.model, fix=fix)


def user_error_in(group: BaseExceptionGroup[BaseException]) -> UserError | None:
    """Return the first user's error among those a task group ended with."""
    for error in group.exceptions:
        found = user_error_in(error) if isinstance(error, BaseExceptionGroup) else error
        if isinstance(found, UserError):
            return found
    return None


def _named_endpoints() -> dict[str, str]:
    """Return what the environment names: ``model@revision`` to ``base_url#served name``."""
    named: dict[str, str] = json.loads(os.environ.get(ENDPOINTS_VARIABLE) or "{}")
    return named


def _listens(base_url: str) -> bool:
    """Whether anything listens there; a server that ended with its owner may still be named."""
    address = urlsplit(base_url)
    try:
        with socket.create_connection(
            (address.hostname or "", address.port or 80), timeout=_CONNECT_TIMEOUT_S
        ):
            return True
    except OSError:
        return False


def _endpoint(
    base_url: str, model: str, spec: EngineSpec, log: str = "", replicas: tuple[str, ...] = ()
) -> Endpoint:
    key = os.environ.get(API_KEY_VARIABLE) or NO_KEY
    key = key if spec.model_path is None else NO_KEY
    return Endpoint(base_url, model, spec, log=log, api_key=key, replicas=replicas)


def _service_url(name: str) -> str:
    """Return the address of a KServe predictor in standard mode, named ``service`` or ``service.namespace``.

    The gateway in the predictor's pod answers ``/v1``, whatever runtime is behind it.
    """
    service, _, namespace = name.partition(".")
    return f"http://{service}-predictor{f'.{namespace}' if namespace else ''}/v1"


@contextmanager
def environment_of(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables for this process and those it starts, until the block ends."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
