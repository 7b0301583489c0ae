"""One conversion in a process of its own: ours, or the whole model in memory and out again.

    python -m benchmarks.convert_runs streamed|whole SRC DST

Prints a JSON object: seconds, the memory resident before the first weight was touched, and the most after.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import torch

from share4video.models.llava_next.convert import convert
from share4video.models.llava_next.state_dict_adapter import disk_name_of_original

SHARD_SIZE = 5 * 10**9


def streamed(source: Path, target: Path) -> dict[str, Any]:
    """Convert with `share4video.models.llava_next.convert`."""
    report = convert(source, target, max_shard_bytes=SHARD_SIZE)
    return {"tensors": report.tensors, "bytes": report.bytes, "shards": report.shards}


def whole(source: Path, target: Path) -> dict[str, Any]:
    """Load all weights with the libraries' own functions, rename them, and save them.

    Weights alone: no configuration, no tokenizer, no rows for tokens, no check, no hash.
    """
    from huggingface_hub import save_torch_state_dict
    from safetensors.torch import load_file

    held: dict[str, torch.Tensor] = {}
    for file in sorted(source.glob("*.safetensors")):
        held |= {disk_name_of_original(name): tensor for name, tensor in load_file(file).items()}
    target.mkdir(parents=True)
    save_torch_state_dict(held, target, max_shard_size=SHARD_SIZE, metadata={"format": "pt"})
    return {"tensors": len(held), "bytes": sum(tensor.nbytes for tensor in held.values())}


WAYS = {"streamed": streamed, "whole": whole}


def measure(way: str, source: Path, target: Path) -> dict[str, Any]:
    """Run one way and return what it took. Linux alone tells the peak since a moment."""
    # Both ways import them, one way or the other; what libraries occupy is not the conversion's.
    from transformers import LlavaNextForConditionalGeneration

    assert LlavaNextForConditionalGeneration.__name__
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = psutil.Process().memory_info().rss
    began = time.perf_counter()
    found = WAYS[way](source, target)
    seconds = time.perf_counter() - began
    status = Path("/proc/self/status").read_text()
    peak = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    return {
        **found,
        "seconds": round(seconds, 1),
        "rss_before_bytes": before,
        "rss_peak_bytes": peak,
        "rss_above_bytes": peak - before,
    }


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))))
