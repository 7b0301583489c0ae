"""What a measurement was taken on: hardware, versions, commit."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]


def environment(packages: Sequence[str]) -> dict[str, Any]:
    """Describe this machine, Python and ``packages``, and the commit of the working tree."""
    return {
        "hardware": {
            "processor": _processor(),
            "cores": len(os.sched_getaffinity(0)),
            "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
            "gpus": _lines("nvidia-smi", "--query-gpu=name", "--format=csv,noheader"),
        },
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in packages}},
        "commit": (_lines("git", "rev-parse", "HEAD") or ["unknown"])[0],
        "uncommitted_changes": bool(_lines("git", "status", "--porcelain", "--untracked-files=no")),
    }


def _processor() -> str:
    """Return the name of the processor; Linux tells it in a file alone."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _lines(*command: str) -> list[str]:
    """Return what a command prints; nothing where there is no such command or it fails."""
    if shutil.which(command[0]) is None:
        return []
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    return done.stdout.splitlines() if done.returncode == 0 else []
