from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from share4video.synthetic.clips import FPS, frames, write_clip, write_demo_set
from share4video.synthetic.domain import is_synthetic
from share4video.synthetic.render import render
from share4video.synthetic.truth import read_clip
from share4video.synthetic.world import sample_clip


def _decode(path: Path, every: int = 16) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [
            f.to_ndarray(format="rgb24") for i, f in enumerate(container.decode(video=0)) if i % every == 0
        ]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    write_demo_set(folder, clips=4, heldout=3, questions_per_task=2)
    return folder


def test_frames_on_disk_show_the_clip(tmp_path: Path) -> None:
    clip = sample_clip(11)
    write_clip(tmp_path / "clip.mp4", clip, tmp_path)
    decoded = _decode(tmp_path / "clip.mp4")
    assert read_clip(tmp_path / "clip.json") == clip
    assert len(list(frames(clip))) == round(clip.duration_s * FPS)
    for index, frame in enumerate(decoded):
        difference = np.abs(frame.astype(int) - render(clip, index * 16 / FPS).astype(int))
        assert difference.mean() < 4


def test_the_same_set_has_the_same_bytes(demo: Path, tmp_path: Path) -> None:
    write_demo_set(tmp_path, clips=4, heldout=3, questions_per_task=2)
    files = sorted(p.relative_to(demo) for p in demo.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file())
    assert all((demo / f).read_bytes() == (tmp_path / f).read_bytes() for f in files)


def test_the_set_holds_what_curation_must_catch(demo: Path) -> None:
    names = {path.stem for path in (demo / "source").iterdir()}
    assert {"too-long", "too-short", "black", "truncated", "not-a-video", "duplicate-cropped"} <= names
    assert sum(name.endswith(("-reversed", "-reordered", "-changed")) for name in names) == 3


def test_synthetic_clips_are_told_from_real_ones(demo: Path) -> None:
    assert all(is_synthetic(_decode(path)) for path in (demo / "heldout").iterdir())
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (240, 320, 3), np.uint8)
    assert not is_synthetic([noise])
    assert not is_synthetic([])


def test_real_clips_are_refused(data_root: Path) -> None:
    accepted = [p.name for p in sorted((data_root / "videos").iterdir()) if is_synthetic(_decode(p, 60))]
    assert accepted == []
