"""CLIP between captions and frames: a tiny model with random weights, the real tokenizer."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from share4video.curation.frame_text import FrameTextEncoder, FrameTextScores, frame_text_scores
from share4video.errors import UserError
from tests.curation.tiny_clip import add_tiny_clip
from tests.engines import picture

pytestmark = pytest.mark.timeout(600)  # importing torch and open_clip alone can take minutes on busy cores


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> FrameTextScores:
    return frame_text_scores(add_tiny_clip(tmp_path_factory.mktemp("architectures")))


def test_a_score_is_the_cosine_of_open_clips_embeddings(scores: FrameTextScores) -> None:
    import open_clip
    import torch

    frames, caption = [picture("red"), picture("blue", (90, 40))], "A red square."
    score = scores.scorer(frames)
    model, prepare = scores.encoder._pair
    for index, frame in enumerate(frames):
        with torch.inference_mode():
            image = model.encode_image(prepare(Image.open(io.BytesIO(frame)).convert("RGB"))[None])
            text = model.encode_text(open_clip.get_tokenizer(scores.encoder.architecture)([caption]))
        expected = torch.nn.functional.cosine_similarity(image, text).item()
        assert score(index, caption) == pytest.approx(expected, abs=1e-5)
    assert score(0, caption) != score(1, caption)


def test_a_long_caption_is_cut_after_a_whole_sentence(scores: FrameTextScores) -> None:
    encoder, short = scores.encoder, "A dog runs. "
    assert encoder.readable("A dog runs.") == "A dog runs."
    assert encoder.readable(short * 9) == (short * 3).strip()  # 4 tokens each, 2 marks, 16 are read
    endless = "A " + "very " * 40 + "large dog runs."
    assert encoder.readable(f"{endless} It stops.") == endless
    vectors = [encoder.embed_text(text) for text in (endless, endless + " It stops.", short, "")]
    np.testing.assert_array_equal(vectors[0], vectors[1])
    assert all(np.linalg.norm(vector) == pytest.approx(1, abs=1e-5) for vector in vectors)


def test_threads_get_the_same_scores(scores: FrameTextScores) -> None:
    def scored(name: str) -> list[float]:
        score = scores.scorer([picture(name), picture("black")])
        return [score(index, f"It is {name}.") for index in (0, 1)]

    names = ["red", "green", "blue", "white"] * 4
    alone = [scored(name) for name in names]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(scored, names)) == alone


def test_what_is_no_clip_is_refused(tmp_path: Path) -> None:
    for name in ("descriptor", "open_clip:"):
        with pytest.raises(UserError, match="by a CLIP"):
            frame_text_scores(name)
    with pytest.raises(UserError, match="quickgelu"):
        frame_text_scores("open_clip:ViT-L-14-336")
    missing = FrameTextEncoder.named(f"tiny-pair-quickgelu/{tmp_path}/none.safetensors")
    with pytest.raises(UserError, match="cannot load"):
        missing.embed_text("A dog.")
