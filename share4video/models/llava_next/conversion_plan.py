"""What a conversion writes, decided from names, shapes and settings before a weight is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from share4video.errors import UserError
from share4video.models.llava_next import lora
from share4video.models.llava_next.chat_template import END_OF_TURN
from share4video.models.llava_next.checkpoint_reader import (
    LazyTensor,
    StoredTensor,
    byte_size,
    cannot_be_mapped,
    name_some,
    open_weights,
)
from share4video.models.llava_next.checkpoint_writer import (
    DTYPES,
    Entry,
    Shard,
    plan_shards,
)
from share4video.models.llava_next.config import (
    OriginalConfig,
    computable,
    derive_vision_config,
    llava_next_config,
    read_json,
    read_original_config,
    read_vision_config,
)
from share4video.models.llava_next.resized import ResizedRows
from share4video.models.llava_next.state_dict_adapter import disk_name_of_original, is_buffer
from share4video.models.llava_next.tokens import Tokens, load_tokens

if TYPE_CHECKING:
    import torch
    from transformers import CLIPVisionConfig, GenerationConfig, LlavaNextConfig

_EMBEDDING, _HEAD = "model.embed_tokens.weight", "lm_head.weight"


@dataclass(frozen=True)
class Plan:
    """Everything that is known before a weight is read."""

    original: OriginalConfig
    config: LlavaNextConfig
    generation: GenerationConfig
    tokens: Tokens
    folders: tuple[Path, ...]
    shards: tuple[Shard, ...]
    dropped: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def bytes(self) -> int:
        return sum(shard.bytes for shard in self.shards)


def make_plan(folder: Path, base: Path | None, shown: str, dtype: str | None, max_shard_bytes: int) -> Plan:
    """Compare a checkpoint with its architecture and decide what is written; no weight is read.

    Args:
        shown: the folder as a person knows it.

    Raises:
        UserError: the folder holds no such checkpoint, or its names, shapes or tokens do not fit.
    """
    original = read_original_config(folder, shown)
    notes: list[str] = []
    tensors: Mapping[str, LazyTensor]
    adapter = lora.is_adapter(folder)
    if adapter:
        if base is None:
            raise UserError("these are LoRA weights", where=shown, fix="name what they change with --base")
        tensors = lora.merge(folder, open_weights(base, "model"), shown)
        notes.append("LoRA weights were merged into their base.")
    elif base is not None:
        raise UserError("a whole model needs no base", where="--base", fix="leave it out")
    else:
        tensors = open_weights(folder, "model")
    dropped = tuple(sorted(name for name in tensors if is_buffer(name)))
    if original.tie_word_embeddings and _HEAD in tensors:
        dropped += (_HEAD,)
    kept = {name: tensor for name, tensor in tensors.items() if name not in dropped}
    named, unexpected = _rename(kept)
    folders = tuple(f for f in (folder, base) if f is not None)
    vision = _vision_config(folders, kept, shown, notes)
    held = kept[_EMBEDDING].shape[0] if _EMBEDDING in kept else original.vocab_size
    rows, stored = held, original.vocab_size
    if adapter and held < original.vocab_size:
        # The training added <pad>, whose rows are frozen and so not saved: the base's own are all there is.
        rows, stored = original.vocab_size, held
        notes.append(f"The base has {held} rows for the {rows} of the training; the rest are their mean.")
    tokenizer_folder = next((f for f in folders if (f / "tokenizer.json").is_file()), folder)
    tokens = load_tokens(tokenizer_folder, original, rows, shown)
    config = llava_next_config(
        original, vision, vocab_size=tokens.vocab_size, image_token_id=tokens.image_token_id
    )
    _check_names(named, unexpected, config, stored, shown)
    for name in ("language_model.model.embed_tokens.weight", "language_model.lm_head.weight"):
        if name in named:
            named[name] = ResizedRows(named[name], tokens.vocab_size)
    wanted = DTYPES[dtype] if dtype else _prevailing(named) if adapter else None
    entries = [Entry(name, tensor, wanted or _writable(tensor.dtype)) for name, tensor in named.items()]
    config.dtype = wanted or _prevailing(named)
    notes.append(
        f"<image> is token {tokens.image_token_id}; the vocabulary grew from {held} to "
        f"{tokens.vocab_size} rows."
    )
    opening = "two BOS, as its tokenizer adds one to the text's" if tokens.opening.added_bos else "one BOS"
    notes.append(f"Prompts begin with {opening}.")
    sources = {source.file for source in _stored(kept.values())}
    if old := sorted(file.name for file in sources if cannot_be_mapped(file)):
        notes.append(
            f"{name_some(old)}: pickled as PyTorch before 1.6 did it, and so in memory whole while they are "
            "read."
        )
    return Plan(
        original,
        config,
        _generation_config(folders, original, tokens),
        tokens,
        folders,
        tuple(plan_shards(entries, max_shard_bytes)),
        dropped,
        tuple(notes),
    )


def _stored(tensors: Iterable[LazyTensor]) -> Iterator[StoredTensor]:
    """Yield the tensors in files that these are made of."""
    for tensor in tensors:
        if isinstance(tensor, lora.MergedTensor):
            yield from _stored((tensor.base, tensor.a, tensor.b))
        elif isinstance(tensor, StoredTensor):
            yield tensor


def _rename(tensors: Mapping[str, LazyTensor]) -> tuple[dict[str, LazyTensor], list[str]]:
    named: dict[str, LazyTensor] = {}
    unexpected = []
    for name, tensor in tensors.items():
        try:
            named[disk_name_of_original(name)] = tensor
        except ValueError:
            unexpected.append(name)
    return named, unexpected


def _vision_config(
    folders: tuple[Path, ...], tensors: Mapping[str, LazyTensor], shown: str, notes: list[str]
) -> CLIPVisionConfig:
    vision = read_vision_config(folders)
    if vision is None:
        vision = derive_vision_config({name: tensor.shape for name, tensor in tensors.items()}, shown)
        notes.append(
            "The vision tower's configuration was read off its weights, with "
            f"{vision.num_attention_heads} heads of width 64, quick GELU and 1e-5 in its norms, as in every "
            "CLIP OpenAI released."
        )
    return vision


def _check_names(
    named: Mapping[str, LazyTensor],
    unexpected: list[str],
    config: LlavaNextConfig,
    rows: int,
    shown: str,
) -> None:
    """Compare names and shapes with the architecture.

    Args:
        rows: of the embeddings before tokens are added.
    """
    wanted = _architecture(config, rows)
    missing = sorted(wanted.keys() - named.keys())
    strange = sorted(unexpected + [name for name in named if name not in wanted])
    other = [
        f"{name} is {tuple(named[name].shape)} and not {wanted[name]}"
        for name in sorted(wanted.keys() & named.keys())
        if tuple(named[name].shape) != wanted[name]
    ]
    problems = [
        f"{len(names)} {kind} ({name_some(names)})"
        for kind, names in (("missing", missing), ("unexpected", strange), ("of another shape", other))
        if names
    ]
    if problems:
        raise UserError(
            f"the weights do not fit the configuration: {'; '.join(problems)}",
            where=shown,
            fix="fetch the whole checkpoint again; an adapter needs --base with the vision tower inside",
        )


def _architecture(config: LlavaNextConfig, rows: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all weights, by their name on disk; no memory is taken."""
    import torch
    from transformers import LlavaNextForConditionalGeneration

    from share4video.models.llava_next.state_dict_adapter import disk_name

    with computable("config.json"), torch.device("meta"):
        model = LlavaNextForConditionalGeneration(config)
    shapes = {disk_name(name): tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if config.tie_word_embeddings:
        shapes.pop("language_model.lm_head.weight", None)
    for name in ("language_model.model.embed_tokens.weight", "language_model.lm_head.weight"):
        if name in shapes:
            shapes[name] = (rows, *shapes[name][1:])
    return shapes


def _writable(dtype: torch.dtype) -> torch.dtype:
    return dtype if dtype in DTYPES.values() else DTYPES["float32"]


def _prevailing(tensors: Mapping[str, LazyTensor]) -> torch.dtype:
    """Return the type most of the bytes have, which is what the configuration says of the whole.

    Adapters are trained beside their base in another type; merged, all of it is in this one.
    """
    bytes_of: dict[torch.dtype, int] = {}
    for tensor in tensors.values():
        dtype = _writable(tensor.dtype)
        bytes_of[dtype] = bytes_of.get(dtype, 0) + byte_size(tensor.shape, dtype)
    return max(bytes_of, key=lambda kind: bytes_of[kind])


def _generation_config(
    folders: tuple[Path, ...], original: OriginalConfig, tokens: Tokens
) -> GenerationConfig:
    """Return the checkpoint's own, with the end of a turn among what ends an answer.

    Numbers for drawing stay only where the checkpoint draws: the library reads what LLaVA left beside
    greedy decoding, but does not write it.

    Raises:
        UserError: a value is none the library knows.
    """
    from transformers import GenerationConfig

    paths = [folder / "generation_config.json" for folder in folders]
    found = next((read_json(path) for path in paths if path.is_file()), {})
    ends = found.get("eos_token_id", original.text.get("eos_token_id"))
    ends = ends if isinstance(ends, list) else [] if ends is None else [ends]
    end_of_turn = tokens.tokenizer.get_vocab()[END_OF_TURN]
    ends = [*ends, end_of_turn] if end_of_turn not in ends else ends
    drawn = ("do_sample", "temperature", "top_p", "top_k") if found.get("do_sample") is True else ()
    with computable("generation_config.json"):
        config = GenerationConfig(
            bos_token_id=tokens.tokenizer.bos_token_id,
            eos_token_id=ends if len(ends) > 1 else ends[0],
            pad_token_id=tokens.tokenizer.pad_token_id,
            **{key: found[key] for key in drawn if key in found},
        )
        config.validate(strict=True)
    return config
