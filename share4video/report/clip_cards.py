"""The clips of a run, each as a strip of key frames with what was said of them; the most suspicious first."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from share4video.dataset.links import sentences as split_sentences
from share4video.dataset.manifest import load_manifest
from share4video.dataset.shards import read_table
from share4video.evaluation.captions import Counts, count_facts
from share4video.report.funnel import say, told, without
from share4video.report.pictures import Thumbnail, thumbnail
from share4video.report.run_tables import RunTables, shortened
from share4video.report.suspicion import suspicions
from share4video.synthetic.caption_scores import predicted_facts, read_facts, truth_file
from share4video.synthetic.language import Fact

MAX_CLIPS = 40
MAX_FRAMES = 24
MAX_PICTURE_BYTES = 6 << 20  # of all data addresses together
_MAX_REMARKS = 4  # facts missed, and facts wrong, below a thumbnail
_MAX_CAPTION = 900  # characters below a thumbnail
_ROUNDING_S = 1e-3
_WHOLE_ROLES = ("summary", "fast", "brief", "recaption", "prompt", "structured")

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Frame:
    """A key frame and its differential caption; ``kind`` is empty where it has none.

    Attributes:
        missed: facts the captions should have told by this frame and did not.
        wrong: facts its caption tells that are not true.
    """

    time_s: float
    place: float  # percent of the clip's span
    similarity: float | None
    picture: Thumbnail | None
    kind: str = ""
    fallback: bool = False
    caption: str = ""
    missed: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sentence:
    """A sentence of a summary, and the times of the key frames it rests on, if anything supports it."""

    text: str
    times_s: tuple[float, ...]


@dataclass(frozen=True)
class WholeCaption:
    """A caption of the whole clip, and the checks it failed.

    ``sentences`` are those of ``text`` where they are linked to key frames, else none.
    """

    role: str
    text: str
    checks: tuple[str, ...]
    sentences: tuple[Sentence, ...] = ()


@dataclass(frozen=True)
class FactCheck:
    """The differential captions held against the clip's truth."""

    counts: Counts
    missed: tuple[Fact, ...]
    wrong: tuple[Fact, ...]
    changes: tuple[float, ...]  # where something changes without doubt, in percent of the clip's span


@dataclass(frozen=True)
class ClipCard:
    """One clip as the page shows it."""

    clip_id: str
    source: str
    duration_s: float
    size: str
    frames: tuple[Frame, ...]
    frames_left_out: int
    captions: tuple[WholeCaption, ...]
    flags: tuple[str, ...]
    facts: FactCheck | None


@dataclass(frozen=True)
class ClipGallery:
    """The clips that are shown; ``left_out`` more have fewer flags."""

    cards: tuple[ClipCard, ...]
    total: int

    @property
    def left_out(self) -> int:
        return self.total - len(self.cards)


def clip_gallery(tables: RunTables, truth: Path | None = None, *, most: int = MAX_CLIPS) -> ClipGallery:
    """Return the most suspicious clips first, by `suspicion`, then by facts missed or wrong.

    At most ``most`` clips are shown, and no more than fit into `MAX_PICTURE_BYTES`.

    Args:
        truth: folder of the clips' truth; None where there is none.
    """
    clips, differentials, captions = tables.clips(), tables.differentials(), tables.captions()
    checks = _fact_checks(clips, differentials, truth) if truth else {}
    doubts = suspicions(
        differentials.select(["clip_id", "end_s", "checks", "fallback", "frame_text_score"])
        .sort_by("end_s")
        .to_pylist(),
        captions.select(["clip_id", "role", "checks"]).to_pylist(),
        tables.judgements().to_pylist(),
    )
    order = sorted(
        clips.select(["clip_id", "source_uri"]).to_pylist(),
        key=lambda row: (
            -doubts[row["clip_id"]].score,
            -_mistakes(checks.get(row["clip_id"])),
            row["source_uri"],
        ),
    )
    chosen = [row["clip_id"] for row in order[:most]]
    rows = {row["clip_id"]: row for row in _only(clips, chosen).to_pylist()}
    said = _by_clip(_only(differentials, chosen).sort_by("index"))
    whole = _by_clip(_only(captions, chosen))
    links = _by_clip(_only(tables.read("links", ("dataset",)), chosen).sort_by("sentence_index"))
    cards: list[ClipCard] = []
    room = MAX_PICTURE_BYTES
    frames = _key_frames(tables, chosen)
    for clip_id in chosen:
        spoken = [_whole(row, links[clip_id]) for row in _in_order_of_role(whole[clip_id])]
        reasons = doubts[clip_id].reasons
        card = _card(rows[clip_id], frames[clip_id], said[clip_id], spoken, reasons, checks.get(clip_id))
        room -= sum(len(frame.picture.uri) for frame in card.frames if frame.picture)
        if room < 0:
            break
        cards.append(card)
    return ClipGallery(tuple(cards), clips.num_rows)


