"""``share4video chat --video CLIP [QUESTION]``: ask a model about a clip, a picture, or nothing."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import Annotated

import typer

from share4video.chat_visuals import Visual
from share4video.cli.chat_runtime import DEFAULT_URL, Asked, Session, open_session
from share4video.cli.options import StoreOption
from share4video.decoding import Decoding
from share4video.errors import UserError


class SendChoice(StrEnum):
    AUTO = "auto"
    VIDEO = "video"
    FRAMES_GRID = "frames-grid"


class RuntimeChoice(StrEnum):
    HTTP = "http"
    REFERENCE = "reference"


class VisualPathChoice(StrEnum):
    ANYRES = "anyres"
    THUMBNAIL = "thumbnail"


def chat(
    question: Annotated[str | None, typer.Argument(help="The question; without one, a conversation.")] = None,
    video: Annotated[
        str, typer.Option("--video", "-v", help="The clip: a file, or a URL the gateway may read.")
    ] = "",
    image: Annotated[str, typer.Option(help="A picture instead of a clip.", metavar="FILE")] = "",
    query: Annotated[str | None, typer.Option("--query", "-q", help="The question, as an option.")] = None,
    url: Annotated[
        str, typer.Option(help=f"Where the model is served (default {DEFAULT_URL}).", metavar="URL")
    ] = "",
    model: Annotated[
        str,
        typer.Option(
            help="The model: models:/NAME@champion, a folder or builtin:NAME, loaded for the call; or the "
            "address of an OpenAI endpoint.",
            metavar="MODEL",
        ),
    ] = "",
    name: Annotated[str, typer.Option(help="What the endpoint calls its model, if it has several.")] = "",
    store: StoreOption = "",
    max_tokens: Annotated[int, typer.Option(min=1, max=4096, help="The longest answer.")] = 512,
    temperature: Annotated[
        float, typer.Option(min=0.0, max=2.0, help="0 takes the likeliest words; more draws them.")
    ] = 0.0,
    top_p: Annotated[float, typer.Option(min=0.0, max=1.0, help="Draw among this share only.")] = 1.0,
    seed: Annotated[int | None, typer.Option(min=0, max=2**31 - 1, help="Makes draws repeatable.")] = None,
    stop: Annotated[
        list[str] | None,
        typer.Option(help="Ends the answer; may be repeated.", metavar="TEXT"),
    ] = None,
    frames: Annotated[
        int | None, typer.Option(min=1, max=64, help="Frames of the clip (default: the model's own number).")
    ] = None,
    send: Annotated[
        SendChoice,
        typer.Option(help="What an endpoint is sent: the clip, or a grid of its frames if it takes none."),
    ] = SendChoice.AUTO,
    runtime: Annotated[
        RuntimeChoice | None,
        typer.Option(
            help="How --model is run: behind a gateway, or in this process (reference); chosen by what is "
            "asked if it is not said."
        ),
    ] = None,
    visual_path: Annotated[
        VisualPathChoice | None,
        typer.Option(
            help="anyres: overview and tiles, as in training; thumbnail: the overview alone, as the released "
            "demo (reference runtime)."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda:N (reference runtime).", metavar="DEVICE")] = "",
    dtype: Annotated[
        str, typer.Option(help="float32, bfloat16 or float16 (reference runtime).", metavar="DTYPE")
    ] = "",
) -> None:
    """Ask a chat model about a clip: one question, or a conversation."""
    if question is not None and query is not None:
        raise UserError("the question is given twice", where="--query", fix="give it once")
    asked = Asked(
        visual=_visual(video, image, send, frames),
        url=url,
        model=model,
        store=store,
        name=name,
        runtime=runtime or "",
        visual_path=visual_path or "",
        device=device,
        dtype=dtype,
        decoding=Decoding(max_tokens, temperature, top_p, seed, tuple(stop or ())),
    )
    with open_session(asked) as session:
        first = question if question is not None else query
        if first is not None:
            _answer(session, first, asked.decoding)
        else:
            _converse(session, asked.decoding)


def _visual(video: str, image: str, send: SendChoice, frames: int | None) -> Visual | None:
    if video and image:
        raise UserError("a conversation is about one clip or one picture", fix="give --video or --image")
    if video:
        return Visual(video, send=send.value, frames=frames)
    if frames is not None or send is not SendChoice.AUTO:
        option = "--send" if frames is None else "--frames"
        raise UserError(f"{option} is about a clip, and none is given", fix="give --video")
    return Visual(image, kind="image") if image else None


def _answer(session: Session, question: str, decoding: Decoding) -> None:
    for text in session.ask(question, decoding):
        typer.echo(text, nl=False)
    typer.echo()


def _converse(session: Session, decoding: Decoding) -> None:
    """Answer one question a line until the input ends or a line is empty.

    At a terminal, Ctrl-C ends the answer under way, which is then not remembered, or else the conversation;
    and a mistake is said without ending it.
    """
    if not sys.stdin.isatty():
        for line in sys.stdin:
            if not line.strip():
                return
            _answer(session, line.strip(), decoding)
        return
    typer.echo("Ask away; an empty line ends the conversation.", err=True)
    while True:
        try:
            question = input("> ").strip()
        except (EOFError, KeyboardInterrupt):
            typer.echo()
            return
        if not question:
            return
        try:
            _answer(session, question, decoding)
        except KeyboardInterrupt:
            typer.echo("\n(stopped; this question and its answer are not remembered)", err=True)
        except UserError as error:
            typer.echo(f"share4video: {error.sentence()}", err=True)
