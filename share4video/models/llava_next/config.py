"""The configuration of an original ``llava_llama`` checkpoint, read, and said as a LlavaNextConfig.

``mm_vision_tower`` is the address of the tower on the machine it was trained on. It is never followed: the
tower's weights are in the checkpoint, and its configuration in the folder ``vision_tower`` or in the shapes.
"""

from __future__ import annotations

import json
import math
from ast import literal_eval
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from share4video.errors import UserError, reading

if TYPE_CHECKING:
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaNextConfig

MAX_JSON_BYTES = 64 << 20
CONVERTED_TYPE, ORIGINAL_TYPE = "llava_next", "llava_llama"
TOWER_PREFIX = "model.vision_tower.vision_tower.vision_model."
HEAD_WIDTH = 64  # of every CLIP tower OpenAI released
_MOST_LAYERS = 512  # bounds the time to lay the architecture out
_MOST_TILES = 64  # of one layout; bounds the memory a picture takes
_TEXT_KEYS = (
    "attention_bias",
    "attention_dropout",
    "bos_token_id",
    "eos_token_id",
    "head_dim",
    "hidden_act",
    "hidden_size",
    "initializer_range",
    "intermediate_size",
    "max_position_embeddings",
    "mlp_bias",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "pad_token_id",
    "rms_norm_eps",
    "tie_word_embeddings",
)


class OriginalConfig(BaseModel):
    """What of the original ``config.json`` decides how the model computes; the rest stays in ``text``.

    Attributes:
        image_grid_pinpoints: layouts of tiles as (width, height) in pixels.
        mm_vision_select_feature: ``patch`` leaves the tower's class token out; anyres knows nothing else.
        text: the whole file, of which the language model's keys are taken.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")
    model_type: Literal["llava_llama"]
    mm_projector_type: Literal["mlp2x_gelu"]
    mm_patch_merge_type: Literal["spatial_unpad"]
    image_aspect_ratio: Literal["anyres"]
    image_grid_pinpoints: tuple[tuple[int, int], ...] = Field(min_length=1, max_length=64)
    mm_vision_select_layer: int = -2
    mm_vision_select_feature: Literal["patch"] = "patch"
    mm_use_im_start_end: Literal[False] = False
    mm_hidden_size: int = Field(gt=0)
    hidden_size: int = Field(gt=0)
    num_hidden_layers: int = Field(gt=0, le=_MOST_LAYERS)
    vocab_size: int = Field(gt=0)
    pad_token_id: int | None = None
    tie_word_embeddings: bool = False
    tokenizer_model_max_length: int | None = None
    text: dict[str, Any]

    @field_validator("image_grid_pinpoints", mode="before")
    @classmethod
    def _spelled_out(cls, value: Any) -> Any:
        """The training script's argument was kept as its text by some versions."""
        if isinstance(value, str) and len(value) < 4096:
            try:
                return literal_eval(value)
            except (SyntaxError, ValueError):
                raise ValueError("not a list of pairs") from None
        return value


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of a checkpoint.

    Raises:
        UserError: the file is missing, too large or something else.
    """
    with reading("a file of the checkpoint", path):
        if path.stat().st_size > MAX_JSON_BYTES:
            raise UserError("the file is too large", where=str(path), fix="fetch the checkpoint again")
        data = path.read_bytes()
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise UserError(
            "the file is not valid JSON", where=str(path), fix="fetch the checkpoint again"
        ) from None
    if not isinstance(value, dict):
        raise UserError("the file is not a JSON object", where=str(path), fix="fetch the checkpoint again")
    return value


def read_original_config(folder: Path, shown: str) -> OriginalConfig:
    """Read ``config.json`` of an original checkpoint.

    Args:
        shown: the folder as a person knows it.

    Raises:
        UserError: there is none, it is of another architecture or converted already, or of a variant that
            transformers' LLaVA-NeXT does not compute.
    """
    if not (folder / "config.json").is_file():
        raise UserError("there is no checkpoint: no config.json", where=shown, fix="name its folder")
    text = read_json(folder / "config.json")
    kind = text.get("model_type")
    if kind == CONVERTED_TYPE:
        raise UserError(
            "the checkpoint is in Hugging Face's layout already", where=shown, fix="use it as it is"
        )
    if kind != ORIGINAL_TYPE:
        raise UserError(
            f"the checkpoint is of type {str(kind)[:80]!r}, not {ORIGINAL_TYPE!r}",
            where=shown,
            fix="name a checkpoint that the original LLaVA or ShareGPT4Video code saved",
        )
    try:
        return OriginalConfig.model_validate({**text, "text": text})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(step) for step in first["loc"])
        found = str(first.get("input"))[:80] if first["type"] != "missing" else "nothing"
        raise UserError(
            f"LLaVA-NeXT cannot compute this variant: {key} is {found}; {first['msg'].lower()}",
            where=f"{shown}/config.json",
            fix="only LLaVA-NeXT with anyres pictures is converted",
        ) from None


@contextmanager
def computable(where: str) -> Iterator[None]:
    """Say in a sentence why transformers refuses the values given to it inside the block.

    Raises:
        UserError: it did.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # its checks raise errors of many kinds
        why = " ".join(str(error).split())[:200]
        raise UserError(
            f"the configuration makes no model: {why}", where=where, fix="fetch the checkpoint again"
        ) from error


