"""What the scan stage measures of a file, as rows of table ``scans``.

The only place of the stage that opens a file of a source.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from share4video.config import ProbeConfig
from share4video.curation.filters import Rejection
from share4video.dataset.schema import SCANS
from share4video.errors import UserError
from share4video.media.decode import uniform_frames
from share4video.media.limits import Limits, MediaError
from share4video.media.probe import ClipInfo, Splitting, probe, split
from share4video.media.sources import SourceFile
from share4video.stages.throughput import Meter

if TYPE_CHECKING:
    from share4video.curation.aesthetic import AestheticRater

_HASH = "sha256:"  # of a fingerprint that is the content's hash
_FILES_AT_ONCE = 2  # each is decoded in a child process of its own
_RATED_SIDE = 640  # pixels; encoders look at less

Row = dict[str, Any]
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

    def fingerprints(self, files: Sequence[SourceFile], meter: Meter) -> list[str | Rejection]:
        """Return what tells each file's content, where possible without reading it, or why nothing does."""
        found = []
        for file, print_ in zip(files, _in_parallel(self._fingerprint, files), strict=True):
            found.append(print_)
            meter.add(file.size())
        return found

    def rows(self, files: Sequence[SourceFile], prints: Sequence[str | Rejection], meter: Meter) -> list[Row]:
        """Return the rows of table ``scans`` of files whose `fingerprints` are known, in their order."""
        contents = list(_in_parallel(self._content, list(zip(files, prints, strict=True))))
        copies: defaultdict[str, list[SourceFile]] = defaultdict(list)
        for file, content in zip(files, contents, strict=True):
            if isinstance(content, str):
                copies[content].append(file)
        found: dict[SourceFile, list[ClipInfo] | Rejection] = {}
        for same, (lost, clips) in zip(
            copies.values(), _in_parallel(self._clips, copies.items()), strict=True
        ):
            readable = same[len(lost) :]
            if readable:
                clips = self._rated(readable[0], clips)
            found.update(zip(same, [*lost, *[clips] * len(readable)], strict=True))
            meter.add(same[0].size())
        rows: list[Row] = []
        for file, content in zip(files, contents, strict=True):
            clips = content if isinstance(content, Rejection) else found[file]
            if isinstance(clips, Rejection):
                known = None if isinstance(content, Rejection) else content
                rows.append(_row(file, content_hash=known, **asdict(clips)))
            else:
                rows += [_row(file, **asdict(clip)) for clip in clips]
        meter.skip(len(files) - len(copies))
        return rows

    def _fingerprint(self, file: SourceFile) -> str | Rejection:
        try:
            place = file.place
            if place.path is not None or place.size() is None:  # only its bytes tell what it holds
                return _HASH + file.content_hash(max_bytes=self._config.max_file_bytes)
            return file.fingerprint()
        except MediaError as error:
            return Rejection.of(error)

    def _content(self, row: tuple[SourceFile, str | Rejection]) -> str | Rejection:
        """Return a file's content hash, or why it has none."""
        file, found = row
        if isinstance(found, Rejection) or found.startswith(_HASH):
            return found if isinstance(found, Rejection) else found.removeprefix(_HASH)
        try:
            return file.content_hash(max_bytes=self._config.max_file_bytes)
        except MediaError as error:
            return Rejection.of(error)

    def _clips(
        self, copies: tuple[str, Sequence[SourceFile]]
    ) -> tuple[list[Rejection], list[ClipInfo] | Rejection]:
        """Measure the first of some files of one content that still holds it.

        Returns:
            Why those before it cannot be read, and what was measured; nothing where there is none.
        """
        content, files = copies
        lost: list[Rejection] = []
        for file in files:
            with ExitStack() as held:
                try:
                    path = held.enter_context(file.opened(content))
                except MediaError as error:
                    lost.append(Rejection.of(error))
                    continue
                return lost, self._measured(path, content)
        return lost, []

    def _measured(self, path: Path, content: str) -> list[ClipInfo] | Rejection:
        try:
            clip = probe(
                path,
                limits=self._limits,
                max_file_bytes=self._config.max_file_bytes,
                decode_up_to_s=self._config.scan_up_to_s,
                known_hash=content,
            )
            return split(clip, path, self._splitting, self._limits) if self._splitting else [clip]
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
        with file.opened(clip.content_hash) as path:
            frames = uniform_frames(path, count, *span, max_side=_RATED_SIDE, limits=self._limits)
        return replace(clip, aesthetic=self._rater.rate([frame.rgb for frame in frames]))


def finding(row: Row) -> ClipInfo | Rejection:
    """Return what a row of table ``scans`` says of its file or scene."""
    if row["reason"] is not None:
        return Rejection(row["reason"], row["sentence"], row["measured"], row["bound"])
    return ClipInfo(**{field.name: row[field.name] for field in fields(ClipInfo)})


def _row(file: SourceFile, **known: Any) -> Row:
    named = {
        "row_id": file.row_id,
        "source_uri": file.uri,
        "occurrence": file.occurrence,
        "source_id": file.source_id,
        "licence": file.licence,
        "metadata": file.metadata,
    }
    return {**dict.fromkeys(SCANS.names), **named, **known}


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
