from __future__ import annotations

from pathlib import Path

import pytest

from tests.stages.probe_source import write_source


@pytest.fixture(scope="session")
def master(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `probe_source` describes; tests leave it as it is."""
    folder = tmp_path_factory.mktemp("source")
    write_source(folder)
    return folder
