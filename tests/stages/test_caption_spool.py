from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from share4video.captioning.differential import Chain, ChainRules, Rejection
from share4video.dataset.manifest import Part, StageRef, load_manifest
from share4video.dataset.shards import ShardSet, table_from_rows
from share4video.stages.caption_spool import clip_spool
from share4video.stages.division import divide
from share4video.store import LocalStore, Store
from tests.stages.caption_material import CONFIG, clip_row

LENGTHS = [3, 1, 9, 2, 40, 7, 1, 5]


def frame_rows(number: int, length: int) -> list[dict[str, Any]]:
    return [
        {
            "clip_id": f"clip-{number:02d}",
            "index": index,
            "timestamp_s": 2.5 * index,
            "similarity": None,
            "jpeg": f"{number}/{index}".encode(),
        }
        for index in range(length)
    ]


def publish(
    store: Store, lengths: list[int], *, scattered: bool = False, rows_of: range | None = None
) -> tuple[StageRef, StageRef, Part]:
    """Publish key frames in one part, and the rows of clips, of those in ``rows_of``."""
    numbers = range(len(lengths)) if rows_of is None else rows_of
    clips = ShardSet(store, "dedup", "1", inputs=[f"{list(numbers)}"], config=CONFIG)
    clips.commit(0, {"clips": table_from_rows("clips", [clip_row(n) for n in reversed(numbers)])})
    rows = [row for n, length in enumerate(lengths) for row in frame_rows(n, length)]
    if scattered:
        random.Random(1).shuffle(rows)
    keyframes = ShardSet(store, "keyframes", "1", inputs=[f"{lengths} {scattered}"], config=CONFIG)
    keyframes.commit(0, {"keyframes": table_from_rows("keyframes", rows)})
    ref = keyframes.publish(1).ref
    (part,) = load_manifest(store, ref).parts
    return clips.publish(1).ref, ref, part


@pytest.mark.parametrize("scattered", [False, True])
def test_clips_come_back_by_number_with_their_frames_in_order(
    store: LocalStore, tmp_path: Path, scattered: bool
) -> None:
    with clip_spool(tmp_path / "spool", store, *publish(store, LENGTHS, scattered=scattered), 0, 1) as spool:
        assert spool.frames.tolist() == LENGTHS
        for number, length in enumerate(LENGTHS):
            clip_id, frames = spool.load(number)
            assert clip_id == f"clip-{number:02d}"
            assert [frame.number for frame in frames] == list(range(1, length + 1))
            assert [frame.timestamp_s for frame in frames] == [2.5 * index for index in range(length)]
            assert [frame.image for frame in frames] == [
                f"{number}/{index}".encode() for index in range(length)
            ]
    assert list(tmp_path.glob("spool*")) == []


@pytest.mark.parametrize("shares", [2, 3, 8, 11])
def test_shares_hold_every_clip_once_and_about_as_many_frames(
    store: LocalStore, tmp_path: Path, shares: int
) -> None:
    found = []
    for share in range(shares):
        with clip_spool(tmp_path / "spool", store, *publish(store, LENGTHS), share, shares) as spool:
            found.append([spool.load(number)[0] for number in range(len(spool))])
    expected = [[f"clip-{n:02d}" for n in group] for group in divide(LENGTHS, shares)]
    assert found == expected + [[]] * (shares - len(expected))


def test_a_clip_without_a_row_is_left_out(store: LocalStore, tmp_path: Path) -> None:
    inputs = publish(store, LENGTHS, rows_of=range(2, 5))
    with clip_spool(tmp_path / "spool", store, *inputs, 0, 1) as spool:
        assert [spool.load(number)[0] for number in range(len(spool))] == ["clip-02", "clip-03", "clip-04"]
        assert spool.frames.tolist() == LENGTHS[2:5]


def test_what_came_of_clips_is_told_in_their_order(store: LocalStore, tmp_path: Path) -> None:
    with clip_spool(tmp_path / "spool", store, *publish(store, LENGTHS), 0, 1) as spool:
        for number in (5, 0, 3):
            chain = Chain([float(number)], ChainRules())
            chain.rejection = Rejection(f"{number}", 0.1 * number, 0.2)
            spool.finish(number, chain)
        told = [(clip, chain.rejection) for clip, chain in spool.finished()]
    assert told == [(clip_row(n), Rejection(f"{n}", 0.1 * n, 0.2)) for n in (0, 3, 5)]


def test_no_part_is_no_clips(store: LocalStore, tmp_path: Path) -> None:
    clips, keyframes, _ = publish(store, [1])
    with clip_spool(tmp_path / "spool", store, clips, keyframes, None, 0, 1) as spool:
        assert len(spool) == 0
        assert list(spool.finished()) == []
