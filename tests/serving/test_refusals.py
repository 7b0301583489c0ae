"""What a gateway refuses, that it says why, what that costs it, and that nothing is left of it."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx
import pytest

from benchmarks.attacks import ALLOWED_PREFIX, Attack
from benchmarks.refusals import Outcome, Target, send, table, target

FETCH_S, DECODE_S, STALL_S = 1.5, 4.0, 1.0
MAX_VIDEO_BYTES = 16 << 20
ON_THE_WAY_BYTES = 16 << 20  # that a host has sent and a gateway has not read
# A decoder may take 1 GiB, the largest picture taken 28 MB; 3 GiB of a file would show.
MAX_ABOVE_IDLE_MB = 600.0
KEPT_THREADS = min(32, (os.cpu_count() or 1) + 4)  # that an event loop keeps for the next work, at most


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Target, list[Outcome]]]:
    folder = tmp_path_factory.mktemp("attacked").resolve()
    verbose = tmp_path_factory.mktemp("verbose")
    (verbose / "sitecustomize.py").write_text("import logging\nlogging.basicConfig(level=logging.DEBUG)\n")
    limits = {"fetch_timeout_s": FETCH_S, "decode_timeout_s": DECODE_S, "upload_stall_s": STALL_S}
    with pytest.MonkeyPatch.context() as patch, ExitStack() as held:
        patch.setenv("PYTHONPATH", str(verbose), prepend=os.pathsep)
        found = held.enter_context(target(folder, **limits, max_video_bytes=MAX_VIDEO_BYTES))
        threads = found.threads()
        outcomes = [found.attack(attack) for attack in found.attacks]
        wait_until(lambda: not any(found.left_behind().values()))
        assert found.threads() <= threads + KEPT_THREADS
        yield found, outcomes


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A gateway that would wait for minutes, and decodes one file at a time."""
    folder = tmp_path_factory.mktemp("patient").resolve()
    with target(folder, fetch_timeout_s=250.0, decode_timeout_s=250.0, max_decoders=1) as found:
        yield found


@pytest.mark.timeout(600)
def test_every_attack_is_refused_with_its_reason(attacked: tuple[Target, list[Outcome]]) -> None:
    _, outcomes = attacked
    assert len(outcomes) > 80
    assert [one for one in outcomes if not one.expected] == []
    assert all(400 <= one.status < 500 for one in outcomes)


def test_reasons_are_sentences_that_give_nothing_away(attacked: tuple[Target, list[Outcome]]) -> None:
    found, outcomes = attacked
    for one in outcomes:
        assert one.sentence.endswith(".")
        assert "\n" not in one.sentence
        for secret in ("Traceback", "secret:", "user:", str(found.scratch), "X-Amz-", "root:x"):
            assert secret not in one.sentence


def test_what_would_not_end_is_ended_by_the_setting_for_it(attacked: tuple[Target, list[Outcome]]) -> None:
    _, outcomes = attacked
    fetched = [one.sentence for one in outcomes if one.code == "media_timeout"]
    assert len(fetched) >= 6
    assert all(f" in {FETCH_S:g} seconds" in sentence for sentence in fetched)
    (sent,) = [one.sentence for one in outcomes if one.code == "body_too_slow"]
    assert f"stopped coming for {STALL_S:g} seconds" in sent
    (decoded,) = [one.sentence for one in outcomes if one.attack == "JPEG of 60,000 scans"]
    assert f"longer than the {DECODE_S:g} s allowed" in decoded


def test_signed_addresses_are_in_no_log(attacked: tuple[Target, list[Outcome]]) -> None:
    found, _ = attacked
    said = found.gateway.log.read_text()
    assert "DEBUG:asyncio" in said  # all is logged that anybody would log
    assert "X-Amz-Signature" not in said


def test_refusals_take_little_memory(attacked: tuple[Target, list[Outcome]]) -> None:
    _, outcomes = attacked
    assert [one for one in outcomes if one.above_idle_mb > MAX_ABOVE_IDLE_MB] == []


def test_no_more_is_read_of_a_host_than_a_clip_may_have(attacked: tuple[Target, list[Outcome]]) -> None:
    found, _ = attacked
    poured = {path.partition("?")[0]: count for path, count in found.host.sent.items()}
    assert {"/endless", "/chunked", "/clips/allowed/endless"} <= set(poured)
    assert {path: count for path, count in poured.items() if count > MAX_VIDEO_BYTES + ON_THE_WAY_BYTES} == {}
    for announced in ("/declared", "/clips/allowed/declared"):
        assert poured.get(announced, 0) <= ON_THE_WAY_BYTES


def test_outcomes_are_drawn(attacked: tuple[Target, list[Outcome]]) -> None:
    _, outcomes = attacked
    assert table(outcomes).row_count == len(outcomes)


@pytest.mark.parametrize("how", ["http", "s3", "silent", "decoding"])
def test_an_abandoned_request_leaves_nothing(patient: Target, how: str) -> None:
    scans = next(one for one in patient.attacks if one.name == "JPEG of 60,000 scans")
    attack = {
        "http": Attack(how, 0, "", f"{patient.host.url}/drip"),
        "s3": Attack(how, 0, "", f"{ALLOWED_PREFIX}drip"),
        "silent": Attack(how, 0, "", f"{patient.host.url}/silent"),
        "decoding": scans,
    }[how]
    threads = patient.threads()
    with ExitStack() as held:
        clients = [held.enter_context(abandoned(patient, attack)) for _ in range(3)]
        wait_until(lambda: patient.left_behind()["places"] == len(clients))
        wait_until(lambda: patient.left_behind()["files"] == len(clients))
        if how == "decoding":
            wait_until(lambda: patient.left_behind()["decoders"] == 1)
        else:
            wait_until(lambda: patient.left_behind()["answers"] == len(clients))
    wait_until(lambda: not any(patient.left_behind().values()))
    assert patient.threads() <= threads + KEPT_THREADS
    assert decodes(patient)


def test_a_store_that_is_late_is_not_waited_for_by_a_thread(
    attacked: tuple[Target, list[Outcome]],
) -> None:
    """As many as would take every thread the gateway has, and more."""
    found, _ = attacked
    late = Attack("late", 0, "", f"{ALLOWED_PREFIX}drip")
    waiting = [threading.Thread(target=send, args=(found.gateway, late)) for _ in range(40)]
    for thread in waiting:
        thread.start()
    wait_until(lambda: found.left_behind()["places"] > 0)
    answer = send(found.gateway, Attack("clip", 0, "", f"{found.host.url}/clip"))
    assert json.loads(answer[1])["error"]["code"] == "upstream_failed"  # it was fetched and decoded
    for thread in waiting:
        thread.join()
    wait_until(lambda: not any(found.left_behind().values()))


def abandoned(found: Target, attack: Attack) -> socket.socket:
    """Return a connection on which a request was sent; closing it abandons the request."""
    body = b"".join(attack.blocks())
    client = socket.create_connection(("127.0.0.1", httpx.URL(found.gateway.url).port or 0), timeout=60)
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return client


def decodes(found: Target) -> bool:
    """Whether a sound clip gets as far as the model, of which there is none here."""
    _, body = send(found.gateway, Attack("clip", 0, "", f"{found.host.url}/clip"))
    return str(json.loads(body)["error"]["code"]) == "upstream_failed"


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
