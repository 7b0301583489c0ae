"""The key-frame stage and its parts, each alone, as they are measured."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from share4video.config import KeyframeConfig, ProbeConfig
from share4video.curation.encoders import FRAMES_PER_BATCH, FrameEncoder
from share4video.curation.samples import most_samples, sample
from share4video.dataset.shards import StageRef, read_table
from share4video.media.limits import MediaError
from share4video.stages import keyframes, probe
from share4video.stages.clip_frames import DECODERS, ClipFrames, Row, clip_frames
from share4video.store import LocalStore

Probed = tuple[StageRef, str]  # the clips, and the folder they are in


def seconds(work: Callable[[], object]) -> float:
    """Return how long ``work`` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def probed_films(source: Path) -> Probed:
    """Probe films as a curation does, which is not timed: ours and theirs begin with whole files."""
    config = ProbeConfig(min_duration_s=0, min_height=1, max_duration_s=600)
    found = probe.run_stage(probe.ProbeInputs(str(source)), config, LocalStore(source.parent / "store"))
    return found.ref, str(source)


def run_ours(films: Probed, config: KeyframeConfig, decoders: int = DECODERS) -> int:
    """Run the stage on an empty store; return how many key frames there are."""
    clips, source = films
    store = LocalStore(Path(source).parent / "store")
    with tempfile.TemporaryDirectory(dir=Path(source).parent) as folder:
        inputs, own = keyframes.KeyframesInputs(clips, source), LocalStore(Path(folder))
        for key in store.list(clips.prefix):
            own.put(key, store.get(key))
        return int(keyframes.run_stage(inputs, config, own, decoders=decoders).metrics["key_frames"])


def decoded(films: Probed, config: KeyframeConfig, decoders: int = DECODERS) -> list[ClipFrames]:
    """Decode the films as the stage does, and nothing more."""
    clips, source = films
    rows = read_table(LocalStore(Path(source).parent / "store"), clips, "clips").to_pylist()

    def length_s(clip: Row) -> float:
        return float(clip["end_s"] - clip["start_s"])

    found = clip_frames(
        rows,
        source,
        lambda path, clip: sample(path, clip["start_s"], clip["end_s"], config),
        None,
        most_frames=lambda clip: most_samples(length_s(clip), config),
        decoders=decoders,
    )
    return [frames for _, frames in found if not isinstance(frames, MediaError)]


def encode(clips: Sequence[ClipFrames], encoder: FrameEncoder) -> None:
    """Encode the films' frames as the stage does, and nothing more."""
    pictures = [picture for clip in clips for picture in clip.samples.pictures]
    for start in range(0, len(pictures), FRAMES_PER_BATCH):
        encoder.encode(pictures[start : start + FRAMES_PER_BATCH])
