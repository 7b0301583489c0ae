"""Tables of a run by name, whichever of its stages published them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from share4video.dataset.manifest import StageRef, load_manifest
from share4video.dataset.shards import empty_table, read_table
from share4video.store import Store

_MAX_TEXT = 4000  # characters of one caption or sentence


class RunTables:
    """What the stages of a run published.

    Args:
        refs: the stages' outputs by name of the stage in the run; any of them may be missing.
    """

    def __init__(self, store: Store, refs: Mapping[str, StageRef]) -> None:
        self.store, self.refs = store, dict(refs)

    def ref_of(self, table: str, stages: Sequence[str]) -> StageRef | None:
        """Return the first of ``stages`` that published ``table``."""
        for stage in stages:
            ref = self.refs.get(stage)
            if ref and any(part.table == table for part in load_manifest(self.store, ref).parts):
                return ref
        return None

    def read(self, table: str, stages: Sequence[str]) -> pa.Table:
        """Return ``table`` as the first of ``stages`` that has it published it; empty where none has."""
        ref = self.ref_of(table, stages)
        return empty_table(table) if ref is None else read_table(self.store, ref, table)

    def clips(self) -> pa.Table:
        """Return the clips that came furthest."""
        return self.read("clips", ("dataset", "dedup", "probe"))

    def differentials(self) -> pa.Table:
        return self.read("differentials", ("dataset", "caption"))

    def judgements(self) -> pa.Table:
        """Return what the judge said, nothing where there was none."""
        return self.read("judgements", ("dataset", "caption"))

    def captions(self) -> pa.Table:
        return self.read("captions", ("dataset", "caption"))


def shortened(text: str, limit: int = _MAX_TEXT) -> str:
    """Cut a text that is longer than any reader wants it."""
    return text if len(text) <= limit else f"{text[: limit - 1].rstrip()}…"
