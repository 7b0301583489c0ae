"""What clips are compared by, as it is stored: embeddings of their captions, encodings of their frames."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from share4video.curation.candidates import Rows
from share4video.curation.encoders import Vectors
from share4video.dataset.schema import TABLES


@dataclass(frozen=True, eq=False)
class Described:
    """Clips and what they are compared by.

    Attributes:
        ids: the clips, in order of id.
        text: [clips, dimensions], embeddings of their captions; None where captions are not compared.
        looks: [clips, frames, dimensions], encodings of their frames; None where looks are not compared.
    """

    ids: tuple[str, ...]
    text: Vectors | None
    looks: Vectors | None

    def only(self, ids: Collection[str]) -> Described:
        """Return the clips that are among ``ids``."""
        return self._taken([number for number, clip_id in enumerate(self.ids) if clip_id in ids])

    def beside(self, others: Sequence[Described]) -> Described:
        """Return these clips and those of the others, none twice, in order of id."""
        parts = [part for part in (self, *others) if part.ids]
        if not parts:
            return self
        ids = tuple(clip_id for part in parts for clip_id in part.ids)
        text, looks = (
            None if vectors[0] is None else np.concatenate([v for v in vectors if v is not None])
            for vectors in ([part.text for part in parts], [part.looks for part in parts])
        )
        together = Described(ids, text, looks)
        return together._taken(sorted(range(len(ids)), key=ids.__getitem__))

    def _taken(self, numbers: Sequence[int]) -> Described:
        return Described(
            tuple(self.ids[number] for number in numbers),
            None if self.text is None else self.text[numbers],
            None if self.looks is None else self.looks[numbers],
        )

    def centred(self) -> Described:
        """Return the clips with text embeddings as unit vectors from their common mean (0 stays 0)."""
        if self.text is None or not self.ids:
            return self
        text = self.text - self.text.mean(axis=0, dtype=np.float64).astype(np.float32)
        text[~self.text.any(axis=1)] = 0  # a caption without words stays alike to nothing
        lengths = np.linalg.norm(text, axis=1, keepdims=True)
        text /= np.where(lengths > 0, lengths, 1)
        return replace(self, text=text)

    def to_table(self) -> pa.Table:
        """Return table ``vectors``."""
        frames = 0 if self.looks is None else self.looks.shape[1]
        columns = {
            "clip_id": pa.array(self.ids, pa.string()),
            "text": _lists(self.text, len(self.ids)),
            "looks": _lists(self.looks, len(self.ids)),
            "frames": pa.array([frames] * len(self.ids), pa.int32()),
        }
        return pa.table(columns, schema=TABLES["vectors"])

    @classmethod
    def from_table(cls, table: pa.Table) -> Described:
        """Read table ``vectors`` back; rows must be of one kind and in order of id."""
        ids = tuple(table["clip_id"].to_pylist())
        looks = matrix(table["looks"])
        if looks is not None:
            looks = looks.reshape(len(ids), table["frames"][0].as_py(), -1)
        return cls(ids, matrix(table["text"]), looks)


def _lists(vectors: Vectors | None, rows: int) -> pa.Array:
    if vectors is None:
        return pa.nulls(rows, pa.list_(pa.float32()))
    flat = vectors.reshape(rows, -1) if rows else np.empty((0, 0), np.float32)
    offsets = np.arange(rows + 1, dtype=np.int32) * flat.shape[1]
    return pa.ListArray.from_arrays(offsets, pa.array(flat.ravel()))


def matrix(column: pa.ChunkedArray) -> Vectors | None:
    """Return a column of equally long lists as [rows, width]; None where there are no rows, or nulls."""
    if column.null_count or not len(column):
        return None
    flat = column.combine_chunks().flatten().to_numpy()
    return np.asarray(flat.reshape(len(column), -1), np.float32)


def searched_rows(text: npt.NDArray[np.floating] | None, looks: npt.NDArray[np.floating] | None) -> Rows:
    """Return [clips, dimensions] whose inner products are at least as high as a pair's lowest similarity."""
    if looks is None:
        assert text is not None
        return np.ascontiguousarray(text, np.float32)
    # The mean over frames is at least the minimum.
    flat = looks.reshape(len(looks), looks.shape[1] * looks.shape[2]) / np.sqrt(max(1, looks.shape[1]))
    return np.ascontiguousarray(flat, np.float32)
