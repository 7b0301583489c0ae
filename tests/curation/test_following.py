"""Key frames chosen while a film is decoded are those chosen when it is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from share4video.config import KeyframeConfig
from share4video.curation.following import follow
from share4video.curation.keyframes import Selection, select
from share4video.curation.samples import choose, encoder_of, sample
from share4video.errors import UserError
from share4video.media.decode import frames_every
from share4video.media.probe import probe
from tests.curation.test_keyframes import angles, directions
from tests.media.clips import write_clip


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("film") / "film.mp4", frames=250, fps=8)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"threshold": 0.9},
        {"threshold": -1.0, "max_gap_s": 5.0},
        {"threshold": -1.0, "motion_threshold": 0.3},
        {"mode": "uniform"},
    ],
)
def test_following_chooses_what_the_stage_chooses(film: Path, settings: dict[str, Any]) -> None:
    config = KeyframeConfig(**settings)
    samples = sample(film, 0.0, probe(film).duration_s, config)
    encoder = encoder_of(config)
    encodings = None if encoder is None else encoder.encode(samples.pictures)
    known = choose(samples, encodings, encoder, config)
    times = [(samples.frames[one.sample].timestamp_s, one.similarity) for one in known]
    followed = follow(frames_every(film, config.interval_s, max_side=config.max_side), config)
    assert [(one.frame.timestamp_s, one.similarity) for one in followed] == times
    assert len(times) > 1


def test_key_frames_come_while_frames_do(film: Path) -> None:
    decoded = []

    def counted() -> Any:
        for frame in frames_every(film, 2.0):
            decoded.append(frame.timestamp_s)
            yield frame

    found = follow(counted(), KeyframeConfig(threshold=1.0))
    assert next(found).frame.timestamp_s == 0.0
    assert decoded == [0.0, 2.0]


def test_the_reference_needs_the_whole_film(film: Path) -> None:
    with pytest.raises(UserError, match="need the whole clip"):
        next(follow(frames_every(film, 2.0), KeyframeConfig(mode="reference")))


@given(angles, st.floats(-1, 1))
def test_a_selection_is_the_rule_one_by_one(turns: list[int], threshold: float) -> None:
    selection, vectors = Selection(threshold), directions(turns)
    found = [selection.add(vector) for vector in vectors]
    assert found[0] is None  # the next one, or the end, must be known
    assert [one for one in [*found, selection.close()] if one] == select(vectors, threshold)
    assert selection.close() is None
