"""A small CLIP with random weights that open_clip knows by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

NAME = "tiny-pair-quickgelu"
_CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 32},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    "quick_gelu": True,
}


def add_tiny_clip(folder: Path) -> str:
    """Make open_clip know the architecture, and return the name that configurations use."""
    open_clip = pytest.importorskip("open_clip")
    (folder / f"{NAME}.json").write_text(json.dumps(_CONFIG))
    open_clip.add_model_config(folder)
    return f"open_clip:{NAME}/random"
