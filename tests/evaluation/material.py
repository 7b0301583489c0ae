"""Small real clips of one colour each, and question files about them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

WIDTH, HEIGHT, FPS = 64, 48, 8
COLOURS = {"red": (220, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 220)}

Record = dict[str, Any]


def write_clip(path: Path, colours: Sequence[str], seconds_each: float = 1.0) -> Path:
    """Write an H.264 clip that shows one plain colour after the other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(FPS))
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for colour in colours:
            picture = np.full((HEIGHT, WIDTH, 3), COLOURS[colour], np.uint8)
            for _ in range(int(FPS * seconds_each)):
                for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                    container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def record(video: str, question: str, candidates: Sequence[str], answer: str, **more: Any) -> Record:
    return {"video": video, "question": question, "candidates": list(candidates), "answer": answer, **more}


def write_questions(folder: Path, tasks: Mapping[str, Sequence[Record]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for task, records in tasks.items():
        (folder / f"{task}.json").write_text(json.dumps(list(records)), encoding="utf-8")
    return folder
