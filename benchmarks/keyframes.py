"""Key frames: our stage beside the published algorithm, beside its own parts, and how much memory both take.

    python benchmarks/keyframes.py --out benchmarks/results/keyframes.json

Both sides use the same encoder, open_clip's ViT-B-32 with random weights from one seed, and the same films:
1080p at 30 frames per second, a key frame every 250. Models are loaded and decoders started before a clock
runs. Timed in turn, the fastest of each counts:

* the published algorithm (``reference_keyframes.py``), the encoder on all cores;
* the stage as it comes, from the table of clips to the published key frames, the encoder on all cores;
* the stage and its parts alone, with one decoder on one core and the encoder on another: where both share
  their cores, decoding and encoding at once cannot take less than the sum of both.

Memory is that of a process and its children (PSS) on one film of 120 s. The published algorithm would hold
22 GB of it: it is stopped at ``--memory-gb`` and what the missing frames would add is counted in.

Where there are real clips (``--videos``, or SHARE4VIDEO_TEST_DATA/videos), it also counts their key frames
for pictures in RGB and for the same in BGR, which is what the released script gives its encoder. With random
weights the counts mean little: name real ones with ``--colour-encoder``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import cv2
import psutil
import torch
import typer
from rich.console import Console

from benchmarks.bars import Bar, bars_table
from benchmarks.command import run, write_results
from benchmarks.demo import pss
from benchmarks.environment import ROOT, environment
from benchmarks.films import join, write_film
from benchmarks.keyframe_runs import Probed, decoded, encode, probed_films, run_ours, seconds
from benchmarks.reference_keyframes import key_frames, one_at_a_time
from share4video.config import KeyframeConfig
from share4video.curation.encoders import frame_encoder
from share4video.curation.samples import choose, sample
from share4video.errors import UserError
from share4video.media.decode import Mode, frames_at
from share4video.media.probe import probe as probe_file
from share4video.media.sampling import every
from share4video.stages.clip_frames import DECODERS

SPEEDUP, OVER_PARTS, KEY_FRAMES_ALONE, MEMORY_SHARE = 2.0, 1.25, 8.0, 0.1
ENCODER = "open_clip:ViT-B-32/random"
PAPER_ENCODER = "open_clip:ViT-L-14-336-quickgelu/random"
NEAREST: Final = "nearest-iframe"
LOOK_EVERY_S = 0.1
PACKAGES = ("share4video", "av", "numpy", "pillow", "torch", "open_clip_torch")


def measure_speed(
    films: Probed, paths: Sequence[Path], config: KeyframeConfig, rounds: int
) -> dict[str, Any]:
    """Time the published algorithm, the stage as it comes, and the stage beside its parts."""
    encoder, one_by_one = frame_encoder(config.encoder), one_at_a_time(config.encoder)
    cores = torch.get_num_threads()
    held = decoded(films, config, DECODERS)
    encode(held[:1], encoder)
    one_by_one.encode(held[0].samples.pictures[:1])
    timed: dict[str, list[float]] = {
        name: [] for name in ("published", "ours", "one core each", "decode alone", "encode alone")
    }
    parts: dict[str, float] = {}
    theirs = ours = 0
    for _ in range(rounds):
        theirs = 0
        began = time.perf_counter()
        for path in paths:
            pictures, took = key_frames(path, one_by_one, encoder.threshold)
            theirs += len(pictures)
            parts = {name: parts.get(name, 0.0) + took[name] for name in took}
        timed["published"].append(time.perf_counter() - began)
        began = time.perf_counter()
        ours = run_ours(films, config, DECODERS)
        timed["ours"].append(time.perf_counter() - began)
        torch.set_num_threads(1)
        timed["one core each"].append(seconds(lambda: run_ours(films, config, 1)))
        timed["decode alone"].append(seconds(lambda: decoded(films, config, 1)))
        timed["encode alone"].append(seconds(lambda: encode(held, encoder)))
        torch.set_num_threads(cores)
    best = {name: min(took) for name, took in timed.items()}
    larger = max(best["decode alone"], best["encode alone"])
    return {
        "sampled_frames": sum(len(clip.samples.frames) for clip in held),
        "key_frames": {"published": theirs, "ours": ours},
        "seconds": {name: [round(s, 2) for s in took] for name, took in timed.items()},
        "published_parts_s": {name: round(s / rounds, 2) for name, s in parts.items()},
        "speed_up": round(best["published"] / best["ours"], 2),
        "over_larger_part": round(best["one core each"] / larger, 3),
    }


def measure_decoding(paths: Sequence[Path], config: KeyframeConfig, rounds: int) -> dict[str, Any]:
    """Time decoding alone, exactly and by the nearest key frame of the codec."""
    times_s = {path: every(probe_file(path).duration_s, config.interval_s) for path in paths}
    timed: dict[Mode, list[float]] = {"exact": [], NEAREST: []}
    for _ in range(rounds):
        for mode, took in timed.items():
            began = time.perf_counter()
            for path in paths:
                frames_at(path, times_s[path], max_side=config.max_side, mode=mode)
            took.append(time.perf_counter() - began)
    return {
        "seconds": {mode: [round(s, 3) for s in took] for mode, took in timed.items()},
        "speed_up": round(min(timed["exact"]) / min(timed[NEAREST]), 1),
    }


def measure_memory(
    film: Path, films: Probed, config: KeyframeConfig, frames: int, most_gb: float
) -> dict[str, Any]:
    """Take the peak memory of both on one film; each in a process of its own."""
    most_gb = min(most_gb, 0.6 * psutil.virtual_memory().available / 1e9)
    theirs, said = peak_gb("-m", "benchmarks.reference_keyframes", str(film), str(most_gb), config.encoder)
    held = json.loads(said)
    missing_gb = max(0, frames - held["frames"]) * held["bytes_per_frame"] / 1e9
    ours, _ = peak_gb("-c", _OURS, str(films[0]), films[1], config.model_dump_json())
    return {
        "frames": frames,
        "published_frames_held": held["frames"],
        "published_bytes_per_frame": held["bytes_per_frame"],
        "published_peak_gb": round(theirs, 2),
        "published_missing_frames_gb": round(missing_gb, 2),
        "ours_peak_gb": round(ours, 2),
        "ours_over_published": round(ours / (theirs + missing_gb), 3),
    }


_OURS = """
import sys
from benchmarks.keyframe_runs import run_ours
from share4video.config import KeyframeConfig
from share4video.dataset.shards import StageRef
films = StageRef.parse(sys.argv[1]), sys.argv[2]
run_ours(films, KeyframeConfig.model_validate_json(sys.argv[3]))
"""


def peak_gb(*arguments: str) -> tuple[float, str]:
    """Run Python; return the largest PSS of it and its children, in GB, and what it printed."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    peak = 0
    with subprocess.Popen(
        [sys.executable, *arguments], env=environ, stdout=subprocess.PIPE, text=True
    ) as child:
        while child.poll() is None:
            peak = max(peak, pss(child.pid))
            time.sleep(LOOK_EVERY_S)
        assert child.stdout is not None
        said = child.stdout.read()
    if child.returncode != 0:
        raise RuntimeError(f"python {' '.join(arguments)} ended with {child.returncode}")
    return peak / 1e9, said


