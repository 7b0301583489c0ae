"""Locks with fencing tokens, built on nothing but a store's ``put_if_absent`` and ``list``.

    KEY/00000007     token 7: who holds it and until when; whoever creates the next number holds the lock

The highest number is the lock. Taking it is creating the next number, which only one process can do, and
only once the holder has released it, has let it expire or is known to be dead. A holder rewrites its own
number to renew it, so no record ever has two writers. Numbers never go down: a holder that was overtaken
while it slept sees a higher one and must not write (``check_token``).
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from share4video.store import Store

DEFAULT_TTL_S = 60.0
START_TOLERANCE_S = 5.0  # the kernel's boot time, and with it a process's start time, moves with the clock

log = logging.getLogger(__name__)


class LockLost(RuntimeError):
    """Another process took the lock over; nothing more may be written under the old token."""


class Holder(BaseModel):
    """One token's record. ``expires_s`` is Unix time in seconds, 0 once released."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    owner: str = ""
    host: str = ""
    pid: int = 0
    started_s: float = 0.0
    expires_s: float = 0.0

    @property
    def host_name(self) -> str:
        return self.host.partition("/")[0]

    def is_gone(self) -> bool:
        """Whether the lock is free: released, expired, or held by a process of this host that is dead."""
        if self.expires_s <= time.time():
            return True
        return self.host == _this_host() and not _is_alive(self.pid, self.started_s)


@contextmanager
def hold(store: Store, key: str, ttl_s: float = DEFAULT_TTL_S) -> Iterator[int]:
    """Hold the lock ``key`` for the time of the context, waiting for it first; yield its token.

    A thread renews the lock every third of ``ttl_s``. A holder that dies on this host frees it at once, one
    that dies elsewhere within ``ttl_s`` seconds. Clocks that differ between hosts by more than that can only
    make a holder lose the lock early, which ``check_token`` tells it; so can a host that sleeps for longer.
    """
    owner = uuid.uuid4().hex
    token = _take(store, key, ttl_s, owner)
    stop = threading.Event()
    beat = threading.Thread(target=_renew, args=(store, key, token, ttl_s, owner, stop), daemon=True)
    beat.start()
    try:
        yield token
    finally:
        stop.set()
        beat.join()
        store.put(_record(key, token), _bytes(Holder()))


def current_token(store: Store, key: str) -> int:
    """Return the highest token ever given out for ``key``, 0 where there was none."""
    return max((_token(name) for name in store.list(key)), default=0)


def check_token(store: Store, key: str, token: int) -> None:
    """Raise LockLost unless ``token`` is still the last one given out."""
    latest = current_token(store, key)
    if latest != token:
        raise LockLost(f"{key}: token {token} was overtaken by {latest}")


def _take(store: Store, key: str, ttl_s: float, owner: str) -> int:
    told = False
    while True:
        latest = current_token(store, key)
        holder = _read(store, key, latest) if latest else Holder()
        if holder is not None and holder.is_gone():
            token = latest + 1
            if store.put_if_absent(_record(key, token), _bytes(_myself(owner, ttl_s))):
                if current_token(store, key) == token:
                    _clear_below(store, key, token)
                    return token
                # We slept through a whole turn and made a number that had been cleared away.
                store.delete(_record(key, token))
        elif holder is not None and not told:
            log.warning("waiting for process %d on %s, which writes %s", holder.pid, holder.host_name, key)
            told = True
        time.sleep(min(0.5, ttl_s / 10))


def _clear_below(store: Store, key: str, token: int) -> None:
    for name in store.list(key):
        if _token(name) < token:
            store.delete(name)


def _renew(store: Store, key: str, token: int, ttl_s: float, owner: str, stop: threading.Event) -> None:
    while not stop.wait(ttl_s / 3):
        try:
            store.put(_record(key, token), _bytes(_myself(owner, ttl_s)))
        except Exception as error:  # a beat may be missed; a lost lock is found by check_token
            log.warning("could not renew the lock %s: %s", key, error)


def _record(key: str, token: int) -> str:
    return f"{key}/{token:08d}"


def _token(record: str) -> int:
    return int(record.rpartition("/")[2])


def _read(store: Store, key: str, token: int) -> Holder | None:
    try:
        return Holder.model_validate_json(store.get(_record(key, token)))
    except KeyError:
        return None  # cleared away by a later holder since it was listed


def _bytes(holder: Holder) -> bytes:
    return holder.model_dump_json().encode()


def _myself(owner: str, ttl_s: float) -> Holder:
    pid = os.getpid()
    started_s = psutil.Process(pid).create_time()
    return Holder(owner=owner, host=_this_host(), pid=pid, started_s=started_s, expires_s=time.time() + ttl_s)


@cache
def _this_host() -> str:
    """Name the machine and the process namespace, within which a pid means one process."""
    name = socket.gethostname()
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{name}/{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # not Linux: the host name must do
        return name


def _is_alive(pid: int, started_s: float) -> bool:
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return abs(process.create_time() - started_s) < START_TOLERANCE_S
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
