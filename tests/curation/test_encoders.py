from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from share4video.curation.encoders import (
    COARSE_DESCRIPTOR,
    DESCRIPTOR,
    FrameEncoder,
    HashingEncoder,
    Rgb,
    TextEncoder,
    cut_threshold,
    frame_encoder,
    text_encoder,
)
from share4video.errors import UserError
from share4video.media.decode import frames_at
from share4video.synthetic.render import render, render_state
from share4video.synthetic.world import Body, Clip, Seen, State
from tests.curation.films import brighter, cropped, write_film

EMPTY = Clip(11, 10.0, "grey", (), (), ())


def scene(x: float, y: float = 0.5, *, colour: str = "red", seed: int = 3, background: str = "grey") -> Rgb:
    seen = Seen(0, "square", colour, "small", x, y, x)
    return render_state(State((seen,), background, 0.0), seed)


def small_square(x: float, side: int = 256, share: float = 0.2) -> Rgb:
    """A square of a fifth of the side on a textured ground."""
    frame = render(EMPTY, 0.0, side).copy()
    left, top, size = round(x * side), round(0.4 * side), round(share * side)
    frame[top : top + size, left : left + size] = (45, 85, 225)
    return frame


def similarity(encoder: FrameEncoder, one: Rgb, two: Rgb) -> float:
    first, second = encoder.encode([one, two])
    return float(first @ second)


def test_descriptor_rows_have_length_one_for_any_size() -> None:
    frames = [np.zeros((1, 1, 3), np.uint8), np.full((37, 501, 3), 255, np.uint8), scene(0.3)]
    vectors = DESCRIPTOR.encode(frames)
    assert vectors.dtype == np.float32 and vectors.shape == (3, 772)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert DESCRIPTOR.encode([]).shape == (0, 772)


def test_descriptor_does_not_depend_on_the_batch_or_the_picture_size() -> None:
    frames = [scene(0.3), scene(0.6), small_square(0.2)]
    alone = np.concatenate([DESCRIPTOR.encode([frame]) for frame in frames])
    assert np.array_equal(DESCRIPTOR.encode(frames), alone)
    assert similarity(DESCRIPTOR, small_square(0.2, 256), small_square(0.2, 640)) > 0.995


@pytest.mark.parametrize("step", [0.08, 0.16, 0.5])
def test_descriptor_sees_a_small_object_shift(step: float) -> None:
    assert similarity(DESCRIPTOR, small_square(0.2), small_square(0.2 + step)) < DESCRIPTOR.threshold


@pytest.mark.parametrize(
    "changed",
    [
        render_state(State((), "grey", 0.0), 3),  # disappeared
        scene(0.5, colour="yellow"),
        scene(0.5, background="dark"),  # cut to another ground, the object in its place
        scene(0.5, 0.58),
    ],
)
def test_descriptor_sees_what_changed(changed: Rgb) -> None:
    assert similarity(DESCRIPTOR, scene(0.5), changed) < DESCRIPTOR.threshold


@pytest.mark.parametrize("frame", [scene(0.4), render(EMPTY, 0.0), np.full((256, 256, 3), 90, np.uint8)])
@pytest.mark.parametrize("crf", [23, 38])
def test_descriptor_ignores_noise_and_its_compression(tmp_path: Path, frame: Rgb, crf: int) -> None:
    rng = np.random.default_rng(0)
    noisy = [np.clip(frame + rng.normal(0, 5, frame.shape), 0, 255).astype(np.uint8) for _ in range(24)]
    film = write_film(tmp_path / "still.mp4", noisy, crf=crf)
    vectors = DESCRIPTOR.encode([shown.rgb for shown in frames_at(film, [0.0, 0.5, 1.5, 2.9])])
    assert (vectors @ vectors.T).min() > 0.99


def test_coarse_descriptor_forgives_what_copies_differ_in() -> None:
    frame = render(Clip(5, 10.0, "dark", (Body("circle", "green", "large", 0.3, 0.6),), (), ()), 0.0)
    for copy in (cropped([frame], 8)[0], brighter([frame], 1.2)[0], brighter([frame], 0.8)[0]):
        assert similarity(COARSE_DESCRIPTOR, frame, copy) > COARSE_DESCRIPTOR.duplicate_threshold