def count_by_colour_order(folder: Path, encoders: Sequence[str]) -> dict[str, Any]:
    """Count the key frames of real clips for pictures in RGB and in BGR."""
    counts: dict[str, Any] = {name: {} for name in encoders}
    loaded = {name: frame_encoder(name) for name in encoders}
    for path in sorted(folder.glob("*.mp4")):
        found = sample(path, 0.0, probe_file(path).duration_s, KeyframeConfig())
        for name, encoder in loaded.items():
            orders = {"rgb": found.pictures, "bgr": [p[..., ::-1].copy() for p in found.pictures]}
            config = KeyframeConfig(encoder=name)
            counts[name][path.name] = {
                order: len(choose(found, encoder.encode(pictures), encoder, config))
                for order, pictures in orders.items()
            }
    for clips in counts.values():
        clips["all"] = {order: sum(clip[order] for clip in clips.values()) for order in ("rgb", "bgr")}
    return counts


def measure_gpu(films: Probed, config: KeyframeConfig) -> dict[str, Any] | str:
    """Time the stage and its parts with the paper's architecture, on a GPU."""
    if not torch.cuda.is_available():
        return "not measured: there is no GPU"
    config = config.model_copy(update={"encoder": PAPER_ENCODER})
    encoder, held = frame_encoder(PAPER_ENCODER), decoded(films, config, DECODERS)
    encode(held, encoder)
    took = {
        "ours": seconds(lambda: run_ours(films, config, DECODERS)),
        "decode alone": seconds(lambda: decoded(films, config, DECODERS)),
        "encode alone": seconds(lambda: encode(held, encoder)),
    }
    larger = max(took["decode alone"], took["encode alone"])
    return {"encoder": PAPER_ENCODER, "seconds": took, "over_larger_part": round(took["ours"] / larger, 3)}


