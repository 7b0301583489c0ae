"""What the wheel holds, what the locks promise, and what importing the cheap floors costs."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
SHIPPED = ("share4video", "components", "pipelines", "serving")
# Seconds and gigabytes each; the cheap floors must be there before them.
HEAVY = ("torch", "transformers", "mlflow", "kfp", "kserve", "kubernetes", "open_clip", "peft", "deepspeed")
CHEAP = (
    *("errors", "config", "store", "store_s3", "store_lock", "model_registry", "curation", "captioning"),
    *("dataset", "media", "report", "stages", "cli"),
)


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def _sources() -> Iterator[str]:
    """Every file of the shipped packages that git knows, or in an exported tree every file."""
    listed = subprocess.run(["git", "ls-files", "--", *SHIPPED], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode == 0:
        yield from listed.stdout.split()
    else:
        for package in SHIPPED:
            for path in (ROOT / package).rglob("*"):
                if path.is_file() and "__pycache__" not in path.parts:
                    yield path.relative_to(ROOT).as_posix()


def test_the_wheel_holds_the_product_and_nothing_else(
    wheel: zipfile.ZipFile, project: dict[str, Any]
) -> None:
    names = set(wheel.namelist())
    assert set(_sources()) <= names  # weights, templates and pipeline resources, too
    assert {f"share4video/configs/{name}.yaml" for name in ("paper", "laptop", "cluster")} <= names
    about = f"share4video-{project['version']}.dist-info"
    assert {name.split("/")[0] for name in names} == {*SHIPPED, about}
    assert not [name for name in names if re.search(r"(^|/)(tests?|benchmarks)/|\.pyc$", name)]


def test_the_command_is_there(wheel: zipfile.ZipFile) -> None:
    entry = next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert "share4video = share4video.cli.main:app" in wheel.read(entry).decode()
    assert "share4video/cli/main.py" in wheel.namelist()


def _pins(lock: Path) -> dict[str, str]:
    lines = re.findall(r"^([\w.-]+)(?:\[[\w,-]+\])?==(\S+)", lock.read_text(), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in lines}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_pin_has_hashes_and_no_lock_names_a_registry(lock: Path) -> None:
    text = lock.read_text()
    assert "://" not in text
    assert not re.search(r"^\s*--(?!hash)", text, re.MULTILINE)
    blocks = re.split(r"^(?=[\w.-]+(?:\[[\w,-]+\])?==)", text, flags=re.MULTILINE)[1:]
    assert len(blocks) >= len(_pins(lock)) > 0
    assert not [block for block in blocks if not re.search(r"--hash=sha256:[0-9a-f]{64}", block)]


def test_the_lock_answers_for_everything_the_project_asks_for(project: dict[str, Any]) -> None:
    pins = _pins(ROOT / "requirements" / "dev.txt")
    asked = [
        *project["dependencies"],
        *(text for texts in project["optional-dependencies"].values() for text in texts),
    ]
    for text in asked:
        wanted = Requirement(text)
        assert wanted.specifier.contains(pins[canonicalize_name(wanted.name)]), text


@pytest.mark.parametrize("name", ["build", "bootstrap"])
def test_the_other_locks_answer_for_their_inputs(name: str) -> None:
    pins = _pins(ROOT / "requirements" / f"{name}.txt")
    for line in (ROOT / "requirements" / f"{name}.in").read_text().splitlines():
        if line and not line.startswith("#"):
            wanted = Requirement(line)
            assert wanted.specifier.contains(pins[canonicalize_name(wanted.name)]), line


def test_what_weights_and_compiled_pipelines_depend_on_is_pinned(project: dict[str, Any]) -> None:
    extras = project["optional-dependencies"]
    for name in ("curation", "train", "serve"):
        assert {"torch==2.14.0", "torchvision==0.29.0"} <= set(extras[name])
    assert all(text.endswith("==2.17.0") for text in extras["pipelines"])


def _modules(name: str) -> list[str]:
    path = ROOT / "share4video" / name
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
    dotted = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files]
    return [module.removesuffix(".__init__") for module in dotted]


PROBE = f"""
import importlib, sys
for module in sys.argv[1:]:
    importlib.import_module(module)
    loaded = [name for name in {HEAVY} if name in sys.modules]
    if loaded:
        sys.exit(f"{{module}} imports {{', '.join(loaded)}}")
"""


@pytest.mark.parametrize("name", CHEAP)
def test_a_cheap_floor_imports_nothing_heavy(name: str) -> None:
    """In a fresh process, since an import inside a function is fine and one at a module's top is not."""
    command = [sys.executable, "-c", PROBE, *_modules(name)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr.splitlines()[-1]
