"""Names of LLaVA-NeXT's weights: the layout every server reads, from the names held in memory.

transformers 5 holds ``model.language_model.*`` and ``model.vision_tower.*`` and, for a model built in memory,
saves the tower without ``vision_model.``; vLLM and lmdeploy read the layout of transformers 4, which
transformers 5 loads as well. The original ``llava_llama`` code has a third layout of its own. This module
knows names only, so it imports no framework.
"""

from __future__ import annotations

import re

_TO_DISK = (
    (re.compile(r"^model\.language_model\."), "language_model.model."),
    (re.compile(r"^lm_head\."), "language_model.lm_head."),
    (re.compile(r"^model\.multi_modal_projector\."), "multi_modal_projector."),
    (re.compile(r"^model\.image_newline$"), "image_newline"),
    (re.compile(r"^model\.vision_tower\.(?:vision_model\.)?"), "vision_tower.vision_model."),
)
_FROM_ORIGINAL = (
    (re.compile(r"^model\.vision_tower\.vision_tower\.vision_model\."), "vision_tower.vision_model."),
    (re.compile(r"^model\.mm_projector\.0\."), "multi_modal_projector.linear_1."),
    (re.compile(r"^model\.mm_projector\.2\."), "multi_modal_projector.linear_2."),
    (re.compile(r"^model\.image_newline$"), "image_newline"),
    (re.compile(r"^model\.(embed_tokens|layers|norm)\."), r"language_model.model.\1."),
    (re.compile(r"^lm_head\."), "language_model.lm_head."),
)
# Older versions saved these with the weights; they are computed from the configuration.
_BUFFER = re.compile(r"\.(?:rotary_emb\.inv_freq|embeddings\.position_ids)$")


def disk_name(name: str) -> str:
    """Return the on-disk name of the parameter that transformers 5 holds as ``name``.

    Raises:
        ValueError: LLaVA-NeXT has no such parameter.
    """
    return _renamed(name, _TO_DISK)


def disk_name_of_original(name: str) -> str:
    """Return the on-disk name of the parameter that an original ``llava_llama`` checkpoint calls ``name``.

    Raises:
        ValueError: such a checkpoint has no such parameter.
    """
    return _renamed(name, _FROM_ORIGINAL)


def is_buffer(name: str) -> bool:
    """Whether an original checkpoint's tensor is no weight but something computed, which needs no room."""
    return _BUFFER.search(name) is not None


def _renamed(name: str, rules: tuple[tuple[re.Pattern[str], str], ...]) -> str:
    for pattern, replacement in rules:
        renamed, count = pattern.subn(replacement, name)
        if count:
            return renamed
    raise ValueError(f"not a parameter of LLaVA-NeXT: {name!r}")