def text_config(original: OriginalConfig, vocab_size: int) -> LlamaConfig:
    """Return the language model's configuration, with the vocabulary it has after the conversion."""
    from transformers import LlamaConfig

    kept = {key: original.text[key] for key in _TEXT_KEYS if key in original.text}
    with computable("config.json"):
        rope: dict[str, Any] = {"rope_type": "default", **(original.text.get("rope_scaling") or {})}
        rope["rope_type"] = rope.pop("type", rope["rope_type"])  # the key's older name
        rope["rope_theta"] = original.text.get("rope_theta", 10000.0)
        return LlamaConfig(**kept, vocab_size=vocab_size, rope_parameters=rope)


def read_vision_config(folders: tuple[Path, ...]) -> CLIPVisionConfig | None:
    """Return what the first folder with a ``vision_tower/config.json`` says, or None where there is none.

    Raises:
        UserError: it is not the configuration of a CLIP tower.
    """
    from transformers import CLIPVisionConfig

    for folder in folders:
        path = folder / "vision_tower" / "config.json"
        if path.is_file():
            found = read_json(path)
            if found.get("model_type") == "clip":
                found = found.get("vision_config") or {}
            if found.get("model_type") != "clip_vision_model":
                raise UserError("this is not a CLIP tower", where=str(path), fix="remove the file")
            known = {key: value for key, value in found.items() if key not in ("dtype", "torch_dtype")}
            with computable(str(path)):
                vision = CLIPVisionConfig.from_dict(known)
                if not 0 < vision.num_hidden_layers <= _MOST_LAYERS:
                    raise ValueError(f"{vision.num_hidden_layers} layers")
            return vision
    return None


def derive_vision_config(shapes: Mapping[str, tuple[int, ...]], shown: str) -> CLIPVisionConfig:
    """Read a CLIP tower's configuration off the shapes of its weights.

    What shapes do not tell is as in every CLIP OpenAI released: heads 64 wide, quick GELU, 1e-5 in norms.

    Args:
        shapes: of all tensors of the original checkpoint, by name.

    Raises:
        UserError: the tower's weights are not there, or are not a CLIP tower's.
    """
    from transformers import CLIPVisionConfig

    try:
        width, channels, patch, _ = shapes[TOWER_PREFIX + "embeddings.patch_embedding.weight"]
        positions, _ = shapes[TOWER_PREFIX + "embeddings.position_embedding.weight"]
        intermediate, _ = shapes[TOWER_PREFIX + "encoder.layers.0.mlp.fc1.weight"]
    except (KeyError, ValueError):
        raise UserError(
            "the checkpoint holds no CLIP vision tower, or one that is cut short",
            where=shown,
            fix=f"its weights are named {TOWER_PREFIX}*; an adapter needs --base with the tower inside",
        ) from None
    side = round((positions - 1) ** 0.5)
    if side**2 != positions - 1 or width % HEAD_WIDTH:
        raise UserError(
            f"the vision tower is none of CLIP's: {width} wide, {positions} positions",
            where=shown,
            fix="put its configuration beside the weights as vision_tower/config.json",
        )
    layers = {name.split(".")[6] for name in shapes if name.startswith(TOWER_PREFIX + "encoder.layers.")}
    return CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=intermediate,
        num_hidden_layers=len(layers),
        num_attention_heads=width // HEAD_WIDTH,
        num_channels=channels,
        image_size=side * patch,
        patch_size=patch,
        hidden_act="quick_gelu",
        layer_norm_eps=1e-5,
        projection_dim=768,
    )


def tiles(config: LlavaNextConfig) -> tuple[int, int]:
    """Return the side of a tile and of a patch, in pixels. Raises UserError where they are not square."""
    vision = config.vision_config
    side, patch = getattr(vision, "image_size", None), getattr(vision, "patch_size", None)
    if not isinstance(side, int) or not isinstance(patch, int) or not 0 < patch <= side:
        raise UserError("the vision tower's tiles are not square", where="vision_tower/config.json")
    return side, patch


def _check_grids(original: OriginalConfig, side: int) -> None:
    for pair in original.image_grid_pinpoints:
        rows_and_columns = [length // side for length in pair if length > 0 and length % side == 0]
        if len(rows_and_columns) < 2 or math.prod(rows_and_columns) > _MOST_TILES:
            raise UserError(
                f"image_grid_pinpoints has {list(pair)}, which is no grid of {side}-pixel tiles, at most "
                f"{_MOST_TILES} of them",
                where="config.json",
                fix="fetch the checkpoint again",
            )


def llava_next_config(
    original: OriginalConfig, vision: CLIPVisionConfig, *, vocab_size: int, image_token_id: int
) -> LlavaNextConfig:
    """Put the whole configuration together. Raises UserError where a layout is no grid of the tower's tiles.

    LLaVA writes pinpoints as (width, height), transformers as (height, width). The order stays: small
    pictures fit two layouts equally well, and both codes take the first.
    """
    from transformers import LlavaNextConfig

    config = LlavaNextConfig(
        vision_config=vision,
        text_config=text_config(original, vocab_size),
        image_token_index=image_token_id,
        projector_hidden_act="gelu",
        vision_feature_layer=original.mm_vision_select_layer,
        vision_feature_select_strategy="default",
        image_grid_pinpoints=[[height, width] for width, height in original.image_grid_pinpoints],
        tie_word_embeddings=original.tie_word_embeddings,
    )
    side, patch = tiles(config)
    _check_grids(original, side)
    config.image_seq_length = (side // patch) ** 2
    config.architectures = ["LlavaNextForConditionalGeneration"]
    return config
