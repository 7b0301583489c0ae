"""From which similarity on pairs are stored: low enough to try thresholds on, within a budget of pairs.

Embeddings lie differently close together (unrelated captions are often above 0.7 in BERT's space), so one
floor does not fit all. It is read off a sample.
"""

from __future__ import annotations

import numpy as np

from share4video.curation.candidates import ROWS_AT_ONCE, Rows, evenly_spaced

STEP = 0.01
_SAMPLE_ROWS = 512


def affordable_floor(rows: Rows, pairs_per_row: float, *, lowest: float, highest: float) -> float:
    """Return the lowest floor at which a sample promises no more than ``pairs_per_row`` pairs per row.

    Every row is compared with up to 512 evenly spaced ones, so the answer depends on the rows' order; give
    them by id.

    Args:
        rows: [N, D], of length 1.
        pairs_per_row: on average; a pair counts once.
        lowest, highest: what the answer lies between, in steps of 0.01; ``highest`` also where the budget is
            too small for it.
    """
    count = len(rows)
    if count < 2:
        return lowest
    chosen = evenly_spaced(count, _SAMPLE_ROWS)
    floors = np.arange(round(lowest / STEP), round(highest / STEP) + 1) * STEP
    above = np.zeros(len(floors), np.int64)
    for start in range(0, count, ROWS_AT_ONCE):
        similar = rows[chosen] @ rows[start : start + ROWS_AT_ONCE].T
        own = (chosen >= start) & (chosen < start + similar.shape[1])
        similar[own, chosen[own] - start] = -np.inf
        # In which step each similarity falls; those below the lowest floor are not counted.
        step = np.searchsorted(floors, similar[similar >= lowest], side="right") - 1
        above += np.bincount(step, minlength=len(floors))
    per_row = np.cumsum(above[::-1])[::-1] / len(chosen) / 2
    fits = np.flatnonzero(per_row <= pairs_per_row)
    return float(round(floors[fits[0]], 2)) if len(fits) else highest
