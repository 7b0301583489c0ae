from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from share4video.curation.encoders import DESCRIPTOR, Vectors
from share4video.curation.keyframes import jpeg_bytes, select
from share4video.media.decode import frames_at
from share4video.media.sampling import every
from share4video.synthetic.language import clip_changes
from share4video.synthetic.world import sample_clip
from tests.curation.films import rendered, write_film

HELD_OUT_SEEDS = range(7000, 7020)  # the threshold was chosen on clips 1000 to 1039
INTERVAL_S = 2.0


def directions(angles: list[int]) -> Vectors:
    radians = np.radians(np.array(angles, np.float64))
    return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


def test_a_frame_is_compared_with_the_latest_key_frame() -> None:
    # 0 and 20 degrees: cosine 0.94; slow drift is a key frame once it adds up.
    chosen = select(directions([0, 10, 20, 30, 31, 31]), 0.9)
    assert [key.sample for key in chosen] == [0, 3, 5]
    assert chosen[0].similarity is None
    assert chosen[1].similarity == pytest.approx(np.cos(np.radians(30)), abs=1e-5)
    assert chosen[2].similarity == pytest.approx(np.cos(np.radians(1)), abs=1e-5)


def test_clips_of_no_one_and_two_frames() -> None:
    assert select(directions([]).reshape(0, 2), 0.9) == []
    assert [key.sample for key in select(directions([5]), 0.9)] == [0]
    assert [key.sample for key in select(directions([5, 5]), 0.9)] == [0, 1]


angles = st.lists(st.integers(0, 359), min_size=1, max_size=30)


@given(angles, st.floats(-1, 1))
def test_the_rule(turns: list[int], threshold: float) -> None:
    vectors = directions(turns)
    chosen = select(vectors, threshold)
    samples = [key.sample for key in chosen]
    assert samples[0] == 0 and samples[-1] == len(turns) - 1 and samples == sorted(set(samples))
    for sample in range(1, len(turns) - 1):
        latest = max(earlier for earlier in samples if earlier < sample)
        assert (sample in samples) == (float(np.dot(vectors[latest], vectors[sample])) < threshold)


@given(angles, st.floats(0.1, 30))
def test_longest_gap(turns: list[int], max_gap_s: float) -> None:
    times_s = [0.5 + INTERVAL_S * sample for sample in range(len(turns))]
    chosen = select(directions(turns), 0.9, timestamps_s=times_s, max_gap_s=max_gap_s)
    free = {key.sample for key in select(directions([0] * len(turns)), 0.9)}
    assert free <= {key.sample for key in chosen}
    for early, late in zip(chosen, chosen[1:], strict=False):
        gap = times_s[late.sample] - times_s[early.sample]
        assert gap <= max(max_gap_s, INTERVAL_S) + 1e-9


def test_longest_gap_needs_times_that_increase() -> None:
    for times_s in (None, [0.0], [0.0, 0.0]):
        with pytest.raises(ValueError):
            select(directions([0, 1]), 0.9, timestamps_s=times_s, max_gap_s=4.0)


@pytest.mark.parametrize(
    ("size", "expected"), [((120, 400), (64, 19)), ((50, 20), (20, 50)), ((3, 900), (64, 1))]
)
def test_jpeg_is_scaled_down_only(size: tuple[int, int], expected: tuple[int, int]) -> None:
    frame = np.full((*size, 3), 77, np.uint8)
    data = jpeg_bytes(frame, max_side=64, quality=92)
    image = Image.open(io.BytesIO(data))
    assert image.format == "JPEG" and image.size == expected
    assert abs(int(np.asarray(image).mean()) - 77) <= 1
    assert jpeg_bytes(frame, max_side=64, quality=92) == data


def test_key_frames_follow_the_changes_of_real_films(tmp_path: Path) -> None:
    """At least 0.95 of observable changes get a key frame, with at most 1.5 key frames per change."""
    observable = found = changed = kept = 0
    for seed in HELD_OUT_SEEDS:
        clip = sample_clip(seed, ("train", "combination")[seed % 2], duration_s=(10.0, 20.0))
        film = write_film(tmp_path / f"{seed}.mp4", rendered(clip, fps=4), fps=4, crf=(18, 23, 30)[seed % 3])
        times_s = every(clip.duration_s, INTERVAL_S)
        frames = frames_at(film, times_s)
        keys = {
            key.sample for key in select(DESCRIPTOR.encode([f.rgb for f in frames]), DESCRIPTOR.threshold)
        }
        kept += len(keys)
        changes = clip_changes(clip, [frame.timestamp_s for frame in frames])
        for sample, facts in enumerate(changes, start=1):
            changed += bool(facts)
            if any(fact.observable for fact in facts):
                observable += 1
                found += sample in keys
    assert observable > 60
    assert found >= 0.95 * observable
    assert kept <= 1.5 * changed
