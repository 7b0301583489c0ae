"""``share4video dataset list|show|export|import``: what was published, elsewhere and back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from share4video.cli.options import DEFAULT_STORE, StoreOption, absolute, absolute_source, make_folder
from share4video.dataset.export_folder import finishing
from share4video.dataset.manifest import Manifest, StageRef, load_manifest, manifest_keys
from share4video.errors import UserError
from share4video.export.job import ExportOptions
from share4video.export.run import FORMATS, MIXTURE, TABLES, Use
from share4video.export.run import export as write_export
from share4video.media.sources import join_sources
from share4video.stages.released import ImportConfig, ImportInputs
from share4video.stages.released import run_stage as run_import
from share4video.store import Store
from share4video.wording import TileBudgets

app = typer.Typer(no_args_is_help=True, help="Look at published outputs and export them.")

RefArgument = Annotated[str, typer.Argument(metavar="REF", help="A published output, as STAGE/KEY@HASH.")]

DEFAULT_SHARD_MIB = 1024
_OPTION_USE: dict[str, Use] = {
    "--source": "source",
    "--keyframes": "keyframes",
    "--balanced": "balance",
    "--tiles": "balance",
    "--seed": "balance",
    "--shard-mib": "shards",
}


@app.command("list")
def list_(
    store: StoreOption = DEFAULT_STORE,
    stage: Annotated[str, typer.Option("--stage", help="The stage whose outputs are listed.")] = "dataset",
) -> None:
    """List a stage's published outputs."""
    opened = Store.open(store)
    if not re.fullmatch(r"[a-z0-9-]+", stage):
        raise UserError("there is no such stage", where=stage, fix="name one, such as caption or dataset")
    found = list(manifest_keys(opened, stage))
    if not found:
        raise UserError("nothing is published", where=f"{store}, stage {stage}", fix="run the stage first")
    for key in found:
        try:
            manifest = Manifest.model_validate_json(opened.get(key))
        except ValidationError:
            typer.echo(f"{key.removesuffix('/manifest.json')}  damaged: delete it and run the stage again")
            continue
        typer.echo(f"{manifest.ref}  {int(manifest.counts.get('rows_out', 0))} rows")


@app.command("show")
def show(ref: RefArgument, store: StoreOption = DEFAULT_STORE) -> None:
    """Say what a published output holds and what it was made with."""
    parsed = StageRef.parse(ref)
    manifest = load_manifest(Store.open(store), parsed)
    for table in sorted({part.table for part in manifest.parts}):
        typer.echo(f"table {table:<16} {manifest.rows(table)} rows")
    for file in manifest.files:
        typer.echo(f"file  {file.name:<32} {file.bytes} bytes")
    for name, value in sorted(manifest.counts.items()):
        typer.echo(f"count {name:<32} {value:g}")
    for name, setting in sorted(manifest.config.items()):
        typer.echo(f"with  {name} = {setting}")


@app.command("export")
def export(
    ref: RefArgument,
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="The folder to write, made if missing.")],
    format_: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="NAME",
            help="tables, or of a dataset sharegpt4video, llava-video, llava-grid, videochat, "
            "videochat-captions, captioner, open-sora, open-sora-plan, huggingface or webdataset; "
            "of a mixture llava.",
        ),
    ] = TABLES,
    source: Annotated[
        list[str] | None,
        typer.Option("--source", metavar="SOURCE", help="Where the clips were found: the videos are used."),
    ] = None,
    keyframes: Annotated[
        str | None,
        typer.Option("--keyframes", metavar="REF", help="The key frames that the captions were made from."),
    ] = None,
    balanced: Annotated[
        bool, typer.Option("--balanced", help="With captioner: as many samples of every role.")
    ] = False,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Which samples --balanced takes; 0 if not given.")
    ] = None,
    tiles: Annotated[
        str | None,
        typer.Option(
            "--tiles",
            metavar="FAST,SLIDING",
            help="With captioner: pictures of whole tiles, at most so many (the paper: 55,25).",
        ),
    ] = None,
    shard_mib: Annotated[
        int | None,
        typer.Option("--shard-mib", min=1, help="The size of a shard, about, in MiB; 1024 if not given."),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    commercial_only: Annotated[
        bool,
        typer.Option("--commercial-only", help="Leave out clips whose licence may not allow commercial use."),
    ] = False,
    commercial_licence: Annotated[
        list[str] | None,
        typer.Option(
            "--commercial-licence",
            metavar="NAME",
            help="A licence you have read and found to allow commercial use; may be repeated.",
        ),
    ] = None,
) -> None:
    """Write an output's tables as one Parquet file each, and its files; or a dataset in another form.

    Every byte is checked by its hash. Other forms than tables are written to a folder that is new or empty.
    """
    from share4video.dataset.shards import fetch_files, read_table, table_bytes
    from share4video.stages.commercial import commercial_filter, export_commercial

    parsed, opened = StageRef.parse(ref), Store.open(store)
    _refuse_unused(
        format_,
        {
            "--source": source,
            "--keyframes": keyframes,
            "--balanced": balanced or None,
            "--seed": seed,
            "--tiles": tiles,
            "--shard-mib": shard_mib,
        },
    )
    if commercial_licence and not commercial_only:
        where = "--commercial-licence"
        raise UserError("it says what --commercial-only lets pass", where=where, fix="add --commercial-only")
    if format_ != TABLES:
        options = ExportOptions(
            source=join_sources([absolute_source(place) for place in source]) if source else "",
            keyframes=StageRef.parse(keyframes) if keyframes else None,
            balanced=balanced,
            seed=seed or 0,
            tiles=None if tiles is None else _budgets(tiles),
            shard_bytes=(shard_mib or DEFAULT_SHARD_MIB) << 20,
        )
        rule, name = commercial_filter(commercial_licence or ()) if commercial_only else (None, "")
        index = write_export(opened, parsed, to, format_, options, leave_out=rule, filter_name=name)
        _print_export(index, to)
        return
    manifest = load_manifest(opened, parsed)
    make_folder(to)
    if commercial_only:
        paths, left_out = export_commercial(opened, parsed, to, commercial_licence or ())
        typer.echo("\n".join(map(str, paths)))
        typer.echo(f"{left_out} clips left out: their licence may not allow commercial use", err=True)
        return
    for table in sorted({part.table for part in manifest.parts}):
        target = to / f"{table}.parquet"
        with finishing(str(to)):
            target.write_bytes(table_bytes(read_table(opened, parsed, table)))
        typer.echo(str(target))
    with finishing(str(to)):
        paths = fetch_files(opened, parsed, to)
    for path in paths:
        typer.echo(str(path))


def _refuse_unused(format_: str, options: Mapping[str, object]) -> None:
    """Refuse options that the format has no use for. Raises UserError for the first one.

    Args:
        options: by name; None where one was not given.
    """
    if format_ not in (TABLES, *FORMATS, MIXTURE):
        return  # that there is no such format is said where it is looked up
    uses = FORMATS[format_].uses if format_ in FORMATS else frozenset[Use]()
    for name, value in options.items():
        if value is not None and _OPTION_USE[name] not in uses:
            raise UserError(f"format {format_} has no use for {name}", where=name, fix="leave it out")
    if options["--seed"] is not None and options["--balanced"] is None:
        raise UserError("--seed chooses what --balanced takes", where="--seed", fix="add --balanced")


def _budgets(text: str) -> TileBudgets:
    """Read ``FAST,SLIDING``. Raises UserError where it is not two numbers of tiles."""
    try:
        fast, sliding = (int(part) for part in text.split(","))
        return TileBudgets(fast=fast, sliding=sliding)
    except ValueError as error:  # pydantic's is one, too
        fix = "give two numbers from 1 to 64, as 55,25"
        raise UserError("not the tiles of two kinds of pictures", where=f"--tiles {text}", fix=fix) from error


def _print_export(index: dict[str, Any], folder: Path) -> None:
    for file in index["files"]:
        if not file["name"].startswith(("images/", "frames/", "videos/")):
            typer.echo(str(folder / file["name"]))
    left_out = [f"{count} {reason.replace('_', ' ')}" for reason, count in index["rejects"].items()]
    typer.echo(", ".join([f"{index['rows_in']} in, {index['rows_out']} out", *left_out]))
    if index["counts"]:
        typer.echo(", ".join(f"{count} {name}" for name, count in index["counts"].items()))


@app.command("import")
def import_(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="sharegpt4video_40k.jsonl, or the 4.8M captions' .json."),
    ],
    videos: Annotated[
        str | None,
        typer.Option(
            "--videos", metavar="DIR", help="The released archives: clips are probed. Without, text alone."
        ),
    ] = None,
    licence: Annotated[str, typer.Option("--licence", help="The videos' licence.")] = "unknown",
    title: Annotated[str, typer.Option("--title", help="Heads the data card.")] = "Released captions",
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Publish a released caption file as a dataset, to be used like one captioned here."""
    config = ImportConfig(licence=licence, title=title)
    inputs = ImportInputs(str(file.expanduser().absolute()), absolute(videos) if videos else None)
    result = run_import(inputs, config, Store.open(store))
    rejects = [f"{count} {reason.replace('_', ' ')}" for reason, count in sorted(result.rejects.items())]
    typer.echo(", ".join([f"{result.rows_in} in, {result.rows_out} out", *rejects]))
    typer.echo(str(result.ref))
