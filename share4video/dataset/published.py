"""A published dataset clip by clip: what exports are written from, one shard in memory at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from share4video.dataset.formats import sharegpt4video
from share4video.dataset.manifest import Manifest, StageRef, load_manifest
from share4video.dataset.schema import CAPTIONS, CLIPS, DIFFERENTIALS
from share4video.dataset.shards import parse_table, read_table, read_verified
from share4video.dataset.tombstones import taken_down
from share4video.errors import UserError
from share4video.store import Store

Row = Mapping[str, Any]
Keep = Callable[[Row], bool]
_ARCHIVE = ".zip"

CAPTION_FIELDS = tuple(field for field in CAPTIONS if field.name != "clip_id")
DIFFERENTIAL_FIELDS = tuple(field for field in DIFFERENTIALS if field.name != "clip_id")

# A clip with all that is said of it as one row: the form of Parquet exports.
SAMPLES = pa.schema(
    [
        *CLIPS,
        pa.field("summary", pa.string(), nullable=False),
        pa.field("captions", pa.list_(pa.struct(CAPTION_FIELDS)), nullable=False),
        pa.field("differentials", pa.list_(pa.struct(DIFFERENTIAL_FIELDS)), nullable=False),
    ]
)


def clip_rows(store: Store, ref: StageRef, table: str, clip_ids: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yield the rows of some clips, part by part: a table of a large dataset need not fit into memory.

    Clips that were taken down have none.

    Raises:
        UserError: the output is missing or damaged.
    """
    wanted = pa.array(sorted(set(clip_ids) - taken_down(store)), pa.string())
    for part in load_manifest(store, ref).parts:
        if part.table == table:
            rows = parse_table(read_verified(store, ref, part.path, part.sha256))
            yield from rows.filter(pc.is_in(rows["clip_id"], wanted)).to_pylist()


@dataclass(frozen=True)
class ClipSample:
    """A clip of a published dataset.

    Attributes:
        clip: its row of table ``clips``.
        captions: its rows of ``captions``, in the table's order.
        differentials: its rows of ``differentials``, by index.
    """

    clip: Row
    captions: tuple[Row, ...]
    differentials: tuple[Row, ...]

    @property
    def clip_id(self) -> str:
        return str(self.clip["clip_id"])

    def caption(self, role: str) -> Row | None:
        """Return the first caption of a role."""
        return next((row for row in self.captions if row["role"] == role), None)

    @property
    def summary(self) -> str:
        """The summary; of a clip that has none its fast caption, or the empty text."""
        row = self.caption("summary") or self.caption("fast")
        return "" if row is None else str(row["caption"])

    def row(self) -> dict[str, Any]:
        """Return the sample as one row of `SAMPLES`; `sample_of` is the way back."""
        return {
            **self.clip,
            "summary": self.summary,
            "captions": [{f.name: row[f.name] for f in CAPTION_FIELDS} for row in self.captions],
            "differentials": [
                {f.name: row[f.name] for f in DIFFERENTIAL_FIELDS} for row in self.differentials
            ],
        }


def sample_of(row: Row) -> ClipSample:
    """Return the sample that a row of `SAMPLES` holds."""
    named = {"clip_id": row["clip_id"]}
    return ClipSample(
        clip={name: row[name] for name in CLIPS.names},
        captions=tuple({**named, **caption} for caption in row["captions"]),
        differentials=tuple({**named, **differential} for differential in row["differentials"]),
    )


def released_record(sample: ClipSample, *, named: bool = False) -> sharegpt4video.Record:
    """Return a clip in the released form.

    ``video_id`` is the clip's id, or with ``named`` what its list calls it. The member of an archive
    ``folder/archive.zip/file`` has ``zip_folder`` ``archive.zip`` and ``video_path`` ``folder/file``.
    ``keyframe`` and ``idx`` are the numbers from 0 of the key frames that have a caption.
    """
    clip = sample.clip
    path, archive = PurePosixPath(clip["source_uri"]), ""
    if path.parent.name.lower().endswith(_ARCHIVE):
        archive = path.parent.name
        path = path.parent.parent / path.name
    return sharegpt4video.Record(
        video_id=str(clip["source_id"] if named else clip["clip_id"]),
        video_path=str(path),
        timestamps=tuple(row["end_s"] for row in sample.differentials),
        keyframes=tuple(row["index"] for row in sample.differentials),
        captions=(
            *(sharegpt4video.Caption(str(row["index"]), row["caption"]) for row in sample.differentials),
            sharegpt4video.Caption(sharegpt4video.SUMMARY_IDX, sample.summary),
        ),
        zip_folder=archive,
    )


@dataclass(frozen=True)
class PublishedDataset:
    """A published dataset that is read shard by shard; a clip and its captions are in one shard."""

    store: Store
    ref: StageRef
    manifest: Manifest

    @classmethod
    def open(cls, store: Store, ref: StageRef) -> PublishedDataset:
        """Raises UserError where the output is missing, damaged or no dataset."""
        manifest = load_manifest(store, ref)
        if not {"clips", "captions", "differentials"} <= {part.table for part in manifest.parts}:
            raise UserError(
                f"the output of stage {ref.stage} is no dataset",
                where=str(ref),
                fix="name one of stage dataset",
            )
        return cls(store, ref, manifest)

    def clips(self) -> Iterator[Row]:
        """Yield the rows of table ``clips`` in order."""
        for shard in self._shards():
            yield from self._rows("clips", shard)

    def samples(self) -> Iterator[ClipSample]:
        """Yield the clips in order, with all their captions.

        Raises:
            UserError: a shard holds captions of a clip that is not in it.
        """
        for shard in self._shards():
            captions, differentials = self._by_clip("captions", shard), self._by_clip("differentials", shard)
            for clip in self._rows("clips", shard):
                own = differentials.pop(clip["clip_id"], [])
                own.sort(key=lambda row: row["index"])
                yield ClipSample(clip, tuple(captions.pop(clip["clip_id"], ())), tuple(own))
            for clip_id in [*captions, *differentials][:1]:
                raise UserError(
                    f"shard {shard} holds captions of clip {clip_id} but not the clip",
                    where=str(self.ref),
                    fix="publish the dataset again",
                )

    def _shards(self) -> list[int]:
        return sorted({part.shard for part in self.manifest.parts})

    def _rows(self, table: str, shard: int) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = read_table(self.store, self.ref, table, shard=shard).to_pylist()
        return rows

    def _by_clip(self, table: str, shard: int) -> dict[str, list[dict[str, Any]]]:
        found: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in self._rows(table, shard):
            found[row["clip_id"]].append(row)
        return found
