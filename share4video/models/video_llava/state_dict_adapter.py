"""Names of Video-LLaVA's weights: the layout of the published checkpoint, from the names held in memory.

transformers 5 reads that layout, too; see `share4video.models.llava_next.state_dict_adapter`.
"""

from __future__ import annotations

import re

_TO_DISK = (
    (re.compile(r"^model\.language_model\."), "language_model.model."),
    (re.compile(r"^lm_head\."), "language_model.lm_head."),
    (re.compile(r"^model\.multi_modal_projector\."), "multi_modal_projector."),
    (re.compile(r"^model\.(image|video)_tower\.(?:vision_model\.)?"), r"\1_tower.vision_model."),
)


def disk_name(name: str) -> str:
    """Return the on-disk name of the parameter that transformers 5 holds as ``name``.

    Raises:
        ValueError: Video-LLaVA has no such parameter.
    """
    for pattern, replacement in _TO_DISK:
        renamed, count = pattern.subn(replacement, name)
        if count:
            return renamed
    raise ValueError(f"not a parameter of Video-LLaVA: {name!r}")
