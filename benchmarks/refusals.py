"""What a gateway refuses, how it says so, and what each refusal costs it.

    python benchmarks/refusals.py --out benchmarks/results/refusals.json

A real gateway process, with the limits it has by default, is sent one attack after the other, most of which
name an address of a server that misbehaves. Seconds are those until the answer; memory is the largest sum of
resident set sizes of the gateway and its decoders, looked at every 10 ms, above what they take when idle.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import psutil
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.attack_host import ADDRESS, AttackHost, attack_host
from benchmarks.attack_media import film, picture
from benchmarks.attacks import ALLOWED_PREFIX, Attack, attacks, host_names
from benchmarks.command import run, write_results
from benchmarks.environment import environment
from serving.gateway.process import Gateway, free_port, gateway_process
from serving.gateway.settings import GatewaySettings

PACKAGES = ("share4video", "kserve", "httpx", "av", "pillow")
LOOK_EVERY_S = 0.01
WARM_UP = 12  # requests at a time: as many threads as there will ever be
_S3 = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}


@dataclass(frozen=True)
class Outcome:
    """What came of one attack.

    Attributes:
        expected: whether status and code are the ones the attack is to get.
        above_idle_mb: in 10^6 bytes.
    """

    attack: str
    status: int
    code: str
    sentence: str
    expected: bool
    seconds: float
    above_idle_mb: float


@dataclass(frozen=True)
class Target:
    """A gateway under attack.

    Attributes:
        scratch: where it puts what it fetches.
    """

    gateway: Gateway
    host: AttackHost
    attacks: list[Attack]
    scratch: Path

    def attack(self, attack: Attack) -> Outcome:
        """Send one attack and look at what it costs."""
        with self._watched() as peak:
            started = time.monotonic()
            status, body = send(self.gateway, attack)
            seconds = time.monotonic() - started
        code, sentence = "", body.decode("utf-8", "replace")
        with suppress(ValueError, LookupError, TypeError):
            error = json.loads(body)["error"]
            code, sentence = error["code"], error["message"]
        expected = (status, code) == (attack.status, attack.code)
        above_idle_mb = round(peak[0] / 1e6, 1)
        return Outcome(attack.name, status, code, sentence, expected, round(seconds, 2), above_idle_mb)

    def left_behind(self) -> dict[str, int]:
        """Count what requests must not leave: files, answers still read, places taken, decoders at work."""
        text = _get(self.gateway, "/metrics").decode()
        places = next(line for line in text.splitlines() if line.startswith("share4video_gateway_in_flight "))
        return {
            "files": len(list(self.scratch.iterdir())),
            "answers": self.host.open_answers,
            "places": int(float(places.split()[1])),
            "decoders": sum(self._reads_scratch(one) for one in self._family() if _decodes(one)),
        }

    def threads(self) -> int:
        """Return how many threads the gateway has; of idle ones it keeps some."""
        return sum(process.num_threads() for process in self._family() if not _decodes(process))

    def _reads_scratch(self, process: psutil.Process) -> bool:
        """Whether a process has one of the fetched files open, which may be deleted by now."""
        with suppress(OSError):
            for handle in Path(f"/proc/{process.pid}/fd").iterdir():
                if os.readlink(handle).startswith(str(self.scratch)):
                    return True
        return False

    def _family(self) -> list[psutil.Process]:
        return psutil.Process(self.gateway.process.pid).children(recursive=True)

    def _memory(self) -> int:
        total = 0
        for process in self._family():
            with suppress(psutil.NoSuchProcess):
                total += process.memory_info().rss
        return total

    @contextmanager
    def _watched(self) -> Iterator[list[int]]:
        """Give a list whose one number is, afterwards, by how many bytes memory rose inside the block."""
        idle, done = self._memory(), threading.Event()
        peak = [0]

        def look() -> None:
            while not done.is_set():
                peak[0] = max(peak[0], self._memory() - idle)
                done.wait(LOOK_EVERY_S)

        watcher = threading.Thread(target=look)
        watcher.start()
        try:
            yield peak
        finally:
            done.set()
            watcher.join()


@contextmanager
def target(folder: Path, **limits: Any) -> Iterator[Target]:
    """Run an attack host and a gateway that may read from it, and warm the gateway up.

    Args:
        folder: an empty one, for the time being.
        limits: settings of the gateway's.
    """
    root, scratch = folder / "root", folder / "scratch"
    root.mkdir()
    scratch.mkdir()
    with attack_host() as host:
        settings = GatewaySettings(
            upstream_url=f"{host.url}/v1",
            model_name="attacked",
            host="127.0.0.1",
            port=free_port(),
            allowed_hosts=host_names(host.port),
            allowed_networks=(ipaddress.ip_network(f"{ADDRESS}/32"),),
            s3_prefixes=(ALLOWED_PREFIX,),
            file_root=root,
            **limits,
        )
        variables = {**_S3, "AWS_ENDPOINT_URL": host.url, "TMPDIR": str(scratch)}
        with _environment(variables), gateway_process(settings, log=folder / "gateway.log") as gateway:
            found = Target(gateway, host, attacks(host, root), scratch)
            _warm_up(found)
            yield found


def send(gateway: Gateway, attack: Attack) -> tuple[int, bytes]:
    """Send an attack's request; return status and body of the answer."""
    connection = http.client.HTTPConnection(urlsplit(gateway.url).netloc, timeout=600)
    blocks = attack.blocks()
    first = next(blocks)
    connection.putrequest("POST", "/v1/chat/completions")
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Content-Length", str(attack.announced or len(first)))
    connection.endheaders()
    with suppress(OSError):  # it has answered and hung up
        connection.send(first)
        sent = len(first)
        for block in blocks:
            if sent + len(block) > (attack.announced or 0):
                break
            connection.send(block)
            sent += len(block)
    try:
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def _warm_up(found: Target) -> None:
    """Let the gateway start the decoders and threads, and import what, its first requests make it import."""
    clip = film([picture(64, 48)] * 2, [0, 1], width=64, height=48)
    found.host.files["/clip"] = "video/mp4", clip
    asked = [Attack("warm-up", 0, "", f"{found.host.url}/clip") for _ in range(WARM_UP)]
    asked += [Attack("warm-up", 0, "", f"{ALLOWED_PREFIX}none")]
    threads = [threading.Thread(target=send, args=(found.gateway, one)) for one in asked]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _get(gateway: Gateway, path: str) -> bytes:
    connection = http.client.HTTPConnection(urlsplit(gateway.url).netloc, timeout=60)
    connection.request("GET", path)
    try:
        return connection.getresponse().read()
    finally:
        connection.close()


