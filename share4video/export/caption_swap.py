"""A mixture in which captions take the places of other samples about videos: the paper's baseline swap.

The paper (table 1) trains Video-LLaVA and LLaMA-VID as they come, and once more with 28K of the 100K samples
of VideoChatGPT replaced by as many captions. Its README says the caption samples of VideoChatGPT are what was
replaced; which those are, it does not say. Here samples that ask for a description go first.

Both inputs are read twice, in a stream: once to choose, once to write. What is kept of a sample in between is
a number.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from share4video.dataset.export_folder import ExportFolder, export_folder, read_index
from share4video.dataset.formats import sharegpt4video
from share4video.dataset.formats.elements import ListWriter, list_elements
from share4video.dataset.formats.lines import Reject
from share4video.dataset.formats.sharegpt4video import Record
from share4video.dataset.formats.video_mix import (
    LAYOUTS,
    Kind,
    asks_for_description,
    caption_element,
    in_layout,
    kind_of,
    renamed,
)
from share4video.dataset.manifest import StageRef
from share4video.dataset.messages import MessageError
from share4video.dataset.mixture import DESCRIBE_REQUEST
from share4video.dataset.published import PublishedDataset, released_record
from share4video.errors import UserError
from share4video.export.job import is_part
from share4video.store import Store

REPLACED, NOT_SELECTED = "replaced", "not_selected"
_LATER = 1 << 63  # above every rank of a sample that asks for a description
_EVERY = 1000  # samples between two reports of progress

Progress = Callable[[str, int], None]


@dataclass(frozen=True)
class SwapOptions:
    """What is swapped.

    Attributes:
        count: how many samples are replaced, by as many captions.
        seed: which ones, and by which captions.
        question: what captions answer.
        layouts: names of `LAYOUTS`, one file each.
        renames: how the base's files begin, and how they are to begin instead.
        caption_folder: put before the names of the captions' videos.
        only: first folders of the captions' videos that are taken; empty takes all.
        descriptions_first: replace samples that ask for a description before others.
    """

    count: int = 28_000
    seed: int = 0
    question: str = DESCRIBE_REQUEST
    layouts: tuple[str, ...] = tuple(LAYOUTS)
    renames: tuple[tuple[str, str], ...] = ()
    caption_folder: str = ""
    only: tuple[str, ...] = ()
    descriptions_first: bool = True

    def recipe(self) -> dict[str, Any]:
        """Return what the files' bytes depend on, as JSON has it."""
        fields: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return fields


@dataclass(frozen=True)
class Captions:
    """Captions that can be read more than once.

    Attributes:
        name: what rejects call them.
        identity: names their content.
        records: yields them in order, each a whole video with its file, or why there is none.
    """

    name: str
    identity: str
    records: Callable[[], Iterator[Record | Reject]]

    @classmethod
    def of_file(cls, path: Path) -> Captions:
        """Take the released jsonl. Raises UserError where it cannot be read."""
        return cls(path.name, f"sha256:{_sha256(path)}", lambda: sharegpt4video.read(path))

    @classmethod
    def of_dataset(cls, store: Store, ref: StageRef) -> Captions:
        """Take a published dataset. Raises UserError where it is missing, damaged or none."""
        dataset = PublishedDataset.open(store, ref)

        def records() -> Iterator[Record | Reject]:
            for number, sample in enumerate(dataset.samples(), start=1):
                if is_part(sample.clip):
                    sentence = "the clip is a part of its file, and the form names whole ones"
                    yield Reject(number, "part_of_a_file", sentence)
                elif not sample.summary.strip():
                    yield Reject(number, "no_summary", "there is no caption of the whole clip")
                else:
                    yield released_record(sample)

        return cls(str(ref), str(ref), records)


