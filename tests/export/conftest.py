from __future__ import annotations

from pathlib import Path

import pytest

from share4video.store import LocalStore
from tests.export.material import Published, publish_dataset


@pytest.fixture
def published(store: LocalStore, tmp_path: Path) -> Published:
    return publish_dataset(store, tmp_path)
