"""The histogram of neighbour pairs: every pair is counted once, and thresholds are read off decisions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from share4video.config import DedupConfig
from share4video.curation.dedup import Admission, Thresholds, admit
from share4video.curation.neighbours import NearPairs
from share4video.dataset.shards import ShardSet, table_from_rows
from share4video.report.run_tables import RunTables
from share4video.report.similarity import Similarity, similarity
from share4video.store import LocalStore

CLIPS, FLOOR = 7, 0.5
TEXT, LOOKS = np.float32(0.8), np.float32(0.9)


def read(
    store: LocalStore, values: dict[tuple[int, int], tuple[float, float]], config: DedupConfig, mode: str
) -> Similarity | None:
    """Decide as the dedup stage does, publish, and read the histograms."""
    numbers = sorted(values)
    column = np.array([values[pair] for pair in numbers], np.float32).reshape(-1, 2)
    pairs = NearPairs(
        clip=np.array([a for a, _ in numbers], np.int64),
        other=np.array([b for _, b in numbers], np.int64),
        text=column[:, 0] if mode != "visual" else None,
        looks=column[:, 1] if mode != "text" else None,
        floor=FLOOR,
    )
    asked = Thresholds(float(TEXT) if mode != "visual" else None, float(LOOKS) if mode != "text" else None)
    ids = [f"{number:032x}" for number in range(CLIPS)]
    rows = [_row(ids, number, a) for number, a in enumerate(admit(list(range(CLIPS)), pairs, asked))]
    compared = ShardSet(store, "neighbours", "1", inputs=[repr(values), mode], config=config)
    compared.commit(0, {"neighbours": pairs.to_table(ids)}, {"metric:floor": FLOOR})
    found = {"neighbours": str(compared.publish(1).ref)}
    output = ShardSet(store, "dedup", "1", inputs=[], config=config, identity=found)
    output.commit(0, {"dedup": table_from_rows("dedup", rows)})
    return similarity(RunTables(store, {"dedup": output.publish(1).ref}))


def _row(ids: list[str], number: int, admission: Admission) -> dict[str, Any]:
    return {
        "clip_id": ids[number],
        "kept": admission.kept,
        "nearest_kept_id": None if admission.nearest is None else ids[admission.nearest],
        "similarity": admission.similarity,
        "threshold": admission.threshold,
    }


close = st.floats(FLOOR, 1.0, width=32)
pair_values = st.dictionaries(
    st.tuples(st.integers(0, CLIPS - 1), st.integers(0, CLIPS - 1)).filter(lambda pair: pair[0] < pair[1]),
    st.tuples(close, close),
    min_size=1,
)


@given(values=pair_values, mode=st.sampled_from(["text", "visual", "both"]))
@settings(max_examples=40, deadline=None)
def test_pairs_and_thresholds(
    tmp_path_factory: pytest.TempPathFactory, values: dict[tuple[int, int], tuple[float, float]], mode: str
) -> None:
    found = read(LocalStore(tmp_path_factory.mktemp("store")), values, DedupConfig(floor=FLOOR), mode)
    assert found is not None
    measures = {"text": ["captions"], "visual": ["looks"], "both": ["captions", "looks"]}[mode]
    assert [h.measure for h in found.histograms] == measures
    for histogram in found.histograms:
        assert sum(b.pairs for b in histogram.bins) == found.pairs == len(values)
        assert histogram.bins[-1].high == 1.0 and histogram.low == pytest.approx(FLOOR)
        assert all(b.near <= b.pairs for b in histogram.bins)
        assert histogram.threshold in (None, TEXT if histogram.measure == "captions" else LOOKS)
    assert found.histograms[0].threshold is not None  # the first clip has nobody before it


def test_what_is_near_in_everything_is_marked(store: LocalStore) -> None:
    values = {(0, 1): (1.0, 0.95), (0, 2): (1.0, 0.6), (1, 2): (0.7, 0.97), (3, 4): (0.8, 0.9)}
    config = DedupConfig(floor=FLOOR, text_threshold=float(TEXT), visual_threshold=float(LOOKS))
    found = read(store, values, config, "both")
    assert found is not None
    captions, looks = found.histograms
    assert (captions.threshold, looks.threshold) == (pytest.approx(0.8), pytest.approx(0.9))
    assert sum(b.near for b in captions.bins) == sum(b.near for b in looks.bins) == 2
    assert captions.bins[-1].pairs == 2 and captions.bins[-1].near == 1
    assert found.dropped == 2
    assert captions.place(1.0) == pytest.approx(100) and captions.place(FLOOR) == pytest.approx(0)


def test_no_pair_no_histogram(store: LocalStore) -> None:
    assert read(store, {}, DedupConfig(), "both") is None
    assert similarity(RunTables(store, {})) is None
