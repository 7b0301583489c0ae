"""``share4video``: the front door. One verb per file beside this one."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from share4video.cli import dataset, dataset_swap, dataset_versions, pipeline, videochat
from share4video.cli.caption import caption
from share4video.cli.caption_audit import caption_audit
from share4video.cli.chat import chat
from share4video.cli.convert import convert
from share4video.cli.curate import curate
from share4video.cli.demo import demo
from share4video.cli.demo_ui import demo_ui
from share4video.cli.evaluate import evaluate
from share4video.cli.plan import plan
from share4video.cli.preview import preview
from share4video.cli.promote import promote
from share4video.cli.recaption import recaption
from share4video.cli.report import report
from share4video.cli.serve import serve
from share4video.cli.train import train
from share4video.errors import USER_ERROR_EXIT_CODE, UserError

INTERRUPTED_EXIT_CODE = 130


class FrontDoor(TyperGroup):
    """Says a user's mistake in one sentence on stderr and exits 2; anything else keeps its traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            typer.echo(f"share4video: {error.sentence()}", err=True)
            raise typer.Exit(USER_ERROR_EXIT_CODE) from None
        except KeyboardInterrupt:
            typer.echo("share4video: interrupted.", err=True)
            raise typer.Exit(INTERRUPTED_EXIT_CODE) from None


app = typer.Typer(
    cls=FrontDoor,
    help="Raw video to a densely captioned dataset, a video captioner and a served video chat model.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def installed_version() -> str:
    """Return the installed package's version, or say that it runs from a source tree."""
    try:
        return version("share4video")
    except PackageNotFoundError:
        return "0 (from a source tree)"


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"share4video {installed_version()}")
        raise typer.Exit


@app.callback()
def _root(
    _: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    pass


VERBS = (
    plan,
    curate,
    preview,
    caption,
    caption_audit,
    recaption,
    train,
    evaluate,
    promote,
    convert,
    serve,
    chat,
    report,
    demo,
    demo_ui,
)
for verb in VERBS:
    app.command()(verb)
for dataset_verb in (dataset_versions.takedown, dataset_versions.diff):
    dataset.app.command()(dataset_verb)
dataset.app.command("swap-captions")(dataset_swap.swap)
app.add_typer(dataset.app, name="dataset")
app.add_typer(pipeline.app, name="pipeline")
app.add_typer(videochat.app, name="videochat")
