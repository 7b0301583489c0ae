"""``share4video plan``: what captioning a collection will take, before it is begun, and what it took."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from share4video.captioning.conversations import CaptionPlan
from share4video.captioning.derived import DerivedPlan
from share4video.captioning.role_inputs import KeyFrame
from share4video.cli.options import (
    DEFAULT_STORE,
    ConfigOption,
    SetOption,
    StoreOption,
    read_settings,
    source_parameter,
)
from share4video.cli.runs import check_engines, engines_running, run_in_process
from share4video.config import RunConfig
from share4video.curation.keyframes import cut_bound
from share4video.dataset.manifest import StageRef, load_manifest
from share4video.dataset.shards import read_table
from share4video.errors import UserError
from share4video.planning.actual import compare, read_actual
from share4video.planning.estimate import PilotClip, Plan, Prices, estimate
from share4video.planning.pilot import Frames, measure
from share4video.planning.rates import Measured, read_rates
from share4video.stages.chain import CAPTION_STAGES, CURATE_STAGES, Curated
from share4video.store import Store

_FEWEST_CLIPS = 10  # a pilot with fewer says little of how much clips differ


def plan(
    source: Annotated[
        list[str] | None, typer.Argument(metavar="[SOURCE]...", help="The videos, as for `curate`.")
    ] = None,
    pilot: Annotated[int, typer.Option("--pilot", min=1, help="About how many rows are looked at.")] = 20,
    rates: Annotated[
        Path | None,
        typer.Option("--rates", metavar="FILE", help="Rates measured before; the engine is not asked."),
    ] = None,
    save_rates: Annotated[
        Path | None, typer.Option("--save-rates", metavar="FILE", help="Keep the rates for other plans.")
    ] = None,
    gpus: Annotated[float, typer.Option("--gpus", min=0, help="GPUs the endpoint occupies.")] = 0,
    gpu_hour: Annotated[
        float | None, typer.Option("--gpu-hour", min=0, help="Price of one GPU for one hour.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="The plan as JSON.")] = None,
    against: Annotated[
        Path | None, typer.Option("--against", metavar="PLAN", help="A plan to hold --actual against.")
    ] = None,
    actual: Annotated[
        str | None, typer.Option("--actual", metavar="REF", help="What was captioned, as caption/KEY@HASH.")
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    config: ConfigOption = None,
    settings: SetOption = None,
) -> None:
    """Curate and caption a few rows of every SOURCE and say what all of them will take; or compare after."""
    if (against is None) != (actual is None):
        raise UserError("a comparison needs both", where="--against and --actual", fix="name plan and output")
    if against is not None and actual is not None:
        captioned = StageRef.parse(actual)
        if captioned.stage != "caption":
            raise UserError("this is no output of stage caption", where=actual, fix="name caption/KEY@HASH")
        _print_comparison(_read_plan(against), Store.open(store), captioned)
        return
    if not source:
        raise UserError("there is nothing to plan", fix="name the videos, or --against and --actual")
    wanted = read_settings(config, settings)
    check_engines(CAPTION_STAGES, wanted, [wanted.engines.captioner, wanted.engines.summarizer])
    prices = Prices(gpu_hour=gpu_hour, gpus=gpus)
    known = read_rates(rates) if rates is not None else None
    for file in (save_rates, out):
        if file is not None:
            _check_writable(file)
    rows, looked_at, curated = _curate_pilot(source_parameter(source, wanted), pilot, wanted, store)
    opened = Store.open(store)
    frames = _key_frames(opened, curated)
    cuts = cut_bound(wanted.caption, load_manifest(opened, curated.keyframes).config.get("encoder"))
    measured = known or _measured(frames, wanted, cuts)
    captioner, summarizer = wanted.engines.captioner, wanted.engines.summarizer
    captions = CaptionPlan.of(wanted.caption, captioner, summarizer, cut_threshold=cuts)
    derived = DerivedPlan.of(wanted.caption, summarizer or captioner)
    clips = _pilot_clips(opened, curated, frames, captions)
    made = estimate(rows, looked_at, clips, captions, derived, measured, prices)
    _print_plan(made)
    if len(frames) < _FEWEST_CLIPS:
        told = (
            f"The pilot had {len(frames)} clips: with fewer than {_FEWEST_CLIPS} the interval means little."
        )
        typer.echo(told)
    for file, text in (
        (save_rates, measured.model_dump_json(indent=1)),
        (out, made.model_dump_json(indent=1)),
    ):
        if file is not None:
            _write(file, text)


def _curate_pilot(source: str, pilot: int, wanted: RunConfig, store: str) -> tuple[int, int, Curated]:
    """Curate a part of about ``pilot`` rows; return how many rows there are, and how many were looked at."""
    from share4video.media.sources import list_sources
    from share4video.media.sources.listing import part_of

    if wanted.probe.shard is not None:
        raise UserError("a plan takes a part of its own", where="probe.shard", fix="leave it out")
    rows = list_sources(source, limit=wanted.probe.limit)
    parts = max(1, math.ceil(len(rows) / pilot))
    sizes = Counter(part_of(row.uri, parts) for row in rows)
    part = min(sizes, key=lambda number: (abs(sizes[number] - pilot), number))
    probe = wanted.probe.model_copy(update={"shard": f"{part}/{parts}"})
    chosen = wanted.model_copy(update={"probe": probe})
    curated = run_in_process(
        "plan",
        CURATE_STAGES,
        chosen,
        store,
        lambda chain: chain.curate(source),
        engines=[wanted.engines.captioner],
    )
    return len(rows), sizes[part], curated


def _key_frames(store: Store, curated: Curated) -> dict[str, Frames]:
    """Read the pilot's key frames."""
    frames: defaultdict[str, list[KeyFrame]] = defaultdict(list)
    table = read_table(store, curated.keyframes, "keyframes").sort_by(
        [("clip_id", "ascending"), ("index", "ascending")]
    )
    for row in table.to_pylist():
        of_clip = frames[row["clip_id"]]
        of_clip.append(KeyFrame(len(of_clip) + 1, row["timestamp_s"], row["jpeg"], row["similarity"]))
    return {clip_id: tuple(of_clip) for clip_id, of_clip in frames.items()}


