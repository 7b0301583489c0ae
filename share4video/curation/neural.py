"""Learned encoders: CLIP for frames, text models for captions. torch is imported when one is first used.

CLIP and BERT give the state of the class token, as the ShareGPT4Video paper takes it for key frames (section
3.2) and for the de-duplication of captions (section 3.1). Weights are safetensors; no code of a model
repository is run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from share4video.curation.encoders import CLIP_CUT_THRESHOLD, FRAMES_PER_BATCH, Rgb, Vectors
from share4video.errors import UserError

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

PAPER_FRAME_THRESHOLD = 0.93  # section 3.2 and the released script
TEXTS_PER_BATCH = 64
# What is fetched of a model on the hub, and what a folder must not have instead of safetensors.
_SAFE_FILES = ("*.json", "*.txt", "*.model", "*.safetensors")
_PICKLED = ("pytorch_model*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")


class OpenClipEncoder:
    """CLIP's class token before the last norm of the vision tower: ``hidden_states[-1][:, 0]`` elsewhere.

    Every batch has one size, the last is filled up: matrix products of another shape may differ in their
    last bits, and a frame's vector must not depend on the frames encoded beside it.

    Args:
        architecture: open_clip's name.
        weights: a tag open_clip knows, a ``.safetensors`` file, or None for random weights from seed 0.
        batch: frames computed at a time.

    Raises:
        UserError: OpenAI's weights are asked for in an architecture that computes another activation.
    """

    threshold = PAPER_FRAME_THRESHOLD
    duplicate_threshold = 0.98  # what Open-Sora uses on one frame; not measured here
    cut_threshold = CLIP_CUT_THRESHOLD

    def __init__(
        self, architecture: str, weights: str | None = "openai", *, batch: int = FRAMES_PER_BATCH
    ) -> None:
        if weights == "openai" and not architecture.endswith("-quickgelu"):
            raise UserError(
                "OpenAI's CLIP weights need QuickGELU, which this architecture does not compute",
                where=architecture,
                fix=f"use {architecture}-quickgelu",
            )
        if weights is not None and "/" in weights and not weights.endswith(".safetensors"):
            raise UserError("weights must be safetensors", where=weights, fix="convert the file")
        self.architecture, self.weights, self.batch = architecture, weights, batch

    @classmethod
    def named(cls, model: str) -> Self:
        """Read ``ARCHITECTURE[/WEIGHTS]``; without weights OpenAI's, and ``random`` for none."""
        architecture, _, weights = model.partition("/")
        return cls(architecture, None if weights == "random" else weights or "openai")

    @property
    def name(self) -> str:
        weights = self.revision if self._is_file else self.weights or "random"
        return f"open_clip:{self.architecture}/{weights}"

    @cached_property
    def revision(self) -> str:
        """The hash of a weights file, else the tag: open_clip's tags name weights that do not change."""
        if self._is_file:
            with _weights_of(self._asked):
                return _hash_of(Path(str(self.weights)))
        return self.weights or "random-0"

    @property
    def _is_file(self) -> bool:
        return self.weights is not None and self.weights.endswith(".safetensors")

    @property
    def _asked(self) -> str:
        return f"open_clip:{self.architecture}/{self.weights or 'random'}"

    @cached_property
    def _model(self) -> tuple[torch.nn.Module, Callable[[Any], torch.Tensor]]:
        model, prepare = self._create()
        return model.get_submodule("visual").eval(), prepare

    def _create(self) -> tuple[torch.nn.Module, Callable[[Any], torch.Tensor]]:
        """Load both towers, and return them with what makes a picture ready."""
        import open_clip
        import torch

        torch.manual_seed(0)
        with _weights_of(self._asked):
            model, _, prepare = open_clip.create_model_and_transforms(
                self.architecture, pretrained=self.weights, device=_device()
            )
        return model, prepare

    @cached_property
    def _tokenizer(self) -> Any:
        import open_clip

        with _weights_of(self.name):
            return open_clip.get_tokenizer(self.architecture)

    def encode(self, frames: Sequence[Rgb]) -> Vectors:
        """See ``FrameEncoder``. Raises UserError where the weights cannot be had."""
        import torch

        tower, _ = self._model
        states: list[torch.Tensor] = []
        hook = tower.get_submodule("transformer").register_forward_hook(
            lambda _module, _inputs, output: states.append(output[:, 0].float().cpu())
        )
        try:
            with torch.inference_mode():
                for batch in self._batches(frames):
                    tower(batch)
        finally:
            hook.remove()
        return _unit(states)[: len(frames)]

    def embed(self, frames: Sequence[Rgb]) -> Vectors:
        """Return CLIP's image embeddings, as they are compared with text: float32 [N, D], rows of length 1.

        Raises:
            UserError: the weights cannot be had.
        """
        import torch

        tower, _ = self._model
        with torch.inference_mode():
            embeddings = [tower(batch).float().cpu() for batch in self._batches(frames)]
        return _unit(embeddings)[: len(frames)]

    def _batches(self, frames: Sequence[Rgb]) -> Iterator[torch.Tensor]:
        """Yield the frames as the tower takes them; the last batch is filled up with nothing."""
        import torch
        from PIL import Image

        _, prepare = self._model
        for start in range(0, len(frames), self.batch):
            batch = [prepare(Image.fromarray(frame)) for frame in frames[start : start + self.batch]]
            batch += [torch.zeros_like(batch[0])] * (self.batch - len(batch))
            yield torch.stack(batch).to(_device())


