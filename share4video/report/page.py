"""The page: everything gathered, rendered and bounded; nothing in it is fetched from anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc

from share4video.dataset.manifest import StageRef, load_manifest
from share4video.report.clip_cards import clip_gallery
from share4video.report.funnel import KINDS, fact_funnel
from share4video.report.run_tables import RunTables, shortened
from share4video.report.similarity import similarity
from share4video.report.stage_rows import StageRow, reject_groups, stage_rows
from share4video.report.tuning import Comparison, Tuning, tuning
from share4video.report.writing import page_environment, write_page
from share4video.store import Store
from share4video.synthetic.caption_scores import score_dataset
from share4video.synthetic.truth import check_truth_folder

SUSPICIOUS_CLIPS = 10
_SHORT_REVISION = 12


@dataclass(frozen=True)
class Tile:
    """One number of the heading."""

    label: str
    value: str
    note: str = ""
    tone: str = ""  # good or bad


def write_report(
    store: Store,
    refs: Mapping[str, StageRef],
    path: Path | str,
    *,
    truth: Path | str | None = None,
    title: str = "share4video",
) -> Path:
    """Write one self-contained HTML file about a run. Equal inputs give equal bytes.

    A section whose stage is not in ``refs`` is left out, so a run of curation alone has a report too.

    Args:
        refs: the outputs the run published, by the stages' names in it (``evaluate-base`` is one).
        path: the file; replaced whole where it exists.
        truth: folder of the clips' truth as ``<stem of the source>.json``. With it the page has the caption
            scores and the fact funnel.

    Returns:
        ``path``.

    Raises:
        UserError: an output is missing or damaged, there is no such folder of truth or a file in it is
            something else, or the page cannot be written.
    """
    truth = Path(truth) if truth else None
    return write_page(render_report(store, refs, truth=truth, title=title), Path(path))


def write_suspicious(store: Store, refs: Mapping[str, StageRef], path: Path | str) -> Path:
    """Write one self-contained HTML file with the clips whose captions give the most cause for doubt.

    Args:
        refs: of a run, as `write_report` takes them: where clips, key frames and captions were published.

    Returns:
        ``path``.

    Raises:
        UserError: an output is missing or damaged, or the page cannot be written.
    """
    tables = RunTables(store, refs)
    gallery = clip_gallery(tables, most=SUSPICIOUS_CLIPS)
    page = (
        page_environment()
        .get_template("suspicious.html.j2")
        .render(
            gallery=gallery,
            doubtful=any(card.flags for card in gallery.cards),
            engines=_engines(tables, None),
        )
    )
    return write_page(page, Path(path))


def render_report(
    store: Store,
    refs: Mapping[str, StageRef],
    *,
    truth: Path | None = None,
    title: str = "share4video",
) -> str:
    """Return the page that `write_report` writes."""
    if truth is not None:
        check_truth_folder(truth)
    tables = RunTables(store, refs)
    stages = stage_rows(tables)
    tuned = tuning(tables)
    scores = score_dataset(store, refs["dataset"], truth) if truth and "dataset" in refs else {}
    return (
        page_environment()
        .get_template("report.html.j2")
        .render(
            title=title,
            tiles=_tiles(tables, stages, tuned),
            engines=_engines(tables, tuned),
            stages=stages,
            funnel=fact_funnel(tables, truth) if truth else None,
            fact_kinds=KINDS,
            scores=scores,
            short={role: score.short for role, score in scores.items() if score.short and score.short.facts},
            tuning=tuned,
            similarity=similarity(tables),
            rejects=reject_groups(tables),
            gallery=clip_gallery(tables, truth),
        )
    )


def _tiles(tables: RunTables, stages: list[StageRow], tuned: Tuning | None) -> list[Tile]:
    by_name = {stage.name: stage for stage in stages}
    tiles = []
    if first := by_name.get("probe"):
        tiles.append(Tile(f"{first.unit} in", str(first.rows_in), f"{first.rows_in - first.rows_out} unfit"))
    clips = tables.clips()
    if clips.num_rows:
        minutes = sum(clips["duration_s"].to_pylist()) / 60
        tiles.append(Tile("clips kept", str(clips.num_rows), f"{minutes:.1f} minutes"))
    if frames := _metric(tables, "keyframes", "key_frames"):
        each = f"{frames / max(1, clips.num_rows):.1f} per clip" if clips.num_rows else ""
        tiles.append(Tile("key frames", f"{frames:.0f}", each))
    if captions := _metric(tables, "dataset", "captions"):
        tiles.append(Tile("captions", f"{captions:.0f}"))
    if tuned is not None:
        shown = _headline(tuned)
        before = f", {100 * shown.before.interval.estimate:.0f} % before tuning" if shown.before else ""
        after = f"{100 * shown.after.interval.estimate:.0f} %"
        label = shown.label if shown.level == 0 else f"{shown.label} questions"
        tiles.append(Tile(label, after, f"right{before}"))
    if tuned is not None and tuned.decision is not None:
        passed = tuned.decision.passed
        tiles.append(Tile("gate", "passed" if passed else "refused", tone="good" if passed else "bad"))
    return tiles


def _headline(tuned: Tuning) -> Comparison:
    """Return the comparison that says most: questions about time where they are told apart, else all."""
    return next((c for c in tuned.comparisons if c.label == "temporal"), tuned.comparisons[0])


def _metric(tables: RunTables, stage: str, name: str) -> float:
    ref = tables.refs.get(stage)
    return load_manifest(tables.store, ref).counts.get(f"metric:{name}", 0.0) if ref else 0.0


def _engines(tables: RunTables, tuned: Tuning | None) -> list[tuple[str, str]]:
    """Return who wrote and who was tuned, with the revisions cut short."""
    found: list[tuple[str, str]] = []
    captions = tables.captions()
    written = {
        "captioner": tables.differentials(),
        "summarizer": captions.filter(pc.equal(captions["role"], "summary")),
    }
    for role, table in written.items():
        found += [(role, name) for name in sorted(table["engine"].unique().to_pylist())]
    if tuned is not None:
        found += [("base model", tuned.base), ("tuned model", tuned.candidate)]
    if dataset := tables.refs.get("dataset"):
        found.append(("dataset", str(dataset)))
    return [(role, _short(name)) for role, name in found if name]


def _short(name: str) -> str:
    what, at, revision = name.rpartition("@")
    return shortened(f"{what}{at}{revision[:_SHORT_REVISION]}", 120)
