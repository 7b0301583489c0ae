"""How well captions fit their frames, by CLIP: the cosine of the two embeddings."""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from share4video.curation.encoders import Vectors
from share4video.curation.neural import OpenClipEncoder
from share4video.errors import UserError

if TYPE_CHECKING:
    import torch

_SENTENCE = re.compile(r"(?<=[.!?])\s+")


class FrameTextEncoder(OpenClipEncoder):
    """Both towers of a CLIP. A caption that is longer than the text tower reads is cut after a sentence."""

    @cached_property
    def _pair(self) -> tuple[torch.nn.Module, Callable[[Any], torch.Tensor]]:
        model, prepare = self._create()
        return model.eval(), prepare

    @cached_property
    def _model(self) -> tuple[torch.nn.Module, Callable[[Any], torch.Tensor]]:
        model, prepare = self._pair
        return model.get_submodule("visual"), prepare

    def embed_text(self, text: str) -> Vectors:
        """Return the text's embedding, float32 [D] of length 1. Raises UserError without weights."""
        import torch

        model: Any = self._pair[0]
        where = next(model.parameters()).device
        with torch.inference_mode():
            tokens = self._tokenizer([self.readable(text)]).to(where)
            vector: Vectors = model.encode_text(tokens, normalize=True)[0].float().cpu().numpy()
        return vector

    def readable(self, text: str) -> str:
        """Return as many whole sentences of the text as the tower reads; of a longer first one the beginning
        is read."""
        sentences = _SENTENCE.split(text.strip())
        read = sentences[0]
        for sentence in sentences[1:]:
            if self._tokens(longer := f"{read} {sentence}") > self._tokenizer.context_length:
                break
            read = longer
        return read

    def _tokens(self, text: str) -> int:
        """Return how many tokens the text has with its marks, up to twice what the tower reads."""
        room = 2 * self._tokenizer.context_length
        tokens, padding = self._tokenizer([text, ""], context_length=room)
        return 1 + int((tokens != padding[-1]).nonzero().max())


class FrameTextScores:
    """Scores captions against frames; the frames of a clip are encoded at once. May be used by threads."""

    def __init__(self, encoder: FrameTextEncoder) -> None:
        self.encoder = encoder
        self._one_at_a_time = threading.Lock()

    @property
    def identity(self) -> str:
        """What scores depend on: never where the weights are."""
        return f"open_clip:{self.encoder.architecture}@{self.encoder.revision}"

    def scorer(self, frames: Sequence[bytes]) -> Callable[[int, str], float]:
        """Return what scores a caption, in [-1, 1], against one of ``frames`` (image files) by its index."""
        pictures = [np.asarray(Image.open(io.BytesIO(frame)).convert("RGB")) for frame in frames]
        with self._one_at_a_time:
            vectors = self.encoder.embed(pictures)

        def score(index: int, text: str) -> float:
            with self._one_at_a_time:
                return float(vectors[index] @ self.encoder.embed_text(text))

        return score


@lru_cache(maxsize=1)  # so that the shards of a run load it once
def frame_text_scores(name: str) -> FrameTextScores:
    """Return what scores captions by ``open_clip:ARCHITECTURE[/WEIGHTS]``; weights load with the first frame.

    Raises:
        UserError: that is no CLIP, or open_clip is not installed.
    """
    kind, _, model = name.partition(":")
    if kind != "open_clip" or not model:
        raise UserError(
            "captions are compared with frames by a CLIP",
            where=f"caption.checks.frame_text_encoder={name}",
            fix="use open_clip:ViT-L-14-336-quickgelu",
        )
    if find_spec("open_clip") is None:
        raise UserError("open_clip is not installed", where=name, fix="install share4video[curation]")
    return FrameTextScores(FrameTextEncoder.named(model))