def swap_captions(
    base: Path,
    captions: Captions,
    target: Path,
    options: SwapOptions = SwapOptions(),
    *,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write the swapped mixture to folder ``target``; return what ``export.json`` says.

    Every sample of ``base`` is written as it is and where it is, but for ``count`` of those about videos: in
    their places stand the chosen captions, in the captions' order. Which are chosen depends on the seed and
    on what samples say and captions are called, not on where they stand. Rows are the base's elements and the
    captions; ``rejects.jsonl`` has a line for each that is not in the files, those that were replaced
    included. The folder appears when it is whole, equal inputs give equal bytes, and a folder that holds the
    same swap already is left as it is.

    Args:
        base: a JSON list in LLaVA's form with images and videos, with either mark for a video.
        progress: called with what is done and the number of samples so far.

    Raises:
        UserError: an input cannot be read, there are fewer videos or captions than are to be swapped, the
            question has a mark in it, or the folder holds something else or cannot be written.
    """
    unknown = sorted(set(options.layouts) - set(LAYOUTS))
    if unknown or not options.layouts:
        raise UserError(
            "there is no such layout", where=", ".join(unknown), fix=f"name {' or '.join(LAYOUTS)}"
        )
    try:
        caption_element("", "", options.question, "-")
    except MessageError as error:
        raise UserError(
            f"the question cannot be asked: {error}", where="--question", fix="leave marks out"
        ) from None
    recipe = {
        "format": "caption-swap",
        "base": f"sha256:{_sha256(base)}",
        "captions": captions.identity,
        "options": options.recipe(),
    }
    earlier = read_index(target)
    if earlier is not None and all(earlier.get(key) == value for key, value in recipe.items()):
        return earlier
    count = _counter(progress)
    slots, videos = _choose_slots(base, options, count)
    chosen, reasons = _choose_captions(captions, videos, options, count)
    if len(chosen) < options.count:
        left_out = "".join(f", {number} {reason}" for reason, number in sorted(reasons.items()))
        raise UserError(
            f"{len(chosen)} captions can be used, fewer than {options.count}{left_out}",
            where=captions.name,
            fix="give -n a smaller number, or more captions",
        )
    with export_folder(target) as folder:
        rows = _write(folder, base, captions, slots, _Chosen(chosen, videos), options, count)
        return folder.finish(recipe, rows)


@dataclass(frozen=True)
class _Chosen:
    """The captions that are taken, by their places among all, and the videos that the base has."""

    places: frozenset[int]
    videos: frozenset[bytes]


def _choose_slots(
    base: Path, options: SwapOptions, count: Callable[[str], None]
) -> tuple[frozenset[int], frozenset[bytes]]:
    """Return the places of the samples that are replaced, and a hash of every video's name.

    Raises:
        UserError: there are fewer videos than are to be replaced.
    """
    ranks, places, videos = array("Q"), array("Q"), set()
    for place, found in enumerate(list_elements(base)):
        count("choosing samples")
        if isinstance(found, Reject) or _kind(found[1]) != "video":
            continue
        value = found[1]
        later = options.descriptions_first and not asks_for_description(value)
        ranks.append(_rank(options.seed, json.dumps(value, sort_keys=True)) + (_LATER if later else 0))
        places.append(place)
        videos.add(_short(renamed(value["video"], options.renames)))
    if len(places) < options.count:
        raise UserError(
            f"there are {len(places)} samples about videos, fewer than {options.count}",
            where=str(base),
            fix="give -n a smaller number, or a mixture with more videos",
        )
    return _lowest(ranks, places, options.count), frozenset(videos)


def _choose_captions(
    captions: Captions, videos: frozenset[bytes], options: SwapOptions, count: Callable[[str], None]
) -> tuple[frozenset[int], Counter[str]]:
    """Return the places of the captions that are taken, and how many cannot be, by reason."""
    ranks, places = array("Q"), array("Q")
    reasons: Counter[str] = Counter()
    for place, record in enumerate(captions.records()):
        count("choosing captions")
        made = _caption(record, videos, options)
        if isinstance(made, Reject):
            reasons[made.reason] += 1
        else:
            ranks.append(_rank(options.seed, made["id"], made["video"]))
            places.append(place)
    return _lowest(ranks, places, options.count), reasons


def _lowest(ranks: array[int], places: array[int], count: int) -> frozenset[int]:
    """Return the places with the lowest ranks; of equal ones the first."""
    order = np.lexsort((np.asarray(places), np.asarray(ranks)))[:count]
    return frozenset(places[int(index)] for index in order)


def _write(
    folder: ExportFolder,
    base: Path,
    captions: Captions,
    slots: frozenset[int],
    chosen: _Chosen,
    options: SwapOptions,
    count: Callable[[str], None],
) -> int:
    """Write the files and what is left out; return how many rows went in."""
    rows = 0
    replacements = _replacements(folder, captions, chosen, options)
    with ExitStack() as held:
        writers = []
        for name in options.layouts:
            layout = LAYOUTS[name]
            writer = ListWriter(held.enter_context(folder.file(layout.file_name)))
            held.callback(writer.close)
            writers.append((layout, writer))
        for place, found in enumerate(list_elements(base)):
            count("writing")
            rows += 1
            element = _take(folder, base.name, found)
            if element is None:
                continue
            kind, label, renames = kind_of(element), "", options.renames
            if place in slots:
                asked = "descriptions" if asks_for_description(element) else "other_questions"
                folder.counts[f"replaced_{asked}"] += 1
                where = f"{base.name}#{place + 1}"
                _leave_out(folder, where, element.get("id"), REPLACED, "a caption is in its place")
                element, label, renames = next(replacements), "caption", ()
            folder.counts[label or kind] += 1
            folder.rows_out += 1
            for layout, writer in writers:
                writer.add(in_layout(element, kind, layout, renames))
        for _ in replacements:
            raise RuntimeError("a chosen caption has found no place")
    return rows + folder.counts.pop("captions_read")


def _take(folder: ExportFolder, name: str, found: tuple[int, Any] | Reject) -> dict[str, Any] | None:
    """Return a sample of the base, or leave out what is none."""
    if isinstance(found, Reject):
        _leave_out(folder, f"{name}#{found.number}", None, found.reason, found.sentence)
        return None
    number, value = found
    try:
        kind_of(value)
    except MessageError as error:
        sample_id = value.get("id") if isinstance(value, dict) else None
        _leave_out(folder, f"{name}#{number}", sample_id, "wrong_shape", str(error))
        return None
    taken: dict[str, Any] = value
    return taken


def _replacements(
    folder: ExportFolder, captions: Captions, chosen: _Chosen, options: SwapOptions
) -> Iterator[dict[str, Any]]:
    """Yield the chosen captions as samples, and leave out the others; to be read to its end."""
    for place, record in enumerate(captions.records()):
        folder.counts["captions_read"] += 1
        where = f"{captions.name}#{place + 1}"
        made = _caption(record, chosen.videos, options)
        if isinstance(made, Reject):
            video_id = record.video_id if isinstance(record, Record) else None
            _leave_out(folder, where, video_id, made.reason, made.sentence)
        elif place in chosen.places:
            yield made
        else:
            sentence = "as many captions as were asked for are taken without it"
            _leave_out(folder, where, made["id"], NOT_SELECTED, sentence)


def _caption(
    record: Record | Reject, videos: frozenset[bytes], options: SwapOptions
) -> dict[str, Any] | Reject:
    """Return a caption as a sample, or why it cannot be one."""
    if isinstance(record, Reject):
        return record
    path = PurePosixPath(record.video_path)
    if not path.name or path.is_absolute() or ".." in path.parts:
        return Reject(record.number, "bad_path", f"{record.video_path!r} names no file below a folder")
    if options.only and path.parts[0] not in options.only:
        return Reject(record.number, "other_folder", f"its video is in {path.parts[0]!r}")
    if record.summary is None or not record.summary.strip():
        return Reject(record.number, "no_summary", "there is no caption of the whole video")
    if "damaged_video" in record.notes:
        return Reject(record.number, "damaged_video", "the video is known to be damaged in its archive")
    name = str(PurePosixPath(options.caption_folder) / path)
    if _short(name) in videos:
        return Reject(record.number, "in_base", f"the mixture has a sample about {name!r} already")
    try:
        return caption_element(record.video_id, name, options.question, record.summary)
    except MessageError as error:
        return Reject(record.number, "bad_messages", str(error))


def _kind(value: Any) -> Kind | None:
    try:
        return kind_of(value)
    except MessageError:
        return None


def _leave_out(folder: ExportFolder, where: str, row_id: Any, reason: str, sentence: str) -> None:
    folder.leave_out({"clip_id": None, "source_uri": where, "source_id": row_id}, reason, sentence)


def _rank(seed: int, *texts: str) -> int:
    """Return a number below ``_LATER`` that looks random."""
    digest = hashlib.sha256("\0".join((str(seed), *texts)).encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:8]) % _LATER


def _short(name: str) -> bytes:
    return hashlib.sha256(name.encode(errors="surrogatepass")).digest()[:12]


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as reader:
            return hashlib.file_digest(reader, "sha256").hexdigest()
    except OSError as error:
        raise UserError(
            f"cannot read the file: {error.strerror}", where=str(path), fix="check the path"
        ) from error


def _counter(progress: Progress | None) -> Callable[[str], None]:
    done: Counter[str] = Counter()

    def count(what: str) -> None:
        done[what] += 1
        if progress is not None and done[what] % _EVERY == 0:
            progress(what, done[what])

    return count
