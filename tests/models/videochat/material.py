"""Videos and pictures with something to tell: bright ones and dark ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.media.clips import write_clip

BRIGHT, DARK = np.full((64, 96, 3), 230, np.uint8), np.full((64, 96, 3), 20, np.uint8)


def write_media(folder: Path) -> Path:
    """Write ``bright.mp4``, ``dark.mp4``, ``bright.png`` and ``dark.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, pixels in (("bright", BRIGHT), ("dark", DARK)):
        write_clip(folder / f"{name}.mp4", frames=12, still=pixels)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


def write_list(path: Path, elements: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps(elements), encoding="utf-8")
    return path


def captions() -> list[dict[str, Any]]:
    """Return stage 1's training file over `write_media`."""
    texts = {"bright": "it is bright", "dark": "it is dark now"}
    videos = [{"video": f"{name}.mp4", "caption": text} for name, text in texts.items()]
    return [*videos, *({"image": f"{name}.png", "caption": text} for name, text in texts.items())]


def conversations() -> list[dict[str, Any]]:
    """Return stage 2's training file over `write_media`."""
    found = []
    for name, answer in (("bright", "it is bright"), ("dark", "nothing is bright here")):
        turns = [{"q": "What is bright?", "a": answer}, {"q": "What is dark?", "a": f"not {answer}"}]
        found += [{"video": f"{name}.mp4", "QA": turns}, {"image": f"{name}.png", "QA": turns}]
    return found
