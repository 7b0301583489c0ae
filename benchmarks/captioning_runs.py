"""Clips to caption, and ways through them: our stage, and the released code's pool in lock step.

    python -m benchmarks.captioning_runs stage|lock-step RUN

``RUN`` is a `Run` as JSON. Prints a JSON object: the seconds taken, the peak memory, what stopped it.
"""

from __future__ import annotations

import asyncio
import io
import json
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from share4video.captioning.client import ChatClient, Endpoint
from share4video.captioning.conversations import CaptionPlan, ClipConversation
from share4video.captioning.engine import resolve
from share4video.captioning.roles import KeyFrame
from share4video.config import CaptionConfig, EngineSpec
from share4video.dataset.manifest import StageRef
from share4video.dataset.schema import TABLES
from share4video.dataset.shards import ShardSet, read_table
from share4video.errors import UserError
from share4video.stages.caption import CaptionInputs, run_stage
from share4video.store import Store

INTERVAL_S = 2.0
LONGEST = 40  # key frames of a clip


@dataclass(frozen=True)
class Run:
    """What to caption, and how.

    Attributes:
        url: of the endpoint.
        clips: how many of the clips the lock step takes, the first by id.
    """

    root: str
    clips_ref: str
    keyframes_ref: str
    url: str
    in_flight: int
    max_tokens_total: int | None = None
    clips: int | None = None

    def spec(self) -> EngineSpec:
        return resolve(
            EngineSpec(
                url=self.url, model="simulated", revision="1", dialect="teacher", max_in_flight=self.in_flight
            )
        )


def lengths(clips: int, seed: int) -> list[int]:
    """Draw how many key frames each clip has: 1 to 40, equally many in each octave."""
    rng = random.Random(seed)
    return [min(LONGEST, int((LONGEST + 1) ** rng.random())) for _ in range(clips)]


def publish(store: Store, counts: Sequence[int], side: int) -> tuple[StageRef, StageRef]:
    """Publish clips and their key frames, in one part; no two pictures are the same file."""
    config = CaptionConfig()
    ids = [f"{number:08d}" for number in range(len(counts))]
    rows = [_clip(clip_id, count) for clip_id, count in zip(ids, counts, strict=True)]
    clips = ShardSet(store, "dedup", "1", inputs=[f"{len(counts)} clips"], config=config)
    clips.commit(0, {"clips": pa.Table.from_pylist(rows, TABLES["clips"])})
    picture = _picture(side)
    places = [(clip_id, place) for clip_id, count in zip(ids, counts, strict=True) for place in range(count)]
    columns = {
        "clip_id": [clip_id for clip_id, _ in places],
        "index": [place for _, place in places],
        "timestamp_s": [INTERVAL_S * place for _, place in places],
        "similarity": [None] * len(places),
        "jpeg": [_named(picture, f"{clip_id}/{place}") for clip_id, place in places],
    }
    keyframes = ShardSet(store, "keyframes", "1", inputs=[f"{len(counts)} clips of {side}"], config=config)
    keyframes.commit(0, {"keyframes": pa.table(columns, TABLES["keyframes"])})
    return clips.publish(1).ref, keyframes.publish(1).ref


def _clip(clip_id: str, count: int) -> dict[str, Any]:
    seconds = INTERVAL_S * count
    return {
        **dict.fromkeys(TABLES["clips"].names),
        "clip_id": clip_id,
        "row_id": clip_id,
        "source_uri": f"{clip_id}.mp4",
        "content_hash": clip_id,
        "start_s": 0.0,
        "end_s": seconds,
        "licence": "cc0",
        "duration_s": seconds,
        "fps": 30.0,
        "width": 1920,
        "height": 1080,
        "codec": "h264",
    }


def _picture(side: int) -> bytes:
    """Return a JPEG file of noise."""
    sink = io.BytesIO()
    noise = random.Random(side).randbytes(side * side)
    Image.frombytes("L", (side, side), noise).save(sink, "JPEG", quality=75)
    return sink.getvalue()


def _named(picture: bytes, name: str) -> bytes:
    """Return a JPEG file with a comment, which makes it another file."""
    comment = name.encode()
    return picture[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + picture[2:]


def run_ours(run: Run) -> dict[str, Any]:
    """Run the stage over all clips in one shard."""
    inputs = CaptionInputs(StageRef.parse(run.clips_ref), StageRef.parse(run.keyframes_ref), run.spec())
    config = CaptionConfig(shards=1, max_tokens_total=run.max_tokens_total)
    began = time.perf_counter()
    stopped = ref = ""
    try:
        ref = str(run_stage(inputs, config, Store.open(run.root)).ref)
    except UserError as error:
        stopped = error.sentence()
    return {"seconds": time.perf_counter() - began, "ref": ref, "stopped": stopped}


def run_lock_step(run: Run) -> dict[str, Any]:
    """Run the clips through a pool that waits, at every step, for the slowest of its calls.

    As the released ``slide_captioner_lmdeploy.py``: a clip that is through makes room for the next one, in no
    order of length. Its default pool is two clips wide; here it is as wide as the endpoint.
    """
    store = Store.open(run.root)
    frames: dict[str, list[KeyFrame]] = {}
    for row in read_table(store, StageRef.parse(run.keyframes_ref), "keyframes").to_pylist():
        known = frames.setdefault(row["clip_id"], [])
        known.append(KeyFrame(len(known) + 1, row["timestamp_s"], row["jpeg"]))
    began = time.perf_counter()
    asyncio.run(_lock_step({name: frames[name] for name in sorted(frames)[: run.clips]}, run))
    return {"seconds": time.perf_counter() - began}


async def _lock_step(clips: dict[str, list[KeyFrame]], run: Run) -> None:
    plan = CaptionPlan.of(CaptionConfig(), run.spec(), None)
    waiting = [ClipConversation(name, frames, plan) for name, frames in reversed(clips.items())]
    pool: list[ClipConversation] = []
    async with ChatClient(Endpoint(run.url, "simulated", run.spec())) as client:
        while True:
            while waiting and len(pool) < run.in_flight:
                pool.append(waiting.pop())
            asked = [(clip, call) for clip in pool if (call := clip.next()) is not None]
            if not asked and not waiting:
                return
            answers = await asyncio.gather(*(client.ask(call.build()) for _, call in asked))
            for (clip, call), answer in zip(asked, answers, strict=True):
                clip.take(call, answer)
            pool = [clip for clip in pool if clip.next() is not None]


def peak_mb() -> float:
    """Return the largest resident memory of this process so far, in MB (10^6 bytes)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (peak_kib,) = (line.split()[1] for line in lines if line.startswith("VmHWM"))
    return int(peak_kib) * 1024 / 1e6


if __name__ == "__main__":
    given = Run(**json.loads(sys.argv[2]))
    done = {"stage": run_ours, "lock-step": run_lock_step}[sys.argv[1]](given)
    print(json.dumps({**done, "peak_mb": peak_mb(), "run": asdict(given)}))