def _card(
    clip: Row,
    frames: Sequence[_StoredFrame],
    differentials: Sequence[Row],
    captions: Sequence[WholeCaption],
    flags: Sequence[str],
    facts: FactCheck | None,
) -> ClipCard:
    said = {row["index"]: row for row in differentials}
    start_s, span_s = clip["start_s"], max(clip["end_s"] - clip["start_s"], 1e-9)
    shown = []
    before_s = -math.inf
    for stored in frames:
        row = said.get(stored.index)
        frame = Frame(
            time_s=stored.time_s,
            place=100 * (stored.time_s - start_s) / span_s,
            similarity=stored.similarity,
            picture=stored.picture,
            kind=row["kind"] if row else "",
            fallback=bool(row and row["fallback"]),
            caption=shortened(row["caption"], _MAX_CAPTION) if row else "",
            missed=_between(facts.missed if facts else (), before_s, stored.time_s),
            wrong=_between(facts.wrong if facts else (), before_s, stored.time_s),
        )
        shown.append(frame)
        before_s = stored.time_s
    return ClipCard(
        clip_id=clip["clip_id"],
        source=shortened(clip["source_uri"], 200) + (f", from {start_s:.2f} s" if start_s else ""),
        duration_s=span_s,
        size=f"{clip['width']}×{clip['height']}, {clip['fps']:.4g} fps",  # noqa: RUF001
        frames=tuple(shown[:MAX_FRAMES]),
        frames_left_out=max(0, len(shown) - MAX_FRAMES),
        captions=tuple(captions),
        flags=tuple(flags),
        facts=facts,
    )


def _in_order_of_role(captions: Sequence[Row]) -> list[Row]:
    order = {role: number for number, role in enumerate(_WHOLE_ROLES)}
    return sorted((row for row in captions if row["role"] in order), key=lambda row: order[row["role"]])


def _whole(row: Row, links: Sequence[Row]) -> WholeCaption:
    """Return a caption of the whole clip; ``links`` are the clip's, in order of the sentences."""
    text = shortened(row["caption"])
    said = tuple(Sentence(link["sentence"], tuple(link["timestamps_s"])) for link in links)
    linked = row["role"] == "summary" and split_sentences(text) == [sentence.text for sentence in said]
    return WholeCaption(row["role"], text, tuple(row["checks"]), said if linked else ())


@dataclass(frozen=True)
class _StoredFrame:
    index: int
    time_s: float
    similarity: float | None
    picture: Thumbnail | None


def _key_frames(tables: RunTables, clip_ids: Sequence[str]) -> defaultdict[str, list[_StoredFrame]]:
    """Read the key frames of a few clips part by part: all of them may not fit into memory."""
    found: defaultdict[str, list[_StoredFrame]] = defaultdict(list)
    ref = tables.refs.get("keyframes")
    parts = load_manifest(tables.store, ref).parts if ref else ()
    for part in parts:
        if ref is None or part.table != "keyframes":
            continue
        table = _only(read_table(tables.store, ref, "keyframes", shard=part.shard), clip_ids)
        for row in table.sort_by("index").to_pylist():
            own = found[row["clip_id"]]
            picture = thumbnail(row["jpeg"]) if len(own) < MAX_FRAMES else None
            own.append(_StoredFrame(row["index"], row["timestamp_s"], row["similarity"], picture))
    return found


def _only(table: pa.Table, clip_ids: Collection[str]) -> pa.Table:
    return table.filter(pc.is_in(table["clip_id"], pa.array(list(clip_ids), pa.string())))


def _by_clip(table: pa.Table) -> defaultdict[str, list[Row]]:
    grouped: defaultdict[str, list[Row]] = defaultdict(list)
    for row in table.to_pylist():
        grouped[row["clip_id"]].append(row)
    return grouped


def _mistakes(check: FactCheck | None) -> int:
    return check.counts.wrong + check.counts.missed if check else 0


def _fact_checks(clips: pa.Table, differentials: pa.Table, truth: Path) -> dict[str, FactCheck]:
    """Hold the differential captions of every clip of known truth against it."""
    checks = {}
    said = _by_clip(differentials.sort_by("index"))
    for clip in clips.to_pylist():
        file, clip_id = truth_file(truth, clip), clip["clip_id"]
        if file is not None and said[clip_id]:
            checks[clip_id] = _fact_check(clip, said[clip_id], file)
    return checks


def _fact_check(clip: Row, differentials: Sequence[Row], truth: Path) -> FactCheck:
    said = predicted_facts("sliding", differentials, None) or []
    known = read_facts(truth)
    span_s = max(clip["end_s"] - clip["start_s"], 1e-9)
    changes = sorted({fact.time_s for fact in known.observable if fact.time_s > clip["start_s"]})
    return FactCheck(
        counts=count_facts(said, known.observable, known.ignored),
        missed=tuple(without(known.observable, told(known.observable, said))),
        wrong=tuple(without(said, told(said, [*known.observable, *known.ignored]))),
        changes=tuple(100 * (time_s - clip["start_s"]) / span_s for time_s in changes),
    )


def _between(facts: Sequence[Fact], after_s: float, until_s: float) -> tuple[str, ...]:
    """Say the facts of a span of time, no more of them than anyone reads."""
    words = [say(fact) for fact in facts if after_s + _ROUNDING_S < fact.time_s <= until_s + _ROUNDING_S]
    more = len(words) - _MAX_REMARKS
    return (*words[:_MAX_REMARKS], f"and {more} more") if more > 0 else tuple(words)
