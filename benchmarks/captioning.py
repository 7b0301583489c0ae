"""Captioning at scale: how near to ideal the calls are packed, memory of what waits, and what kills cost.

    python benchmarks/captioning.py --out benchmarks/results/captioning.json

The endpoint is simulated (``simulated_endpoint.py``): real HTTP from a process of its own, 64 slots and a
queue, and for every request a lognormal time that is a function of the request. So the work is known and the
same for everybody. Clips have 1 to 40 key frames and take a call for each and one for the summary.

* Time: the stage from the published key frames to the published captions, with 80 calls in flight. Ideal is
  the larger of all work over 64 and the longest chain. Beside it the released code's pool, in lock step, over
  the first of the same clips (``--lock-step-clips``, because it takes long), against the ideal of those.
* Memory: the largest resident memory of the captioning process with 10,000 and 100,000 clips waiting, in a
  process each, from its start through the loading of its shard to ``--memory-calls`` calls.
* Kills: SIGKILL at random moments, most of them between calls and some while the shard is loaded. Calls in
  flight at a kill are those that the endpoint had received and the journal did not hold; no others may be
  repeated. The output must be byte for byte that of a run without kills.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console

from benchmarks.bars import Bar, bars_table
from benchmarks.captioning_runs import Run, lengths, publish
from benchmarks.command import run, write_results
from benchmarks.environment import ROOT, environment
from share4video.dataset.manifest import StageRef
from share4video.dataset.shards import read_table
from share4video.store import LocalStore, Store
from share4video.work import WORK_VARIABLE

SLOTS, IN_FLIGHT = 64, 80  # so many more than slots that one that becomes free finds a call in the queue
SHARE_OF_IDEAL, MEMORY_MB, MEMORY_GROWTH = 0.9, 500.0, 1.05
SIGMA = 0.6  # of the lognormal time of a call: one in twenty takes more than 2.2 times the mean
KILLED_IN_FLIGHT = 16
KILLED_WHILE_LOADING = 0.2  # share of the kills that come so soon
PACKAGES = ("share4video", "httpx", "numpy", "openai", "pyarrow", "tenacity")


class Simulated:
    """An endpoint that runs."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._http = httpx.Client(base_url=url.removesuffix("/v1"), trust_env=False)

    def stats(self) -> dict[str, Any]:
        found: dict[str, Any] = self._http.get("/stats").json()
        return found


