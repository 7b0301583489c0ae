"""The resources file: what is no quantity is refused when the file is read."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from pipelines.resources import RESOURCES_FILE, load_resources


@pytest.mark.parametrize(("field", "wrong"), [("cpu", "two"), ("memory", "8GB"), ("memory", "1.5Gi")])
def test_a_wrong_quantity_is_refused(field: str, wrong: str, tmp_path: Path) -> None:
    tree = yaml.safe_load(RESOURCES_FILE.read_text())
    tree["stages"]["train"][field] = wrong
    file = tmp_path / "resources.yaml"
    file.write_text(yaml.safe_dump(tree))
    with pytest.raises(ValidationError, match=field):
        load_resources(file)
