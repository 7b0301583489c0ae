"""``share4video dataset swap-captions``: a mixture with captions in the places of other video samples."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from share4video.cli.options import DEFAULT_STORE, StoreOption
from share4video.dataset.formats.video_mix import LAYOUTS
from share4video.dataset.manifest import StageRef
from share4video.dataset.mixture import DESCRIBE_REQUEST
from share4video.errors import UserError
from share4video.export.caption_swap import Captions, Progress, SwapOptions, swap_captions
from share4video.store import Store

_REF = re.compile(r"dataset/[\w-]+@\w+", re.ASCII)


def swap(
    base: Annotated[
        Path, typer.Argument(metavar="BASE", help="A LLaVA list of images and videos, such as the mix665k.")
    ],
    captions: Annotated[
        str,
        typer.Argument(
            metavar="CAPTIONS", help="sharegpt4video_40k.jsonl, or a dataset as dataset/KEY@HASH."
        ),
    ],
    to: Annotated[
        Path, typer.Option("--to", "-o", metavar="DIR", help="The folder to write, made if missing.")
    ],
    count: Annotated[
        int, typer.Option("-n", min=1, metavar="N", help="How many video samples are replaced.")
    ] = 28_000,
    seed: Annotated[int, typer.Option("--seed", help="Which samples go, and which captions come.")] = 0,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="FOLDER", help="Take captions of videos in FOLDER; may be repeated."),
    ] = None,
    question: Annotated[
        str, typer.Option("--question", metavar="TEXT", help="What the captions answer.")
    ] = DESCRIBE_REQUEST,
    any_question: Annotated[
        bool,
        typer.Option(
            "--any-question", help="Replace any video sample, not those asking for a description first."
        ),
    ] = False,
    layout: Annotated[
        list[str] | None,
        typer.Option("--layout", metavar="NAME", help="video-llava or llama-vid; both if not given."),
    ] = None,
    rename: Annotated[
        list[str] | None,
        typer.Option(
            "--rename", metavar="OLD=NEW", help="How the base's files begin, and are to; may be repeated."
        ),
    ] = None,
    caption_folder: Annotated[
        str,
        typer.Option("--caption-folder", metavar="DIR", help="Put before the names of the captions' videos."),
    ] = "",
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Replace N video samples of a mixture by as many captions, for Video-LLaVA and LLaMA-VID."""
    options = SwapOptions(
        count=count,
        seed=seed,
        question=question,
        layouts=tuple(layout or LAYOUTS),
        renames=tuple(_rename(text) for text in rename or ()),
        caption_folder=caption_folder,
        only=tuple(only or ()),
        descriptions_first=not any_question,
    )
    if _REF.fullmatch(captions):
        source = Captions.of_dataset(Store.open(store), StageRef.parse(captions))
    else:
        source = Captions.of_file(Path(captions).expanduser())
    with _shown() as progress:
        index = swap_captions(base.expanduser(), source, to, options, progress=progress)
    for file in index["files"]:
        typer.echo(str(to / file["name"]))
    left_out = [f"{number} {reason.replace('_', ' ')}" for reason, number in index["rejects"].items()]
    typer.echo(", ".join([f"{index['rows_in']} in, {index['rows_out']} out", *left_out]))
    typer.echo(", ".join(f"{number} {name.replace('_', ' ')}" for name, number in index["counts"].items()))


def _rename(text: str) -> tuple[str, str]:
    old, sign, new = text.partition("=")
    if not sign:
        raise UserError("this renames nothing", where=f"--rename {text}", fix="write OLD=NEW")
    return old, new


@contextmanager
def _shown() -> Iterator[Progress | None]:
    """Show what is done on stderr, where that is a terminal."""
    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Bars(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task("reading", total=None)
        yield lambda what, done: bars.update(task, description=f"{what}: {done}")