class BertEncoder:
    """BERT's class token of the last layer; captions are cut at 512 tokens.

    Raw class tokens all lie close together: unrelated captions are often above 0.7, so the pair floor has to
    be raised with it. The paper does not print the threshold it used.
    """

    threshold = 0.95

    def __init__(self, model: str = "bert-base-uncased") -> None:
        self.model = model

    @property
    def name(self) -> str:
        return f"bert:{self.revision}"

    @cached_property
    def revision(self) -> str:
        """The hash of a local checkpoint's files, else the name on the model hub."""
        with _weights_of(self._asked):
            return _revision_of(self.model)

    @property
    def _asked(self) -> str:
        return f"bert:{self.model}"

    @cached_property
    def _model(self) -> tuple[Any, torch.nn.Module]:
        from transformers import AutoModel, AutoTokenizer

        with _weights_of(self._asked):
            tokenizer = AutoTokenizer.from_pretrained(self.model, trust_remote_code=False)
            model = AutoModel.from_pretrained(self.model, use_safetensors=True, trust_remote_code=False)
        return tokenizer, model.eval().to(_device())

    def encode(self, texts: Sequence[str]) -> Vectors:
        """See ``TextEncoder``. Raises UserError where the weights cannot be had."""
        import torch

        tokenizer, model = self._model
        states = []
        with torch.inference_mode():
            for start in range(0, len(texts), TEXTS_PER_BATCH):
                batch = tokenizer(
                    list(texts[start : start + TEXTS_PER_BATCH]),
                    return_tensors="pt",
                    padding=True,
                    truncation=True,
                    max_length=512,
                ).to(_device())
                states.append(model(**batch).last_hidden_state[:, 0].float().cpu())
        return _unit(states)


class SentenceEncoder:
    """Any model in the format of sentence-transformers, with the pooling its folder asks for.

    The threshold is a starting point that was not measured; the sweep in the report shows what others keep.
    """

    threshold = 0.9

    def __init__(self, model: str) -> None:
        self.model = model

    @property
    def name(self) -> str:
        return f"sentence:{self.revision}"

    @cached_property
    def revision(self) -> str:
        """The hash of a local model's files, else the name on the model hub."""
        with _weights_of(self._asked):
            return _revision_of(self.model)

    @property
    def _asked(self) -> str:
        return f"sentence:{self.model}"

    @cached_property
    def _model(self) -> SentenceTransformer:
        from sentence_transformers import SentenceTransformer

        with _weights_of(self._asked):
            folder = self._folder()
            _refuse_pickled(folder)
            return SentenceTransformer(
                str(folder),
                device=_device(),
                model_kwargs={"use_safetensors": True},
                trust_remote_code=False,
                local_files_only=True,
            )

    def _folder(self) -> Path:
        """Return the model's folder; of one on the hub a copy, without what would be unpickled."""
        if Path(self.model).is_dir():
            return Path(self.model)
        from huggingface_hub import snapshot_download

        repository = self.model if "/" in self.model else f"sentence-transformers/{self.model}"
        return Path(snapshot_download(repository, allow_patterns=list(_SAFE_FILES)))

    def encode(self, texts: Sequence[str]) -> Vectors:
        """See ``TextEncoder``. Raises UserError where the weights cannot be had."""
        vectors = self._model.encode(
            list(texts), batch_size=TEXTS_PER_BATCH, normalize_embeddings=True, show_progress_bar=False
        )
        return np.asarray(vectors, np.float32)


def _refuse_pickled(folder: Path) -> None:
    """Check that every module of a sentence-transformers model has its weights as safetensors.

    Each lies in a folder of its own, and most fall back to unpickling what is there instead.

    Raises:
        ValueError: one has not.
    """
    for pattern in _PICKLED:
        for pickled in sorted(folder.rglob(pattern)):
            if not pickled.with_name("model.safetensors").is_file():
                raise ValueError(f"{pickled.relative_to(folder).as_posix()} is not safetensors")
    modules = folder / "modules.json"
    for module in json.loads(modules.read_bytes()) if modules.is_file() else ():
        if ".." in Path(module["path"]).parts or Path(module["path"]).is_absolute():
            raise ValueError(f"its module {module['path']} lies outside of it")


def _revision_of(model: str) -> str:
    """Return the hash of a folder's files, by name, without hidden ones; of no folder the name itself."""
    folder = Path(model)
    if not folder.is_dir():
        return model
    total = hashlib.sha256()
    for file in sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file()):
        if not any(part.startswith(".") for part in file.parts):  # as git's and the hub's own notes are
            total.update(f"{file.as_posix()}\0{_hash_of(folder / file)}\n".encode())
    return total.hexdigest()


def _hash_of(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def _weights_of(name: str) -> Iterator[None]:
    """Say in a sentence that a model's files are missing or wrong."""
    try:
        yield
    except (OSError, RuntimeError, ValueError, LookupError, TypeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"cannot load the encoder: {reason}", where=name, fix="check its name, or give a local copy"
        ) from error


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _unit(states: Sequence[torch.Tensor]) -> Vectors:
    if not states:
        return np.empty((0, 0), np.float32)
    import torch

    vectors = torch.nn.functional.normalize(torch.cat(list(states)), dim=1)
    return vectors.numpy()
