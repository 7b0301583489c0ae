"""The released ``sharegpt4video_40k.jsonl`` as a source: its videos are members of the released archives.

A record's ``zip_folder`` names the archive, the first step of ``video_path`` the folder of archives, and the
last step the member. The archives are looked for in ``zip_folder/<dataset>/`` and ``<dataset>/`` beside the
file, and beside the file itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from share4video.dataset.formats import sharegpt4video
from share4video.dataset.formats.lines import LINE_TOO_LONG, Reject, numbered_lines
from share4video.media.limits import MediaError
from share4video.media.sources.archive import SUFFIX, is_archive_name, open_archive
from share4video.media.sources.lists import Line, broken, canonical
from share4video.media.sources.place import Place, check_inside
from share4video.media.sources.tree import Tree

_FIELDS = {"video_id", "video_path", "zip_folder"}


def is_released(place: Place) -> bool:
    """Say whether the first line that is JSON is a record of the released file.

    Raises:
        MediaError: the place cannot be read.
        UserError: nothing can be read there.
    """
    with closing(place.open()) as file:
        for _, line in numbered_lines(file):
            try:
                first = json.loads(line or b"")
            except (ValueError, RecursionError):
                continue
            return isinstance(first, dict) and first.keys() >= _FIELDS
    return False


def read_released(path: Path) -> Iterator[Line]:
    """Yield the file's records as lines of a list, with uris ``<dataset>/<archive>.zip/<file name>``.

    The key frames' times and numbers are metadata; the captions are not: `dataset.formats` reads them.
    """
    with path.open("rb") as file:
        for number, line in numbered_lines(file):
            if line is None:
                yield broken(number, "line_too_long", LINE_TOO_LONG)
            elif line.strip():
                yield _line(sharegpt4video.parse(line, number))


def _line(found: sharegpt4video.Record | Reject) -> Line:
    if isinstance(found, Reject):
        return broken(found.number, found.reason, found.sentence)
    facts = {
        "keyframe": found.keyframes,
        "timestamp": found.timestamps,
        "video_path": found.video_path,
    }
    return Line(number=0, uri=released_uri(found), source_id=found.video_id, metadata=canonical(facts))


def released_uri(record: sharegpt4video.Record) -> str:
    """Return what a record's row is called: ``<dataset>/<archive>.zip/<file name>``."""
    folder, _, name = record.video_path.rpartition("/")
    archive = record.zip_folder
    if archive and not is_archive_name(archive):
        archive += SUFFIX
    return "/".join(step for step in (folder, archive, name) if step)


def find_released(uri: str, beside: Tree, zip_folder: Tree | None) -> Place:
    """Return the member of a released archive that a uri of `read_released` means.

    Args:
        beside: the folder the jsonl is in.
        zip_folder: where the archives are, where they are not beside it.

    Raises:
        MediaError: there is no such archive or no such member, or the name leads out.
    """
    check_inside(uri)
    head, _, name = uri.rpartition("/")
    dataset, _, archive = head.rpartition("/")
    if not is_archive_name(archive):
        return beside.file(uri)
    places = [(beside, f"zip_folder/{head}"), (beside, head), (beside, archive)]
    if zip_folder is not None:
        places = [(zip_folder, head), (zip_folder, archive)]
    for tree, candidate in places:
        if tree.holds(candidate):
            return open_archive(tree.file(candidate)).flat.member(name)
    raise MediaError("unreadable", f"there is no archive {archive} of {dataset or 'this file'}")
