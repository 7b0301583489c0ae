"""What de-duplication is given: captioned clips, and what was kept of earlier ones."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from share4video.curation.described import matrix
from share4video.dataset.outputs import curated_clips
from share4video.dataset.shards import Manifest, StageRef, load_manifest, read_table
from share4video.stages.clip_frames import Row, reject_row
from share4video.stages.division import clips_by_id
from share4video.store import Store

STAGE = "dedup"  # the stage that rejects name, whichever of its steps refuses a clip

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class DedupInputs:
    """Clips, their brief captions, and the sources the clips were found in.

    ``published`` is an earlier output of the dedup stage, or a dataset made from one, that the clips are
    added to: what it and those before it kept, or hold, is compared with, and stays.
    """

    clips: StageRef
    brief: StageRef
    source: str
    published: StageRef | None = None


def captioned(inputs: DedupInputs, store: Store) -> list[Row]:
    """Return the clips that have a brief caption, by id.

    Raises:
        RuntimeError: a clip has neither a brief caption nor a reject that says why, or is listed twice.
    """
    said, refused = (
        set(read_table(store, inputs.brief, table, columns=["clip_id"])["clip_id"].to_pylist())
        for table in ("brief_captions", "rejects")
    )
    rows = clips_by_id(store, inputs.clips)
    for clip in rows:
        if clip["clip_id"] not in said | refused:
            raise RuntimeError(f"{inputs.brief}: says nothing of clip {clip['clip_id']}")
    return [clip for clip in rows if clip["clip_id"] in said]


def embeddings(store: Store, brief: StageRef, clip_ids: Sequence[str]) -> npt.NDArray[np.float32]:
    """Return the embeddings of the brief captions of some clips, in their order: [clips, dimensions]."""
    table = read_table(store, brief, "brief_captions", columns=["clip_id", "embedding"])
    number = {clip_id: number for number, clip_id in enumerate(table["clip_id"].to_pylist())}
    found = matrix(table["embedding"])
    vectors = np.empty((0, 0), np.float32) if found is None else found
    return vectors[[number[clip_id] for clip_id in clip_ids]]


def unpublished(rows: Sequence[Row], published: Collection[str]) -> tuple[list[Row], Rows]:
    """Return the rows of clips that were not kept before, and rejects for the others.

    Args:
        published: ids of clips that were kept before.
    """
    new = [row for row in rows if row["clip_id"] not in published]
    sentence = "the same content as a published clip"
    again = [
        reject_row(row, STAGE, "exact_duplicate", sentence) for row in rows if row["clip_id"] in published
    ]
    return new, again


def published_outputs(store: Store, published: StageRef | None) -> Iterator[tuple[Manifest, set[str]]]:
    """Yield an output of the dedup stage with the ids it kept, the one it was added to, and so on.

    Of the clips that a dataset was made from only those that it holds are there: one whose captioning failed,
    or that it rejected, may come again. A clip is told of once, in the last output that kept it.
    """
    there: set[str] | None = None
    seen: set[str] = set()
    while published is not None:
        output = load_manifest(store, curated_clips(store, published))
        kept = _clip_ids(store, output.ref)
        if published != output.ref:
            there = _clip_ids(store, published)
        kept = (kept if there is None else kept & there) - seen
        yield output, kept
        seen |= kept
        earlier = output.config.get("@published")
        published = StageRef.parse(earlier) if earlier else None


def _clip_ids(store: Store, ref: StageRef) -> set[str]:
    return set(read_table(store, ref, "clips", columns=["clip_id"])["clip_id"].to_pylist())


def kept_before(store: Store, published: StageRef | None) -> set[str]:
    """Return the ids of the clips that are there already; see `published_outputs`."""
    return {clip_id for _, kept in published_outputs(store, published) for clip_id in kept}
