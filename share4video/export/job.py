"""What every export is given: the dataset, the folder, and where the clips' pictures come from."""

from __future__ import annotations

import re
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

from share4video.captioning.role_inputs import KeyFrame
from share4video.captioning.sharecaptioner import encode_jpeg
from share4video.dataset.export_folder import ExportFolder
from share4video.dataset.manifest import StageRef, load_manifest
from share4video.dataset.published import ClipSample, PublishedDataset
from share4video.dataset.shards import read_table
from share4video.errors import UserError
from share4video.media.decode import frames_at
from share4video.media.sources import clip_file
from share4video.wording import TileBudgets

FRAME_SIDE = 1024  # pixels; as the key-frame stage keeps them
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,8}", re.ASCII)

Row = Mapping[str, Any]
# Why a clip is not exported, as reason and sentence, or None where it is.
Filter = Callable[[Row], tuple[str, str] | None]


def is_part(clip: Row) -> bool:
    """Say whether a clip is a part of its file: a scene of one that was split, or what begins inside it."""
    return clip["scene"] is not None or clip["start_s"] > 0


@dataclass(frozen=True)
class ExportOptions:
    """How to export.

    Attributes:
        source: the sources the clips were found in, for formats that need videos; empty for none.
        keyframes: the output of the key-frame stage that the captions were made from, for formats that need
            key frames; without it they are decoded from the videos.
        balanced: of the captioner's training data take as much of every role.
        tiles: its pictures are whole tiles, at most so many; None leaves them as they are composed.
        seed: which samples that takes.
        shard_bytes: how large a shard grows, about.
    """

    source: str = ""
    keyframes: StageRef | None = None
    balanced: bool = False
    tiles: TileBudgets | None = None
    seed: int = 0
    shard_bytes: int = 1 << 30

    def recipe(self) -> dict[str, Any]:
        """Return what the export's bytes depend on."""
        return {
            "videos": bool(self.source),
            "keyframes": str(self.keyframes) if self.keyframes else None,
            "balanced": self.balanced,
            "seed": self.seed,
            "shard_bytes": self.shard_bytes,
            **({} if self.tiles is None else {"tiles": self.tiles.model_dump()}),
        }


@dataclass(frozen=True)
class Job:
    """One export that is under way."""

    dataset: PublishedDataset
    folder: ExportFolder
    options: ExportOptions
    leave_out: Filter | None = None

    def chosen(self) -> Iterator[ClipSample]:
        """Yield the clips that the filter lets pass and that have a summary, without a word on the others."""
        return (sample for sample in self.dataset.samples() if self._reason(sample) is None)

    def samples(self) -> Iterator[ClipSample]:
        """Yield the same clips and count the others as left out. To be used once."""
        for sample in self.dataset.samples():
            reason = self._reason(sample)
            if reason is None:
                yield sample
            else:
                self.folder.leave_out(sample.clip, *reason)

    def _reason(self, sample: ClipSample) -> tuple[str, str] | None:
        reason = self.leave_out(sample.clip) if self.leave_out else None
        if reason is None and not sample.summary.strip():
            return "no_summary", "there is no caption of the whole clip"
        return reason

    @contextmanager
    def video(self, clip: Row) -> Iterator[Path]:
        """Hold a local file with the clip's video.

        Raises:
            MediaError: its name leads out of the sources.
            UserError: the sources do not hold it.
        """
        with clip_file(self.options.source, clip) as path:
            yield path

    def video_name(self, clip: Row) -> str:
        """Return the path under which a list names the clip's video.

        That is its path below the sources; where videos are exported too, they are copied to ``videos/``.

        Raises:
            MediaError, UserError: as `video`.
        """
        name = str(clip["source_uri"])
        if self.options.source:
            suffix = PurePosixPath(name).suffix
            suffix = suffix.lower() if _SUFFIX.fullmatch(suffix) else ".mp4"
            name = f"videos/{clip['content_hash'][:32]}{suffix}"
            with self.video(clip) as path:
                self.folder.copy(name, path)
        return name

    def key_frames(self, sample: ClipSample) -> dict[int, KeyFrame]:
        """Return the clip's key frames by index, each a JPEG file, for the indices of its differentials.

        Where the key-frame stage's output is given, those that windows show are there, too.

        Raises:
            MediaError: they cannot be decoded.
            UserError: the key-frame stage's output, or the source, does not hold them.
        """
        times = {int(row["index"]): float(row["end_s"]) for row in sample.differentials}
        if self.options.keyframes is not None:
            stored = self._stored_frames.get(sample.clip_id)
            wanted = set(times)
            for before, row in pairwise(sample.differentials):
                if row["kind"] == "window":
                    wanted.update(range(int(before["index"]), int(row["index"])))
            if not wanted <= stored.keys():
                raise UserError(
                    f"there are no key frames of clip {sample.clip_id}",
                    where=str(self.options.keyframes),
                    fix="name the output that the captions were made from",
                )
            return {index: stored[index] for index in sorted(wanted)}
        with self.video(sample.clip) as path:
            frames = frames_at(path, list(times.values()), max_side=FRAME_SIDE)
        return {
            index: KeyFrame(index + 1, time_s, encode_jpeg(frame.image))
            for (index, time_s), frame in zip(times.items(), frames, strict=True)
        }

    @cached_property
    def _stored_frames(self) -> _StoredFrames:
        assert self.options.keyframes is not None
        return _StoredFrames(self.dataset, self.options.keyframes)


class _StoredFrames:
    """Key frames that the key-frame stage published.

    Its shards are in another order than the dataset's clips, so each is read once and its pictures are put
    into one temporary file.
    """

    def __init__(self, dataset: PublishedDataset, ref: StageRef) -> None:
        self._file = tempfile.TemporaryFile(prefix="share4video-keyframes-")  # noqa: SIM115
        self._places: defaultdict[str, list[tuple[int, float, int, int]]] = defaultdict(list)
        parts = load_manifest(dataset.store, ref).parts
        for shard in sorted({part.shard for part in parts if part.table == "keyframes"}):
            for row in read_table(dataset.store, ref, "keyframes", shard=shard).to_pylist():
                place = (row["index"], row["timestamp_s"], self._file.tell(), len(row["jpeg"]))
                self._places[row["clip_id"]].append(place)
                self._file.write(row["jpeg"])

    def get(self, clip_id: str) -> dict[int, KeyFrame]:
        """Return a clip's key frames by index; none of a clip that has none."""
        found = {}
        for index, timestamp_s, start, length in self._places.get(clip_id, ()):
            self._file.seek(start)
            found[index] = KeyFrame(index + 1, timestamp_s, self._file.read(length))
        return found