@contextmanager
def simulated(mean_s: float) -> Iterator[Simulated]:
    """Run an endpoint whose calls take ``mean_s`` on average."""
    command = [sys.executable, str(ROOT / "benchmarks" / "simulated_endpoint.py")]
    with subprocess.Popen(
        [*command, str(mean_s), str(SIGMA), str(SLOTS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield Simulated(f"http://127.0.0.1:{int(process.stdout.readline())}/v1")
        finally:
            process.stdin.close()
            process.wait(30)


def start(way: str, given: Run) -> subprocess.Popen[str]:
    """Begin a run in a process of its own, with a work folder beside its store."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT), WORK_VARIABLE: f"{given.root}-work"}
    command = [sys.executable, "-m", "benchmarks.captioning_runs", way, json.dumps(asdict(given))]
    return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True)


def finished(way: str, given: Run) -> dict[str, Any]:
    """Do a run; return what it printed."""
    with start(way, given) as process:
        said, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"the {way} run ended with {process.returncode}")
    result: dict[str, Any] = json.loads(said)
    return result


def published(root: Path, counts: Sequence[int], side: int) -> Run:
    """Publish clips of so many key frames; the run has no endpoint yet."""
    clips, keyframes = publish(Store.open(str(root)), counts, side)
    return Run(str(root), str(clips), str(keyframes), "", IN_FLIGHT)


def measure_time(
    folder: Path, *, clips: int, lock_step_clips: int, mean_s: float, side: int, seed: int
) -> dict[str, Any]:
    """Time the stage and the lock step against their ideals."""
    given = published(folder / "time", lengths(clips, seed), side)
    with simulated(mean_s) as endpoint:
        given = replace(given, url=endpoint.url)
        load = [round(one, 2) for one in os.getloadavg()]
        ours = finished("stage", given)
        seen = endpoint.stats()
        theirs = finished("lock-step", replace(given, clips=lock_step_clips, in_flight=SLOTS))
        after = endpoint.stats()
    if after["distinct"] != seen["distinct"]:
        raise RuntimeError("the lock step asked for something else than the stage did")
    chains = chains_s(Store.open(given.root), StageRef.parse(ours["ref"]))
    first = {clip_id: chains[clip_id] for clip_id in sorted(chains)[:lock_step_clips]}
    ideal_s, lock_step_ideal_s = ideal(chains), ideal(first)
    return {
        "clips": clips,
        "calls": seen["received"],
        "max_in_flight": IN_FLIGHT,
        "work_s": round(sum(chains.values()), 1),
        "longest_chain_s": round(max(chains.values()), 1),
        "ideal_s": round(ideal_s, 1),
        "seconds": round(ours["seconds"], 1),
        "share_of_ideal": round(ideal_s / ours["seconds"], 4),
        "load_before": load,
        "lock_step": {
            "clips": len(first),
            "pool": SLOTS,
            "ideal_s": round(lock_step_ideal_s, 1),
            "seconds": round(theirs["seconds"], 1),
            "share_of_ideal": round(lock_step_ideal_s / theirs["seconds"], 4),
        },
    }


def chains_s(store: Store, ref: StageRef) -> dict[str, float]:
    """Return how long the endpoint worked on each clip's calls, as its answers tell."""
    worked: Counter[str] = Counter()
    for table in ("differentials", "captions"):
        columns = read_table(store, ref, table).select(["clip_id", "prompt_tokens"]).to_pydict()
        for clip_id, milliseconds in zip(columns["clip_id"], columns["prompt_tokens"], strict=True):
            worked[clip_id] += milliseconds
    return {clip_id: milliseconds / 1000 for clip_id, milliseconds in worked.items()}


def ideal(chains: dict[str, float]) -> float:
    """Return the least time in which the endpoint can work through the chains, in seconds."""
    return max(sum(chains.values()) / SLOTS, max(chains.values()))


def measure_memory(folder: Path, *, queued: Sequence[int], calls: int, seed: int) -> dict[str, Any]:
    """Take the peak memory with so many clips waiting; a budget of tokens ends each run."""
    mean_s = 0.05
    peaks = {}
    for clips in queued:
        given = published(folder / f"memory-{clips}", lengths(clips, seed), 16)
        with simulated(mean_s) as endpoint:
            tokens = round(calls * 1000 * mean_s)
            ended = finished("stage", replace(given, url=endpoint.url, max_tokens_total=tokens))
            received = endpoint.stats()["received"]
        peaks[str(clips)] = {"peak_mb": round(ended["peak_mb"], 1), "calls": received}
        if "budget" not in ended["stopped"]:
            raise RuntimeError(f"{clips} clips did not last until the budget was spent")
    first, *_, last = (peak["peak_mb"] for peak in peaks.values())
    return {"queued": peaks, "growth": round(last / first, 4)}


def measure_kills(folder: Path, *, kills: int, clips: int, seed: int) -> dict[str, Any]:
    """Kill the stage at random moments, let it finish, and compare with a run left alone."""
    counts, rng = lengths(clips, seed), random.Random(seed)
    calls = sum(counts) + len(counts)
    calm, killed = (
        replace(published(folder / name, counts, 16), in_flight=KILLED_IN_FLIGHT)
        for name in ("calm", "killed")
    )
    with simulated(0.05) as endpoint:
        expected = finished("stage", replace(calm, url=endpoint.url))
    in_flight: list[int] = []
    with simulated(0.05) as endpoint:
        killed = replace(killed, url=endpoint.url)
        for _ in range(kills):
            further = rng.randint(1, max(1, int(1.6 * calls / kills)))
            begun = endpoint.stats()["received"]
            with start("stage", killed) as process:
                if rng.random() < KILLED_WHILE_LOADING:
                    time.sleep(2 * rng.random())
                else:
                    while endpoint.stats()["received"] < begun + further and process.poll() is None:
                        time.sleep(0.002)
                if process.poll() is not None:
                    break  # it was through
                process.send_signal(signal.SIGSTOP)
                time.sleep(0.1)  # what it had sent arrives
                lost = endpoint.stats()["received"] - sum(in_flight) - _answers(Path(f"{killed.root}-work"))
                in_flight.append(lost)
                os.kill(process.pid, signal.SIGKILL)
        ended = finished("stage", killed)
        seen = endpoint.stats()
    return {
        "kills": len(in_flight),
        "calls": calls,
        "in_flight_at_the_kills": sum(in_flight),
        "most_in_flight": max(in_flight, default=0),
        "calls_repeated": seen["received"] - seen["distinct"],
        "files_that_differ": _files_that_differ((calm.root, expected["ref"]), (killed.root, ended["ref"])),
    }


def _answers(work: Path) -> int:
    """Return how many answers journals hold."""
    return sum(path.read_bytes().count(b"\n") for path in work.glob("journals/*.jsonl"))


def _files_that_differ(*outputs: tuple[str, str]) -> int:
    """Return how many files of two published outputs are not the same in both, by name and content."""
    files: list[dict[str, bytes]] = []
    for root, ref in outputs:
        store = LocalStore(Path(root))
        files.append({key: store.get(key) for key in store.list(StageRef.parse(ref).prefix)})
    one, other = files
    return sum(one.get(key) != other.get(key) for key in one.keys() | other.keys())


def bars(results: dict[str, Any]) -> list[Bar]:
    """Return what was to be shown, with what was measured."""
    timed, memory, kills = results["time"], results["memory"], results["kills"]
    clips, largest = list(memory["queued"].items())[-1]
    unaccounted = kills["calls_repeated"] - kills["in_flight_at_the_kills"]
    return [
        Bar("ideal time over the stage's", timed["share_of_ideal"], f">= {SHARE_OF_IDEAL}"),
        Bar(f"MB with {clips} clips waiting", largest["peak_mb"], f"<= {MEMORY_MB}"),
        Bar("the same over that of the fewest", memory["growth"], f"<= {MEMORY_GROWTH}"),
        Bar("calls repeated beyond those in flight at the kills", unaccounted, "<= 0"),
        Bar("published files the kills changed", kills["files_that_differ"], "<= 0"),
    ]


def measure(
    folder: Path,
    *,
    clips: int,
    lock_step_clips: int,
    mean_s: float,
    side: int,
    queued: Sequence[int],
    memory_calls: int,
    kills: int,
    killed_clips: int,
    seed: int,
) -> dict[str, Any]:
    """Measure everything below ``folder``."""
    results: dict[str, Any] = {
        "measured": "captioning of many clips by one endpoint: time, memory, and what kills cost",
        "endpoint": {"slots": SLOTS, "mean_s": mean_s, "sigma": SIGMA},
        "seed": seed,
        "time": measure_time(
            folder, clips=clips, lock_step_clips=lock_step_clips, mean_s=mean_s, side=side, seed=seed
        ),
        "memory": measure_memory(folder, queued=queued, calls=memory_calls, seed=seed),
        "kills": measure_kills(folder, kills=kills, clips=killed_clips, seed=seed),
    }
    return {**results, "bars": [bar.to_json() for bar in bars(results)]}


def main(
    clips: Annotated[int, typer.Option(help="How many clips are timed.")] = 2000,
    lock_step_clips: Annotated[int, typer.Option(help="How many of them in lock step.")] = 400,
    mean_s: Annotated[float, typer.Option(help="How long the timed calls take on average.")] = 1.0,
    memory_calls: Annotated[int, typer.Option(help="About how many calls are made for memory.")] = 5000,
    kills: Annotated[int, typer.Option(help="How often the stage is killed.")] = 50,
    seed: Annotated[int, typer.Option(help="Of the clips' lengths and the moments of the kills.")] = 1,
    out: Annotated[Path | None, typer.Option("--out", help="Where to write the results.")] = None,
) -> None:
    """Measure, and hold the results against their bars."""
    with tempfile.TemporaryDirectory() as folder:
        results = measure(
            Path(folder),
            clips=clips,
            lock_step_clips=lock_step_clips,
            mean_s=mean_s,
            side=128,
            queued=(10_000, 100_000),
            memory_calls=memory_calls,
            kills=kills,
            killed_clips=max(2, 4 * kills),
            seed=seed,
        )
    results |= environment(PACKAGES)
    results["command"] = " ".join(["python", "benchmarks/captioning.py", *sys.argv[1:]])
    console = Console()
    console.print({name: results[name] for name in ("endpoint", "time", "memory", "kills")})
    console.print(bars_table(bars(results)))
    write_results(out, results)


if __name__ == "__main__":
    run(main)
