"""``share4video chat --video CLIP [QUESTION]``: ask a served model about a clip."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import Annotated

import typer

from share4video.chat import Conversation, video_address
from share4video.cli.options import StoreOption
from share4video.cli.serve import registry_store
from share4video.errors import UserError

DEFAULT_URL = "http://127.0.0.1:8080"


def chat(
    video: Annotated[
        str, typer.Option("--video", "-v", help="The clip: a file, or a URL the gateway may read.")
    ],
    question: Annotated[str | None, typer.Argument(help="The question; without one, a conversation.")] = None,
    url: Annotated[
        str, typer.Option(help=f"Where the model is served (default {DEFAULT_URL}).", metavar="URL")
    ] = "",
    model: Annotated[
        str,
        typer.Option(
            help="Serve this model for the call: models:/NAME@champion, a folder or builtin:NAME.",
            metavar="MODEL",
        ),
    ] = "",
    store: StoreOption = "",
    max_tokens: Annotated[int, typer.Option(min=1, max=4096, help="The longest answer.")] = 512,
) -> None:
    """Ask a chat model about a clip: one question, or a conversation."""
    if url and model:
        raise UserError("--url and --model name two models", fix="give one of them")
    address = video_address(video)
    with ExitStack() as served:
        if model:
            from serving.gateway.process import serve_model

            typer.echo(f"loading {model}", err=True)
            url = served.enter_context(serve_model(model, store=registry_store(model, store))).url
        conversation = Conversation(url or DEFAULT_URL, address)
        if question is not None:
            _answer(conversation, question, max_tokens)
        else:
            _converse(conversation, max_tokens)


def _answer(conversation: Conversation, question: str, max_tokens: int) -> None:
    for text in conversation.ask(question, max_tokens=max_tokens):
        typer.echo(text, nl=False)
    typer.echo()


def _converse(conversation: Conversation, max_tokens: int) -> None:
    """Answer one question a line until the input ends or a line is empty."""
    if sys.stdin.isatty():
        typer.echo("Ask about the clip; an empty line ends the conversation.", err=True)
    while True:
        try:
            question = input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return
        if not question:
            return
        _answer(conversation, question, max_tokens)
