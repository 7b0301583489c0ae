"""Every test here keeps its local copies to itself."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def copies(local_copies: Path) -> Path:
    return local_copies
