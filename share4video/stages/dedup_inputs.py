"""What de-duplication is given: captioned clips, each once, and what was kept of earlier ones."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from share4video.curation.described import matrix
from share4video.dataset.shards import Manifest, StageRef, load_manifest, read_table
from share4video.stages.clip_frames import Row, reject_row
from share4video.store import Store

STAGE = "dedup"  # the stage that rejects name, whichever of its steps refuses a clip

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class DedupInputs:
    """Clips, their brief captions, and the sources the clips were found in.

    ``published`` is an earlier output of the dedup stage that the clips are added to: what it and those
    before it kept is compared with, and stays.
    """

    clips: StageRef
    brief: StageRef
    source: str
    published: StageRef | None = None


class Embeddings:
    """The embeddings of brief captions, by clip."""

    def __init__(self, brief: pa.Table) -> None:
        self._number = {clip_id: number for number, clip_id in enumerate(brief["clip_id"].to_pylist())}
        found = matrix(brief["embedding"])
        self._vectors = np.empty((0, 0), np.float32) if found is None else found

    def __contains__(self, clip_id: str) -> bool:
        return clip_id in self._number

    def of(self, clip_ids: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return [clips, dimensions]."""
        return self._vectors[[self._number[clip_id] for clip_id in clip_ids]]


def captioned(inputs: DedupInputs, store: Store) -> tuple[Rows, Embeddings]:
    """Return the clips that have a brief caption, and the captions' embeddings.

    Raises:
        RuntimeError: a clip has neither a brief caption nor a reject that says why.
    """
    embeddings = Embeddings(read_table(store, inputs.brief, "brief_captions"))
    refused = set(read_table(store, inputs.brief, "rejects")["row_id"].to_pylist())
    rows = []
    for clip in read_table(store, inputs.clips, "clips").to_pylist():
        if clip["clip_id"] in embeddings:
            rows.append(clip)
        elif clip["row_id"] not in refused:
            raise RuntimeError(f"{inputs.brief}: says nothing of row {clip['row_id']}")
    return rows, embeddings


def distinct(rows: Sequence[Row], published: Collection[str]) -> tuple[list[Row], Rows]:
    """Return one row per clip, by id, and rejects for the others; the first by source name stays.

    Args:
        published: ids of clips that were kept before.
    """
    clips: dict[str, Row] = {}
    rejects = []
    for row in sorted(rows, key=lambda row: (row["clip_id"], row["source_uri"], row["row_id"])):
        if row["clip_id"] in published:
            sentence = "the same content as a published clip"
            rejects.append(reject_row(row, STAGE, "exact_duplicate", sentence))
            continue
        first = clips.setdefault(row["clip_id"], row)
        if first is not row:
            sentence = f"the same content as {first['source_uri']}"
            rejects.append(reject_row(row, STAGE, "exact_duplicate", sentence))
    return list(clips.values()), rejects


def published_outputs(store: Store, published: StageRef | None) -> Iterator[tuple[Manifest, set[str]]]:
    """Yield an output of the dedup stage with the ids it kept, the one it was added to, and so on."""
    while published is not None:
        output = load_manifest(store, published)
        yield output, set(read_table(store, published, "clips")["clip_id"].to_pylist())
        earlier = output.config.get("@published")
        published = StageRef.parse(earlier) if earlier else None


def kept_before(store: Store, published: StageRef | None) -> set[str]:
    """Return the ids of the clips that an output of the dedup stage, and those it was added to, kept."""
    return {clip_id for _, kept in published_outputs(store, published) for clip_id in kept}