def _measured(frames: Mapping[str, Frames], wanted: RunConfig, cut_threshold: float | None) -> Measured:
    with engines_running([wanted.engines.captioner, wanted.engines.summarizer]):
        return measure(frames, wanted, cut_threshold=cut_threshold)


def _pilot_clips(
    store: Store, curated: Curated, frames: Mapping[str, Frames], captions: CaptionPlan
) -> list[PilotClip]:
    """Return every clip the pilot had before de-duplication."""
    kept = read_table(store, curated.clips, "clips").select(["clip_id", "duration_s"]).to_pylist()
    briefed = load_manifest(store, curated.brief_captions).rows("brief_captions")
    clips = []
    for row in kept:
        own = frames.get(row["clip_id"], ())
        times_s = tuple(frame.timestamp_s for frame in own)
        clips.append(PilotClip(row["duration_s"], times_s, tuple(map(captions.is_cut, own))))
    return clips + [PilotClip(0.0)] * (briefed - len(kept))


def _read_plan(path: Path) -> Plan:
    try:
        return Plan.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(
            f"cannot read the plan: {error.strerror}", where=str(path), fix="check the path"
        ) from None
    except ValidationError:
        raise UserError("this is no plan", where=str(path), fix="give a file that --out wrote") from None


def _check_writable(file: Path) -> None:
    """Find out, before the pilot is paid for, whether a file can be written; leave things as they are."""
    with _writing(file):
        existed = file.exists()
        file.open("ab").close()
        if not existed:
            file.unlink()


def _write(file: Path, text: str) -> None:
    with _writing(file):
        file.write_text(text + "\n", encoding="utf-8")


@contextmanager
def _writing(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write the file: {error.strerror}", where=str(file), fix="name another one"
        ) from None


def _print_plan(made: Plan) -> None:
    table = Table(title=f"{made.rows} rows, planned from {made.pilot_rows} of them", title_justify="left")
    for heading in ("", "estimate", "from", "to"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, value in (
        ("clips", made.clips),
        ("hours of video", made.hours_of_video),
        ("key frames", made.key_frames),
        ("calls", made.total_calls),
        ("prompt tokens", made.prompt_tokens),
        ("tokens", made.tokens),
        ("engine hours", made.hours),
    ):
        table.add_row(name, *(_number(n) for n in (value.estimate, value.low, value.high)))
    for name, sum_ in (("GPU hours", made.gpu_hours), ("cost", made.cost)):
        if sum_ is not None:
            table.add_row(name, _number(sum_), "", "")
    console = Console()
    console.print(table)
    calls = ", ".join(f"{_number(n)} {kind}" for kind, n in made.calls.items())
    console.print(f"calls: {calls}; {_number(made.again)} made again")
    for engine in (made.measured.captioner, made.measured.summarizer):
        if engine is not None:
            console.print(f"measured: {engine.engine}, {engine.in_flight} calls at a time")


def _print_comparison(made: Plan, store: Store, ref: StageRef) -> None:
    table = Table(title=f"planned against {ref}", title_justify="left")
    for heading in ("", "planned", "from", "to", "actual", "actual / planned"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, planned, low, high, came in compare(made, read_actual(store, ref)):
        share = "" if came is None or not planned else f"{came / planned:.2f}"
        shown = "not kept" if came is None else _number(came)
        table.add_row(name, _number(planned), _number(low), _number(high), shown, share)
    Console().print(table)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
