"""Golden data and real clips, for the tests of this folder."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of test data; without one the test is skipped."""
    root = os.environ.get("SHARE4VIDEO_TEST_DATA")
    if not root:
        pytest.skip("SHARE4VIDEO_TEST_DATA is not set")
    return Path(root)


@pytest.fixture(scope="session")
def composition(data_root: Path) -> dict[str, Any]:
    """Sizes and indices computed by the released code."""
    golden: dict[str, Any] = json.loads((data_root / "golden" / "composition.json").read_text())
    return golden
