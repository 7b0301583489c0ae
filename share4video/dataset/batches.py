"""A part of a published table, row by row from disk: for tables that are larger than memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from share4video.dataset.manifest import Part, StageRef, damaged
from share4video.store import Store

_BUFFER_BYTES = 1 << 18


@contextmanager
def local_part(store: Store, ref: StageRef, part: Part, target: Path) -> Iterator[Path]:
    """Fetch a part of a table into the file ``target``, check its hash, and remove it after the block.

    Raises:
        UserError: the part is missing, changed or damaged.
    """
    try:
        try:
            store.download(f"{ref.prefix}/{part.path}", target)
        except KeyError:
            raise damaged(store, ref, part.path) from None
        with target.open("rb") as reader:
            if hashlib.file_digest(reader, "sha256").hexdigest() != part.sha256:
                raise damaged(store, ref, part.path)
        yield target
    finally:
        target.unlink(missing_ok=True)


def part_batches(path: Path, rows: int, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Yield a part's rows, at most ``rows`` at a time; one page of each column is in memory with them.

    Without threads, as `share4video.dataset.shards.parse_table`.
    """
    with pq.ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False) as file:
        yield from file.iter_batches(batch_size=rows, columns=columns, use_threads=False)
