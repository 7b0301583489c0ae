"""How long the demo takes and how much memory, on an empty store and run again.

    python benchmarks/demo.py --no-network --out benchmarks/results/demo.json

The demo runs as a person runs it, in a process of its own and an empty folder, then once more in the same
folder. Memory is the largest sum of proportional set sizes (PSS) of it and all its descendants, looked at
twice a second. ``--no-network`` runs it in a network namespace that has nothing but the loopback interface,
which needs root and Linux.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.command import run, write_results
from benchmarks.environment import ROOT, environment
from share4video.errors import UserError
from share4video.work import WORK_VARIABLE

PACKAGES = ("share4video", "torch", "transformers", "mlflow", "kfp", "av")
LOOK_EVERY_S = 0.5
MAX_SECONDS, MAX_GB = 360.0, 4.0
DEMO = (sys.executable, "-c", "from share4video.cli.main import app; app()", "demo")


def main(
    out: Annotated[Path | None, typer.Option(help="Where the results go, as JSON.")] = None,
    no_network: Annotated[bool, typer.Option("--no-network", help="Run it with loopback alone.")] = False,
    arguments: Annotated[str, typer.Option(help="What to add to the demo's command line.")] = "",
) -> None:
    """Run the demo twice and print what each run took."""
    with tempfile.TemporaryDirectory() as folder:
        command = [*DEMO, *shlex.split(arguments)]
        if no_network:
            command = without_network(command)
        runs = {name: measure(command, Path(folder)) for name in ("empty store", "again")}
    results = {
        "measured": "wall time and memory of the demo, and what it printed",
        "no_network": no_network,
        "runs": runs,
        **environment(PACKAGES),
        "command": " ".join(["python", "benchmarks/demo.py", *sys.argv[1:]]),
    }
    Console().print(table(results))
    write_results(out, results)


def without_network(command: list[str]) -> list[str]:
    """Return a command that runs ``command`` with no network but loopback.

    Raises:
        UserError: this system or user cannot.
    """
    if shutil.which("unshare") is None or os.geteuid() != 0:
        raise UserError(
            "only root on Linux can take the network away", where="--no-network", fix="run it without"
        )
    return ["unshare", "--net", "sh", "-c", f"ip link set lo up && exec {shlex.join(command)}"]


def measure(command: list[str], folder: Path) -> dict[str, Any]:
    """Run a command below ``folder`` to its end and tell what it took."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT), WORK_VARIABLE: str(folder / "work"), "COLUMNS": "120"}
    environ.pop("MLFLOW_TRACKING_URI", None)
    started, peak = time.monotonic(), 0
    with (folder / "printed").open("w+", encoding="utf-8") as printed:
        process = subprocess.Popen(command, cwd=folder, env=environ, stdout=printed)
        while process.poll() is None:
            peak = max(peak, pss(process.pid))
            time.sleep(LOOK_EVERY_S)
        printed.seek(0)
        said = printed.read()
    return {
        "seconds": round(time.monotonic() - started, 1),
        "peak_pss_gb": round(peak / 1e9, 2),
        "exit": process.returncode,
        "unchanged": "Nothing changed" in said,
        "summary": summary(said),
    }


def pss(pid: int) -> int:
    """Return the proportional set sizes of a process and its descendants, in bytes."""
    total = 0
    try:
        family = [(root := psutil.Process(pid)), *root.children(recursive=True)]
    except psutil.Error:
        return 0
    for process in family:
        try:
            total += process.memory_full_info().pss
        except psutil.Error:  # it has ended
            continue
    return total


def summary(said: str) -> dict[str, str]:
    """Return the rows of the demo's table; a value may go on in the next line."""
    found: dict[str, str] = {}
    last = ""
    for name, value in re.findall(r"^│ (.*?) │ (.*?) │$", said, re.MULTILINE):
        last = name.strip() or last
        found[last] = f"{found[last]} {value.strip()}" if last in found else value.strip()
    return found


def table(results: dict[str, Any]) -> Table:
    """Draw what both runs took, beside the bars."""
    drawn = Table(title="make demo", title_justify="left")
    for heading in ("run", "seconds", "bar", "peak PSS, GB", "bar", "exit", "unchanged"):
        drawn.add_column(heading, justify="left" if heading == "run" else "right")
    for name, took in results["runs"].items():
        seconds, memory = f"<= {MAX_SECONDS:.0f}", f"<= {MAX_GB:.0f}"
        cells = [str(took["seconds"]), seconds, str(took["peak_pss_gb"]), memory, str(took["exit"])]
        drawn.add_row(name, *cells, "yes" if took["unchanged"] else "no")
    return drawn


if __name__ == "__main__":
    run(main)
