"""What the scan stage measures of a file, as rows of table ``scans``.

The only place of the stage that opens a file of a source.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, fields, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar

from share4video.config import ProbeConfig
from share4video.curation.filters import Rejection
from share4video.dataset.schema import SCANS
from share4video.errors import UserError
from share4video.media.decode import uniform_frames
from share4video.media.limits import Limits, MediaError
from share4video.media.probe import ClipInfo, Splitting, content_hash, file_size, probe, split
from share4video.media.sources import SourceFile

if TYPE_CHECKING:
    from share4video.curation.aesthetic import AestheticRater

_FILES_AT_ONCE = 2  # each is decoded in a child process of its own
_ID_LENGTH = 32
_RATED_SIDE = 640  # pixels; encoders look at less

Row = dict[str, Any]
Count = Callable[[int], None]
Item = TypeVar("Item")
Result = TypeVar("Result")


class Scanner:
    """Measures files as a configuration says.

    Raises:
        UserError: what the configuration asks for is not installed, or cannot be loaded.
    """

    def __init__(self, config: ProbeConfig) -> None:
        self._config = config
        self._limits = Limits(wall_s=config.decode_timeout_s, max_pixels=config.max_pixels)
        self._splitting = _splitting(config)
        self._rater: AestheticRater | None = None
        if config.aesthetic is not None:
            from share4video.curation.aesthetic import AestheticRater

            self._rater = AestheticRater(config.aesthetic)

    @property
    def identity(self) -> dict[str, str]:
        """What results depend on beside the configuration."""
        return {"aesthetic": self._rater.revision} if self._rater else {}

    def contents(self, files: Sequence[SourceFile], count: Count) -> list[str | Rejection]:
        """Return each file's content hash, or why it has none."""
        return list(_counted(_in_parallel(self._content, files), count))

    def rows(
        self, files: Sequence[SourceFile], contents: Sequence[str | Rejection], count: Count
    ) -> list[Row]:
        """Return the rows of table ``scans`` of files whose `contents` are known, in their order."""
        one_of_each = {content: file for file, content in zip(files, contents, strict=True)}
        todo = [(file, content) for content, file in one_of_each.items() if isinstance(content, str)]
        measured = _counted(_in_parallel(self._clips, todo), count)
        found = {
            content: self._rated(file, clips) for (file, content), clips in zip(todo, measured, strict=True)
        }
        rows: list[Row] = []
        for file, content in zip(files, contents, strict=True):
            clips = content if isinstance(content, Rejection) else found[content]
            if isinstance(clips, Rejection):
                known = None if isinstance(content, Rejection) else content
                rows.append(_row(file, content_hash=known, **asdict(clips)))
            else:
                rows += [_row(file, **asdict(clip)) for clip in clips]
        count(len(files))
        return rows

    def _content(self, file: SourceFile) -> str | Rejection:
        if not file.named_in_utf8:
            return Rejection("unreadable", "the file's name is not UTF-8")
        try:
            if file_size(file.path, max_bytes=self._config.max_file_bytes) == 0:
                return Rejection("not_video", "the file is empty")
            return content_hash(file.path)
        except MediaError as error:
            return Rejection.of(error)

    def _clips(self, row: tuple[SourceFile, str]) -> list[ClipInfo] | Rejection:
        file, content = row
        try:
            clip = probe(
                file.path,
                limits=self._limits,
                max_file_bytes=self._config.max_file_bytes,
                decode_up_to_s=self._config.scan_up_to_s,
                known_hash=content,
            )
            return split(clip, file.path, self._splitting, self._limits) if self._splitting else [clip]
        except MediaError as error:
            return Rejection.of(error)

    def _rated(self, file: SourceFile, clips: list[ClipInfo] | Rejection) -> list[ClipInfo] | Rejection:
        if self._rater is None or isinstance(clips, Rejection):
            return clips
        try:
            return [clip if clip.frames is None else self._with_rating(file, clip) for clip in clips]
        except MediaError as error:
            return Rejection.of(error)

    def _with_rating(self, file: SourceFile, clip: ClipInfo) -> ClipInfo:
        assert self._rater is not None and self._config.aesthetic is not None
        count, span = self._config.aesthetic.frames, (clip.start_s, clip.end_s)
        frames = uniform_frames(file.path, count, *span, max_side=_RATED_SIDE, limits=self._limits)
        return replace(clip, aesthetic=self._rater.rate([frame.rgb for frame in frames]))


def stored_size(file: SourceFile) -> int:
    """Return a file's size in bytes, by which work is divided; 0 where it cannot be read."""
    try:
        return file_size(file.path)
    except MediaError:
        return 0


def finding(row: Row) -> ClipInfo | Rejection:
    """Return what a row of table ``scans`` says of its file or scene."""
    if row["reason"] is not None:
        return Rejection(row["reason"], row["sentence"], row["measured"], row["bound"])
    return ClipInfo(**{field.name: row[field.name] for field in fields(ClipInfo)})


def _row(file: SourceFile, **known: Any) -> Row:
    row_id = hashlib.sha256(file.uri.encode()).hexdigest()[:_ID_LENGTH]
    return {**dict.fromkeys(SCANS.names), "row_id": row_id, "source_uri": file.uri, **known}


def _splitting(config: ProbeConfig) -> Splitting | None:
    if not config.split_scenes:
        return None
    if not all(map(find_spec, ("scenedetect", "cv2"))):
        fix = "pip install 'share4video[curation]'"
        raise UserError("finding scenes needs PySceneDetect and OpenCV", where="probe.split_scenes", fix=fix)
    return Splitting(config.scene_threshold, config.min_scene_s, config.split_timeout_s)


def _in_parallel(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield ``work`` of each item, in their order."""
    with ThreadPoolExecutor(min(_FILES_AT_ONCE, os.cpu_count() or 1), "scan") as threads:
        yield from threads.map(work, items)


def _counted(items: Iterable[Item], count: Count) -> Iterator[Item]:
    for done, item in enumerate(items, start=1):
        yield item
        count(done)