def _decodes(process: psutil.Process) -> bool:
    try:
        return "share4video.media.worker" in process.cmdline()
    except psutil.NoSuchProcess:
        return False


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def table(outcomes: list[Outcome]) -> Table:
    """Return the outcomes for a person."""
    drawn = Table("attack", "answer", "sentence", "s", "MB above idle")
    for one in outcomes:
        answer = f"{one.status} {one.code}" + ("" if one.expected else " (not as expected)")
        drawn.add_row(
            one.attack, answer, one.sentence[:100], f"{one.seconds:.2f}", f"{one.above_idle_mb:.0f}"
        )
    return drawn


def main(
    out: Annotated[Path | None, typer.Option(help="Where the results go, as JSON.")] = None,
    fetch_timeout_s: Annotated[float, typer.Option(help="What a fetch may take.")] = 30.0,
    decode_timeout_s: Annotated[float, typer.Option(help="What decoding may take.")] = 60.0,
) -> None:
    """Attack a gateway and print what came of it; exit 1 where an attack got another answer than it is to."""
    limits = {"fetch_timeout_s": fetch_timeout_s, "decode_timeout_s": decode_timeout_s}
    with tempfile.TemporaryDirectory() as folder, target(Path(folder).resolve(), **limits) as found:
        before = found.threads()
        outcomes = [found.attack(attack) for attack in found.attacks]
        deadline = time.monotonic() + 10
        while any((left := found.left_behind()).values()) and time.monotonic() < deadline:
            time.sleep(0.1)
        more_threads = max(0, found.threads() - before)
    Console().print(table(outcomes))
    Console().print(f"{len(outcomes)} attacks; left behind: {left}, {more_threads} threads")
    results = {
        "measured": "answers of a gateway to requests it must refuse, their time and memory",
        "limits": limits,
        "attacks": [asdict(one) for one in outcomes],
        "left_behind": {**left, "threads": more_threads},
        **environment(PACKAGES),
        "command": " ".join(["python", "benchmarks/refusals.py", *sys.argv[1:]]),
    }
    write_results(out, results)
    if not all(one.expected for one in outcomes):
        raise SystemExit(1)


if __name__ == "__main__":
    run(main)
