"""Golden values and clips, for the tests of this folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.media.clips import KINDS, write_clip


@pytest.fixture(scope="session")
def composition(data_root: Path) -> dict[str, Any]:
    """Sizes and indices computed by the released code."""
    golden: dict[str, Any] = json.loads((data_root / "golden" / "composition.json").read_text())
    return golden


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One file of each kind of ``KINDS``."""
    folder = tmp_path_factory.mktemp("clips")
    return {name: write_clip(folder / name, **options) for name, options in KINDS.items()}
