from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from share4video.errors import UserError
from share4video.synthetic.clips import frames, write_clip, write_demo_set, write_mp4
from share4video.synthetic.domain import is_synthetic
from share4video.synthetic.render import render
from share4video.synthetic.truth import read_clip
from share4video.synthetic.world import FPS, sample_clip


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


def _files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_another_set_in_the_same_folder_is_replaced(demo: Path, tmp_path: Path) -> None:
    write_demo_set(tmp_path, clips=6, heldout=2, questions_per_task=3)
    own = tmp_path / "source" / "my-holiday.mp4"
    own.write_bytes(b"mine")
    write_demo_set(tmp_path, clips=4, heldout=3, questions_per_task=2)
    assert own.read_bytes() == b"mine"
    own.unlink()
    assert _files(tmp_path) == _files(demo)


def test_a_set_that_was_cut_short_is_made_whole(demo: Path, tmp_path: Path) -> None:
    """What a kill leaves: files of another, larger set, one of them cut short, and no word of an end."""
    shutil.copytree(demo, tmp_path, dirs_exist_ok=True)
    (tmp_path / "set.json").unlink()
    clip = tmp_path / "source" / "clip-0001.mp4"
    clip.write_bytes(clip.read_bytes()[:1000])
    for name in ("source/clip-0077.mp4", "source/.tmp-123-clip-0078.mp4", "truth/clip-0077.json"):
        (tmp_path / name).write_bytes(b"half")
    write_demo_set(tmp_path, clips=4, heldout=3, questions_per_task=2)
    assert _files(tmp_path) == _files(demo)


def test_a_finished_set_is_kept(demo: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in demo.rglob("*")}
    write_demo_set(demo, clips=4, heldout=3, questions_per_task=2)
    assert before == {path: path.stat().st_mtime_ns for path in demo.rglob("*")}


def test_files_of_somebody_else_stay(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "clip-0000.mp4").write_bytes(b"mine")
    with pytest.raises(UserError, match="no earlier set of clips"):
        write_demo_set(tmp_path, clips=4, heldout=3, questions_per_task=2)
    assert _files(tmp_path) == {"source/clip-0000.mp4": b"mine"}


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        write_demo_set(tmp_path / "file", clips=4)


def test_a_clip_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def breaking() -> Iterator[np.ndarray]:
        yield from list(frames(sample_clip(1)))[:20]
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        write_mp4(tmp_path / "clip.mp4", breaking())
    assert list(tmp_path.iterdir()) == []


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
    clips = sorted((data_root / "videos").iterdir())
    assert clips, "there is no real clip to try"
    assert [path.name for path in clips if is_synthetic(_decode(path, 60))] == []
