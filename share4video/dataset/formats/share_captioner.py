"""The released 4.8M captions (``share-captioner-video_mixkit-pexels-pixabay_4814k_0417.json``), read.

The card of the release names this file; its form is documented nowhere, and users could not find the file.
So this reader assumes little:

* the file is one JSON list, or JSON lines; either is read in a stream, element by element;
* an element is an object. Its captions are a list ``captions`` as in ``sharegpt4video_40k.jsonl``, or one
  text under ``caption``, ``cap``, ``summary``, ``text`` or ``captions``, which is taken as the summary;
* the video is named under ``video_path``, ``path`` or ``video``, and its id under ``video_id`` or ``id``.
  One of the two is enough: the id is otherwise the path, and the path otherwise empty;
* ``timestamp``, ``keyframe`` and ``zip_folder`` are read where they are there.

Every other key is passed over. An element without a caption or without a name is a reject.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from share4video.dataset.formats import sharegpt4video
from share4video.dataset.formats.elements import any_elements
from share4video.dataset.formats.lines import Reject
from share4video.dataset.formats.sharegpt4video import SUMMARY_IDX, Record

_IDS = ("video_id", "id")
_PATHS = ("video_path", "path", "video")
_CAPTIONS = ("captions", "caption", "cap", "summary", "text")


def read(path: Path) -> Iterator[Record | Reject]:
    """Yield one record or one reject per element, in the file's order.

    Reasons are ``element_too_large``, ``line_too_long``, ``not_json``, ``wrong_shape`` and ``no_captions``.
    An id that comes twice is yielded twice: millions of ids are not kept here.

    Raises:
        UserError: the file cannot be read; where a JSON list breaks off, after what came before was yielded.
    """
    for element in any_elements(path):
        yield element if isinstance(element, Reject) else _record(*element)


def _record(number: int, value: Any) -> Record | Reject:
    if not isinstance(value, dict):
        return Reject(number, "wrong_shape", "it is no JSON object")
    path = _first(value, _PATHS)
    video_id = _first(value, _IDS) or path
    captions = next((value[name] for name in _CAPTIONS if value.get(name)), None)
    if video_id is None:
        return Reject(number, "wrong_shape", f"no video is named, by none of {', '.join(_IDS + _PATHS)}")
    if captions is None:
        return Reject(number, "no_captions", f"there is no text under any of {', '.join(_CAPTIONS)}")
    if isinstance(captions, str):
        captions = [{"idx": SUMMARY_IDX, "content": captions}]
    fields = {
        "video_id": video_id,
        "video_path": path or "",
        "timestamp": value.get("timestamp", []),
        "keyframe": value.get("keyframe", []),
        "captions": captions,
        "zip_folder": value.get("zip_folder") or "",
    }
    return sharegpt4video.record(number, fields)


def _first(value: dict[str, Any], names: tuple[str, ...]) -> str | None:
    """Return the first of the fields that holds a text, or a whole number as text."""
    for name in names:
        found = value.get(name)
        if isinstance(found, str) and found:
            return found
        if isinstance(found, int) and not isinstance(found, bool):
            return str(found)
    return None
