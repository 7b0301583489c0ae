"""Conversion of a checkpoint of the 8B's widths and vocabulary: memory and time beside loading it whole.

    python -m benchmarks.convert --out benchmarks/results/convert.json

Weights are random bfloat16 in shards of up to 2 GB, of which the 8B's own are of 5 GB; there are fewer layers
than in the 8B, and the vision tower is whole. Each way runs in a process of its own, and memory counts above
what the libraries occupy before the first weight is touched. Mapped pages of files count as well.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from safetensors import safe_open

from benchmarks.bars import Bar, bars_table
from benchmarks.command import run, write_results
from benchmarks.environment import ROOT, environment
from benchmarks.original_checkpoint import Size, write_checkpoint

SOURCE_SHARD_BYTES = 2 * 10**9
MEMORY_BAR = 1.5


def measured(way: str, source: Path, target: Path) -> dict[str, Any]:
    """Run one way in a child process."""
    command = [sys.executable, "-m", "benchmarks.convert_runs", way, str(source), str(target)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def same_values(one: Path, other: Path) -> bool:
    """Whether all tensors of ``other`` are in ``one``, rows that were added aside."""
    places = {name: file for file in one.glob("*.safetensors") for name in _names(file)}
    for file in other.glob("*.safetensors"):
        for name in _names(file):
            if name not in places:
                return False
            with safe_open(places[name], framework="pt") as left, safe_open(file, framework="pt") as right:
                wanted = right.get_tensor(name)
                if not torch.equal(left.get_tensor(name)[: len(wanted)], wanted):
                    return False
    return True


def _names(file: Path) -> list[str]:
    with safe_open(file, framework="pt") as opened:
        return list(opened.keys())


def main(
    layers: Annotated[int, typer.Option("--layers", min=1, help="Of the language model; the 8B has 32.")] = 2,
    folder: Annotated[
        Path | None, typer.Option("--folder", help="Where the checkpoints are written, for the time of it.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Where to write the results.")] = None,
) -> None:
    """Measure both ways and hold them against the bars."""
    console = Console()
    size = Size(layers=layers)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        work = Path(temporary)
        write_checkpoint(work / "original", size, max_shard_bytes=SOURCE_SHARD_BYTES)
        shards = [file.stat().st_size for file in (work / "original").glob("*.safetensors")]
        ways = {way: measured(way, work / "original", work / way) for way in ("streamed", "whole")}
        equal = same_values(work / "streamed", work / "whole")
    table = Table("way", "seconds", "memory above the libraries, MB", title="One conversion")
    for way, took in ways.items():
        table.add_row(way, f"{took['seconds']:.1f}", f"{took['rss_above_bytes'] / 1e6:,.0f}")
    console.print(table)
    largest = max(shards)
    above = {way: round(took["rss_above_bytes"] / largest, 3) for way, took in ways.items()}
    bars = [
        Bar("memory above the libraries, in largest shards", above["streamed"], f"<= {MEMORY_BAR}"),
        Bar("memory of the whole model over ours", round(above["whole"] / above["streamed"], 1), "> 1"),
        Bar("every value arrives", float(equal), ">= 1"),
    ]
    console.print(bars_table(bars))
    results = {
        "measured": "time and memory of a conversion of a checkpoint in the original layout",
        "data": {
            "vocabulary": size.rows,
            "width": size.width,
            "layers": size.layers,
            "tower_layers": size.tower_layers,
            "dtype": "bfloat16",
            "shards_bytes": sorted(shards, reverse=True),
        },
        "ways": ways,
        "memory_above_in_largest_shards": above,
        "bars": [bar.to_json() for bar in bars],
        **environment(["share4video", "torch", "transformers", "safetensors"]),
    }
    write_results(out, results)


if __name__ == "__main__":
    run(main)