def bars(results: dict[str, Any]) -> list[Bar]:
    """Return what was to be shown, with what was measured."""
    speed, decoding, memory = results["speed"], results["decoding"], results["memory"]
    parts, held = speed["over_larger_part"], memory["ours_over_published"]
    return [
        Bar("times as fast as the published algorithm", speed["speed_up"], f">= {SPEEDUP}"),
        Bar("end to end over its larger part, one core each", parts, f"<= {OVER_PARTS}"),
        Bar(f"decoding: {NEAREST} over exact", decoding["speed_up"], f">= {KEY_FRAMES_ALONE}"),
        Bar("peak memory over the published algorithm's", held, f"<= {MEMORY_SHARE}"),
    ]


def measure(
    folder: Path,
    *,
    films: int,
    seconds_each: float,
    size: tuple[int, int],
    rounds: int,
    memory_gb: float,
    videos: Path | None,
    colour_encoder: str,
    encoder: str = ENCODER,
) -> dict[str, Any]:
    """Make the films below ``folder`` and measure everything."""
    one, long = folder / "films" / "source", folder / "long" / "source"
    for source in (one, long):
        source.mkdir(parents=True)
    paths = [write_film(one / f"{number}.mp4", *size, seconds_each, seed=number) for number in range(films)]
    film = join([*paths, *paths], long / "long.mp4")
    bitrate = sum(path.stat().st_size for path in paths) * 8 / (films * seconds_each)
    probed, config = probed_films(one), KeyframeConfig(encoder=encoder, shards=1)
    colours: Any = "not counted: no clips were given"
    if videos is not None:
        colours = count_by_colour_order(videos, ["descriptor", colour_encoder])
    results: dict[str, Any] = {
        "measured": "time and memory of choosing key frames, and key frames by colour order",
        "films": {
            "count": films,
            "seconds": seconds_each,
            "size": list(size),
            "mbit_per_s": round(bitrate / 1e6, 2),
        },
        "encoder": encoder,
        "cores": {"decoders": DECODERS, "torch_threads": torch.get_num_threads()},
        "speed": measure_speed(probed, paths, config, rounds),
        "decoding": measure_decoding(paths, config, rounds),
        "memory": measure_memory(
            film, probed_films(long), config, round(2 * films * seconds_each * 30), memory_gb
        ),
        "gpu": measure_gpu(probed, config),
        "key_frames_by_colour_order": colours,
    }
    return {**results, "bars": [bar.to_json() for bar in bars(results)]}


def main(
    films: Annotated[int, typer.Option(help="How many films of 15 s; twice over they are the long one.")] = 4,
    rounds: Annotated[int, typer.Option(help="How often everything is timed.")] = 2,
    memory_gb: Annotated[float, typer.Option(help="How much the published algorithm may hold.")] = 8.0,
    videos: Annotated[Path | None, typer.Option(help="A folder of real clips, to count colours on.")] = None,
    colour_encoder: Annotated[str, typer.Option(help="The CLIP that counts them.")] = ENCODER,
    out: Annotated[Path | None, typer.Option("--out", help="Where to write the results.")] = None,
) -> None:
    """Measure, and hold the results against their bars."""
    if videos is None and (root := os.environ.get("SHARE4VIDEO_TEST_DATA")):
        videos = Path(root) / "videos"
    if videos is not None and not any(videos.glob("*.mp4")):
        raise UserError("there are no mp4 files", where=str(videos), fix="give a folder of clips")
    with tempfile.TemporaryDirectory() as folder:
        results = measure(
            Path(folder),
            films=films,
            seconds_each=15.0,
            size=(1920, 1080),
            rounds=rounds,
            memory_gb=memory_gb,
            videos=videos,
            colour_encoder=colour_encoder,
        )
    results |= environment(PACKAGES)
    results["versions"]["opencv"] = cv2.__version__
    results["command"] = " ".join(["python", "benchmarks/keyframes.py", *sys.argv[1:]])
    console = Console()
    console.print({name: results[name] for name in results if name not in ("bars", "hardware", "versions")})
    console.print(bars_table(bars(results)))
    write_results(out, results)


if __name__ == "__main__":
    run(main)
