"""A VideoChat folder out of what it is published in: a language model and files of weights."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from share4video.errors import UserError
from share4video.models.loading import DTYPES, UNLOADABLE, load_whole
from share4video.models.videochat.config import VideoChatConfig
from share4video.models.videochat.model import TRAINED, VideoChatForConditionalGeneration
from share4video.models.videochat.processor import VideoChatProcessor, build_image_processor
from share4video.models.videochat.state_dict_adapter import AdapterError, from_released
from share4video.whole_folder import whole_folder

_SHOWN = 3


@dataclass(frozen=True)
class ConvertReport:
    """What a conversion did.

    Attributes:
        tensors: taken from the files of weights.
        fresh: parts that no file held and that begin as a training of stage 1 begins; they know nothing.
    """

    tensors: int
    fresh: tuple[str, ...]


def convert(
    language_model: Path,
    weights: Sequence[Path],
    target: Path,
    *,
    dtype: str = "float16",
    config: Mapping[str, Any] | None = None,
) -> ConvertReport:
    """Write a VideoChat folder.

    Args:
        language_model: a transformers folder, such as Vicuna's or StableVicuna's with its delta applied.
        weights: files of released weights, ``.pth`` or ``.safetensors``; what a later one holds counts.
        dtype: ``float32``, ``bfloat16`` or ``float16``, of the language model and the tower.
        config: settings of `VideoChatConfig` other than the released ones.

    Raises:
        UserError: a file cannot be read, holds something else, weights are missing that are not trained, or
            the settings make no model.
    """
    if dtype not in DTYPES:
        raise UserError("there is no such number format", where=dtype, fix=f"use {', '.join(DTYPES)}")
    _refuse_unknown(config or {})
    with whole_folder(target) as folder:
        text, tokenizer, model_of_text = _language_model(language_model, DTYPES[dtype])
        with _buildable():
            built = VideoChatConfig(**{**(config or {}), "text_config": text})
            with torch.device("meta"):
                model = VideoChatForConditionalGeneration(built)
        vision: Any = built.vision_config
        held: dict[str, torch.Tensor] = {}
        for file in weights:
            try:
                held |= from_released(_tensors(file), tower_layers=vision.num_hidden_layers)
            except AdapterError as error:
                fix = "give files of VideoChat, of BLIP-2's Q-Former or of EVA's tower"
                raise UserError(str(error), where=str(file), fix=fix) from error
        fresh = _fresh(model, held, built)
        _fit(model, {**fresh, **held}, DTYPES[dtype])
        model.language_model = model_of_text
        model.save_pretrained(folder)
        VideoChatProcessor(tokenizer, build_image_processor(vision.image_size), built.visual_tokens).save(
            folder
        )
    return ConvertReport(len(held), tuple(sorted({name.partition(".")[0] for name in fresh})))


def read_config(file: Path) -> dict[str, Any]:
    """Return settings of `VideoChatConfig` from a JSON file. Raises UserError where it holds none."""
    try:
        settings = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError("the settings cannot be read", where=str(file), fix="give a JSON file") from error
    if not isinstance(settings, dict):
        raise UserError("the settings are no object", where=str(file), fix="give a JSON object")
    return settings


def _refuse_unknown(settings: Mapping[str, Any]) -> None:
    """Raises UserError where the architecture, its tower or its Q-Former has no setting of a name."""
    known = VideoChatConfig().to_dict()
    asked = [("", settings, known)]
    for part in ("vision_config", "qformer_config"):
        if isinstance(settings.get(part), Mapping):
            asked.append((f"{part}.", settings[part], known[part]))
    for prefix, given, names in asked:
        if unknown := sorted(given.keys() - names.keys()):
            near = get_close_matches(unknown[0], list(names), n=1)
            raise UserError(
                "VideoChat has no such setting",
                where=f"--architecture, {prefix}{unknown[0]}",
                fix=f"did you mean {prefix}{near[0]}" if near else "take it out",
            )


@contextmanager
def _buildable() -> Iterator[None]:
    """Say in a sentence why no model can be built of the settings.

    Raises:
        UserError: it cannot.
    """
    try:
        yield
    except Exception as error:  # its checks raise errors of many kinds, and so do sizes that do not divide
        raise UserError(
            f"the settings make no VideoChat: {' '.join(str(error).split())[:200]}",
            where="--architecture",
            fix="give the settings these weights were made for",
        ) from error


def _language_model(folder: Path, dtype: torch.dtype) -> tuple[Any, Any, Any]:
    from transformers import AutoTokenizer

    fix = "give a transformers folder with weights and tokenizer"
    try:
        text = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except UNLOADABLE as error:
        why = " ".join(str(error).split())[:200]
        raise UserError(f"the language model cannot be loaded: {why}", where=str(folder), fix=fix) from error
    model = load_whole(
        AutoModelForCausalLM,
        folder,
        dtype=dtype,
        called="language model",
        fix=fix,
        fix_gaps="fetch it again; of a delta, apply it first",
        use_safetensors=None,  # an applied delta is often .bin, of which nothing but tensors is read
    )
    return text, tokenizer, model


def _tensors(file: Path) -> dict[str, torch.Tensor]:
    """Return a file's tensors; of a pickled one nothing but tensors is read."""
    fix = "fetch it again; a file that needs more than tensors is not read"
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        # Mapped, not copied: what BLIP-2's file holds beside the Q-Former is never read. Before torch 1.6
        # files were no archives, and those cannot be mapped.
        mapped = zipfile.is_zipfile(file)
        loaded: Any = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except (OSError, SafetensorError) as error:
        raise UserError("the weights cannot be read", where=str(file), fix=fix) from error
    except Exception as error:  # unpickling raises whatever the bytes make it raise
        raise UserError("the weights are no plain tensors", where=str(file), fix=fix) from error
    loaded = loaded.get("model", loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(loaded, dict) or not all(isinstance(t, torch.Tensor) for t in loaded.values()):
        raise UserError("the file is no mapping of names to tensors", where=str(file), fix=fix)
    return {str(name): tensor for name, tensor in loaded.items()}


def _fresh(
    model: VideoChatForConditionalGeneration, held: Mapping[str, torch.Tensor], built: VideoChatConfig
) -> dict[str, torch.Tensor]:
    """Return first values for trained parts that no file held. Raises UserError where one is held in part."""
    found: set[str] = set()
    for part in TRAINED:
        names = {name for name in model.state_dict() if name.partition(".")[0] == part}
        absent = names - held.keys()
        if absent and absent != names:
            raise UserError(
                f"the files hold a part of {part}, and {len(absent)} of its tensors are missing",
                where=", ".join(sorted(absent)[:_SHOWN]),
                fix="give the files of one release",
            )
        found |= absent
    if not found:
        return {}
    vision, text, qformer = (
        getattr(built, name).to_dict() for name in ("vision_config", "text_config", "qformer_config")
    )
    small = {  # as wide as the model, and no deeper than its trained parts are
        **built.to_dict(),
        "vision_config": {**vision, "num_hidden_layers": built.gmhra_layers},
        "text_config": {"model_type": "llama", "hidden_size": text["hidden_size"], "intermediate_size": 1}
        | {"num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 3},
        "qformer_config": {**qformer, "num_hidden_layers": 1},
    }
    first = VideoChatForConditionalGeneration(VideoChatConfig(**small)).state_dict()
    return {name: first[name] for name in found}


def _fit(
    model: VideoChatForConditionalGeneration, held: Mapping[str, torch.Tensor], dtype: torch.dtype
) -> None:
    """Put weights into a model that has none yet, each in the number format it is kept in.

    Raises:
        UserError: they are not its own.
    """
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    wanted = {name: shape for name, shape in shapes.items() if not name.startswith("language_model.")}
    problems = [name for name, shape in wanted.items() if name in held and held[name].shape != shape]
    if problems:
        name = problems[0]
        raise UserError(
            f"{len(problems)} weights are of another shape than the architecture's",
            where=f"{name} is {tuple(held[name].shape)}, not {tuple(wanted[name])}",
            fix="give --architecture with the settings these weights were made for",
        )
    for kind, names in (
        ("missing", wanted.keys() - held.keys()),
        ("left over", held.keys() - wanted.keys()),
    ):
        if names:
            raise UserError(
                f"{len(names)} weights are {kind}",
                where=", ".join(sorted(names)[:_SHOWN]),
                fix="give the files of tower, Q-Former and VideoChat together",
            )
    exact = set(model._keep_in_fp32_modules_strict or ())
    kept = {name: torch.float32 if name.partition(".")[0] in exact else dtype for name in wanted}
    model.load_state_dict({name: held[name].to(kept[name]) for name in wanted}, strict=False, assign=True)
