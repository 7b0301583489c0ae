"""What a perfect captioner says of synthetic clips."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from share4video.synthetic import language
from share4video.synthetic.world import Clip


def true_captions(clip: Clip, times_s: Sequence[float], seed: int) -> list[str]:
    """Return the caption of the first frame and of what changed up to each later one, in mixed wordings."""
    rng = np.random.default_rng(seed)
    first = language.first_caption(clip.state_at(times_s[0]), rng)
    changes = language.clip_changes(clip, times_s)
    return [first, *(language.differential_caption(change, rng) for change in changes)]
