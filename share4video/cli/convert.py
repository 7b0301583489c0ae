"""``share4video convert``: an original LLaVA-NeXT checkpoint as a Hugging Face folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ByteSize, TypeAdapter, ValidationError
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from share4video.errors import UserError

if TYPE_CHECKING:
    from share4video.models.llava_next.convert import Report


def convert(
    source: Annotated[
        str, typer.Argument(metavar="SRC", help="The original checkpoint: a folder or s3://BUCKET/PREFIX.")
    ],
    destination: Annotated[
        str, typer.Argument(metavar="DST", help="Where it goes: a new folder or s3://BUCKET/PREFIX.")
    ],
    base: Annotated[
        str | None,
        typer.Option("--base", metavar="BASE", help="Of a LoRA folder: the checkpoint it was trained from."),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option("--dtype", help="float32, bfloat16 or float16; without it, as the checkpoint is."),
    ] = None,
    max_shard_size: Annotated[
        str, typer.Option("--max-shard-size", metavar="SIZE", help="Of a file of weights, such as 5GB.")
    ] = "5GB",
) -> None:
    """Convert an original LLaVA-NeXT checkpoint, such as ShareGPT4Video-8B, for vLLM and transformers."""
    try:
        size = TypeAdapter(ByteSize).validate_python(max_shard_size)
    except ValidationError:
        raise UserError("this is no size", where="--max-shard-size", fix="give one such as 5GB") from None
    from share4video.models.llava_next.convert import convert as run

    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=console,
    ) as bar:
        task = bar.add_task("reading headers", total=None)
        report = run(
            source,
            destination,
            base=base,
            dtype=dtype,
            max_shard_bytes=int(size),
            progress=lambda label, done, total: bar.update(
                task, description=label, completed=done, total=total
            ),
        )
    _print_report(report)


def _print_report(report: Report) -> None:
    if report.finished_before:
        typer.echo(f"{report.destination} holds this conversion already; nothing was written.")
    table = Table(show_header=False, title=report.destination, title_justify="left")
    table.add_column(style="cyan")
    table.add_column(overflow="fold")
    for name, value in (
        ("tensors", str(report.tensors)),
        ("bytes", f"{report.bytes:,} ({report.dtype})"),
        ("files of weights", f"{report.shards}, the largest of {report.largest_shard_bytes:,} bytes"),
        ("left out", ", ".join(report.dropped) or "nothing"),
        ("source", report.source_revision),
        ("peak memory", f"{report.peak_memory_bytes / 1e9:.2f} GB, libraries included"),
    ):
        table.add_row(name, value)
    Console().print(table)
    for note in report.notes:
        typer.echo(note)
