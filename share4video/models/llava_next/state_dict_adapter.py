"""Names of LLaVA-NeXT's weights: the layout every server reads, from the names held in memory.

transformers 5 holds ``model.language_model.*`` and ``model.vision_tower.*`` and, for a model built in memory,
saves the tower without ``vision_model.``; vLLM and lmdeploy read the layout of transformers 4, which
transformers 5 loads as well. This module knows names only, so it imports no framework.
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


def disk_name(name: str) -> str:
    """Return the on-disk name of the parameter that transformers 5 holds as ``name``.

    Raises:
        ValueError: LLaVA-NeXT has no such parameter.
    """
    for pattern, replacement in _TO_DISK:
        renamed, count = pattern.subn(replacement, name)
        if count:
            return renamed
    raise ValueError(f"not a parameter of LLaVA-NeXT: {name!r}")