def test_descriptor_refuses_what_is_no_picture() -> None:
    wrongs: list[Any] = [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)]
    for wrong in wrongs:
        with pytest.raises(ValueError, match="RGB"):
            DESCRIPTOR.encode([wrong])


def test_hashing_is_the_same_in_every_process() -> None:
    texts = ["A moving red circle on a grey background.", "Ein Ärger", ""]
    script = (
        "import sys, json; from share4video.curation.encoders import HashingEncoder;"
        "print(HashingEncoder().encode(json.loads(sys.argv[1])).tobytes().hex())"
    )
    for seed in ("1", "2"):
        reply = subprocess.run(
            [sys.executable, "-c", script, json.dumps(texts)],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
        )
        assert reply.stdout.strip() == HashingEncoder().encode(texts).tobytes().hex()


@given(st.lists(st.text(max_size=60), max_size=6))
def test_hashing_gives_unit_or_empty_rows(texts: list[str]) -> None:
    vectors = HashingEncoder().encode(texts)
    assert vectors.shape == (len(texts), 1024) and vectors.dtype == np.float32
    lengths = np.linalg.norm(vectors, axis=1)
    assert np.all((abs(lengths - 1) < 1e-5) | (lengths == 0))


def test_hashing_threshold_tells_a_word_apart_but_not_case_and_stops() -> None:
    encoder = HashingEncoder()
    one, shouted, other = encoder.encode(
        [
            "A moving red circle and a still blue square on a grey background.",
            "a moving RED circle, and a still blue square on a grey background",
            "A moving red circle and a still green square on a grey background.",
        ]
    )
    assert one @ shouted == pytest.approx(1)
    assert one @ other < encoder.threshold


def test_encoders_are_found_by_name() -> None:
    for name in ("descriptor", "descriptor-coarse", "open_clip:ViT-L-14-336-quickgelu/openai"):
        found = frame_encoder(name)
        assert found.name == name and isinstance(found, FrameEncoder)
    for name in ("hashing", "bert:bert-base-uncased"):
        text = text_encoder(name)
        assert text.name == name and isinstance(text, TextEncoder)
    for find in (frame_encoder, text_encoder):
        with pytest.raises(UserError, match="unknown"):
            find("magic")


def test_bounds_on_cuts_are_known_without_loading_a_model() -> None:
    assert cut_threshold("descriptor") == DESCRIPTOR.cut_threshold < DESCRIPTOR.threshold
    assert cut_threshold("open_clip:ViT-L-14-336-quickgelu") == 0.7
    assert "torch" not in loaded_by(
        "from share4video.curation.encoders import cut_threshold as c; c('open_clip:x')"
    )
    with pytest.raises(UserError, match="unknown frame encoder"):
        cut_threshold("nothing")


@pytest.mark.parametrize("encoder", [DESCRIPTOR, COARSE_DESCRIPTOR], ids=lambda encoder: encoder.name)
def test_frames_of_two_films_are_of_two_scenes(data_root: Path, encoder: FrameEncoder) -> None:
    """A long take is one scene; where one film follows another a cut is found, but for few."""
    videos = data_root / "videos"
    names = ("dj_video3", "jesse_dance", "making_cake", "playing_guitar", "yoga", "hitting_baseball")
    films = {name: encoder.encode(opening(videos / f"{name}.mp4")) for name in names}
    joints = [float(films[one][-1] @ films[other][0]) for one, other in permutations(films, 2)]
    assert np.mean(np.array(joints) < encoder.cut_threshold) > 0.9
    for name in ("dj_video3", "jesse_dance", "playing_guitar", "yoga"):
        for before, after in pairwise(films[name]):
            assert float(before @ after) >= encoder.cut_threshold


def opening(path: Path) -> list[Rgb]:
    return [frame.rgb for frame in frames_at(path, [0.0, 2.0, 4.0, 6.0, 8.0], max_side=256)]


def loaded_by(code: str) -> str:
    """Return the names of the modules that are loaded after ``code`` ran in a process of its own."""
    words = [sys.executable, "-c", f"{code}; import sys; print(*sys.modules)"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout
