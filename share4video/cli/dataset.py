"""``share4video dataset list|show|export``: look at what was published and take it elsewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from share4video.cli.options import DEFAULT_STORE, StoreOption, make_folder
from share4video.dataset.manifest import Manifest, StageRef, load_manifest
from share4video.errors import UserError
from share4video.store import Store

app = typer.Typer(no_args_is_help=True, help="Look at published outputs and export them.")

RefArgument = Annotated[str, typer.Argument(metavar="REF", help="A published output, as STAGE/KEY@HASH.")]


@app.command("list")
def list_(
    store: StoreOption = DEFAULT_STORE,
    stage: Annotated[str, typer.Option("--stage", help="The stage whose outputs are listed.")] = "dataset",
) -> None:
    """List a stage's published outputs."""
    opened = Store.open(store)
    if not re.fullmatch(r"[a-z0-9-]+", stage):
        raise UserError("there is no such stage", where=stage, fix="name one, such as caption or dataset")
    found = [key for key in opened.list(stage) if key.endswith("/manifest.json") and key.count("/") == 2]
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
    """Write an output's tables as one Parquet file each, and its files, every byte checked by its hash."""
    from share4video.dataset.shards import fetch_files, read_table, table_bytes
    from share4video.stages.commercial import export_commercial

    parsed, opened = StageRef.parse(ref), Store.open(store)
    manifest = load_manifest(opened, parsed)
    make_folder(to)
    if commercial_only:
        paths, left_out = export_commercial(opened, parsed, to, commercial_licence or ())
        typer.echo("\n".join(map(str, paths)))
        typer.echo(f"{left_out} clips left out: their licence may not allow commercial use", err=True)
        return
    for table in sorted({part.table for part in manifest.parts}):
        target = to / f"{table}.parquet"
        target.write_bytes(table_bytes(read_table(opened, parsed, table)))
        typer.echo(str(target))
    for path in fetch_files(opened, parsed, to):
        typer.echo(str(path))
