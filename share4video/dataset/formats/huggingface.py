"""Parquet shards as the Hugging Face hub takes them: ``data/train-00000-of-00003.parquet`` and so on.

One row per clip (`published.SAMPLES`): the columns of table ``clips``, the summary, and all captions and
differential captions as lists of structs. The schema is embedded, so that ``datasets`` needs no other file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from share4video.dataset.published import SAMPLES, ClipSample, sample_of
from share4video.errors import UserError

ROWS_PER_GROUP = 512  # what a reader holds in memory at once


def shard_name(number: int, shards: int) -> str:
    """Return a shard's path below the repository's root; numbers count from 0."""
    return f"data/train-{number:05d}-of-{shards:05d}.parquet"


class ShardWriter:
    """Writes one shard, a group of rows at a time; equal samples in equal groups give equal bytes."""

    def __init__(self, sink: BinaryIO) -> None:
        self._sink = sink
        self._writer = pq.ParquetWriter(sink, SAMPLES, compression="zstd")

    @property
    def bytes(self) -> int:
        """How much was written; the groups that are complete."""
        return self._sink.tell()

    def add(self, samples: Sequence[ClipSample]) -> None:
        """Write some samples as one group."""
        table = pa.Table.from_pylist([sample.row() for sample in samples], schema=SAMPLES)
        self._writer.write_table(table, row_group_size=max(1, len(samples)))

    def close(self) -> None:
        self._writer.close()


def read(path: Path) -> Iterator[ClipSample]:
    """Yield the clips of a shard in order, one group of rows in memory at a time.

    Raises:
        UserError: the file cannot be read, is damaged or has other columns.
    """
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            if not file.schema_arrow.equals(SAMPLES):
                raise UserError(
                    "the file does not have the columns of our Parquet exports",
                    where=str(path),
                    fix="give a file that dataset export wrote",
                )
            for batch in file.iter_batches(batch_size=ROWS_PER_GROUP, use_threads=False):
                for row in batch.to_pylist():
                    number += 1
                    yield sample_of(row)
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        what = str(error).partition("\n")[0]
        raise UserError(
            f"cannot read the Parquet file after row {number}: {what}", where=str(path), fix="fetch it again"
        ) from error
