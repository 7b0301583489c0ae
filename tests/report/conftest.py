from __future__ import annotations

from pathlib import Path

import pytest

from share4video.store import LocalStore
from tests.report.material import Run, publish_run


@pytest.fixture(scope="module")
def kept_store(tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    """A store for runs that no test changes."""
    return LocalStore(tmp_path_factory.mktemp("report") / "store")


@pytest.fixture(scope="module")
def run(kept_store: LocalStore, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return publish_run(kept_store, Path(tmp_path_factory.mktemp("truth")))
