"""A tiny original checkpoint and what became of it, made once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from share4video.models.llava_next.convert import convert
from tests.models.llava_next.tiny import write_original


@pytest.fixture(scope="session")
def shared_original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in shards that no test may change."""
    return write_original(tmp_path_factory.mktemp("original") / "model", max_shard_bytes=200_000)


@pytest.fixture(scope="session")
def converted(shared_original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same checkpoint converted; no test may change it."""
    folder = tmp_path_factory.mktemp("converted") / "model"
    convert(shared_original, folder)
    return folder


@pytest.fixture
def original(shared_original: Path, tmp_path: Path) -> Path:
    """A checkpoint in shards of the test's own."""
    return Path(shutil.copytree(shared_original, tmp_path / "original"))
