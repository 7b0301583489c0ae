"""``share4video demo-ui``: a web page to chat about clips and to caption them."""

from __future__ import annotations

import signal
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from share4video.cli.chat_runtime import DEFAULT_URL
from share4video.cli.options import StoreOption
from share4video.cli.serve import registry_store
from share4video.errors import UserError

if TYPE_CHECKING:
    from share4video.captioning.client import Endpoint
    from share4video.demo_ui.served import ServedModel

_NANO_CAPTIONER, _NANO_SUMMARIZER = "builtin:nano-captioner", "builtin:nano-summarizer"
_RETRIES = 2  # somebody waits: fewer than a pipeline's


def demo_ui(
    url: Annotated[
        str,
        typer.Option(help=f"Where both models are served (default {DEFAULT_URL}).", metavar="URL"),
    ] = "",
    chat_url: Annotated[
        str, typer.Option(help="Where the chat model is served, if elsewhere.", metavar="URL")
    ] = "",
    caption_url: Annotated[
        str, typer.Option(help="Where the captioner is served, if elsewhere.", metavar="URL")
    ] = "",
    chat_model: Annotated[
        str,
        typer.Option(help="What the chat model is called there; else the server is asked.", metavar="NAME"),
    ] = "",
    caption_model: Annotated[
        str,
        typer.Option(help="What the captioner is called there; else the server is asked.", metavar="NAME"),
    ] = "",
    model: Annotated[
        str,
        typer.Option(
            help="Serve this chat model meanwhile: models:/NAME@champion, a folder or builtin:NAME.",
            metavar="MODEL",
        ),
    ] = "",
    captioner: Annotated[
        str, typer.Option(help="Serve this captioner meanwhile, named as --model is.", metavar="MODEL")
    ] = "",
    summarizer: Annotated[
        str,
        typer.Option(
            help="What sums captions up, where it is not the captioner: named as --model is, or the URL of "
            "one that is served.",
            metavar="MODEL",
        ),
    ] = "",
    summarizer_model: Annotated[
        str, typer.Option(help="What a --summarizer at a URL is called there.", metavar="NAME")
    ] = "",
    dialect: Annotated[
        str, typer.Option(help="The captioner's prompts: sharecaptioner or teacher.", metavar="NAME")
    ] = "sharecaptioner",
    examples: Annotated[
        Path | None, typer.Option(help="A folder of videos to offer as examples.", metavar="FOLDER")
    ] = None,
    host: Annotated[
        str, typer.Option(help="The address to listen on; 0.0.0.0 is all of them.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port to listen on.")] = 7860,
    timeout: Annotated[
        float, typer.Option(min=1, max=3600, help="Seconds that a model may say nothing.")
    ] = 120.0,
    max_upload: Annotated[int, typer.Option(min=1, max=4096, help="MiB that an upload may have.")] = 256,
    max_duration: Annotated[
        float, typer.Option(min=1, max=7200, help="Seconds that a clip may have.")
    ] = 600.0,
    store: StoreOption = "",
) -> None:
    """Open a web page to chat about clips and to caption them, with any OpenAI-compatible server.

    A key for the servers is read from SHARE4VIDEO_API_KEY.
    """
    from serving.gateway.listening import check_port_free
    from share4video.demo_ui import app
    from share4video.demo_ui.page import Page
    from share4video.demo_ui.pictures import Uploads
    from share4video.demo_ui.settings import Bounds

    if dialect not in ("sharecaptioner", "teacher"):
        raise UserError("there is no such dialect", where=dialect, fix="give sharecaptioner or teacher")
    for local, elsewhere, name in ((model, chat_url, "chat"), (captioner, caption_url, "caption")):
        if local and elsewhere:
            flag = "--model" if name == "chat" else "--captioner"
            raise UserError(f"{flag} and --{name}-url name two models", fix="give one of them")
    check_port_free(host, port)  # before a model is loaded for nothing
    summarizer = summarizer or (_NANO_SUMMARIZER if captioner == _NANO_CAPTIONER else "")
    # A model that is served here needs no server elsewhere, and the other tab is not sent to one unasked.
    fallback = url or ("" if model or captioner else DEFAULT_URL)
    places = {
        "chat": (model, chat_url or fallback, chat_model),
        "captioner": (captioner, caption_url or fallback, caption_model),
        "summarizer": _summarizer(summarizer, summarizer_model),
    }
    bounds = Bounds(max_bytes=max_upload << 20, max_duration_s=max_duration)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # a stopped service ends like Ctrl-C
    try:
        with ExitStack() as held:
            folders = held.enter_context(app.work_folders())
            offered = app.make_examples(folders, examples, bounds)
            served = _served(held, places, dialect, timeout, store)
            page = Page(
                chat=served["chat"],
                captioner=served["captioner"],
                summarizer=served["summarizer"],
                uploads=Uploads(bounds),
                folder=folders.uploads,
                dialect="teacher" if dialect == "teacher" else "sharecaptioner",
                patience_s=timeout,
            )
            address = held.enter_context(
                app.serving_app(app.build(page, offered), host=host, port=port, page=page, examples=offered)
            )
            typer.echo(f"open {address} (Ctrl-C ends it)")
            threading.Event().wait()
    except KeyboardInterrupt:
        typer.echo("stopped", err=True)
    finally:
        signal.signal(signal.SIGTERM, before)


def _summarizer(summarizer: str, name: str) -> tuple[str, str, str]:
    if summarizer.startswith(("http://", "https://")):
        return "", summarizer, name
    return summarizer, "", name


def _served(
    held: ExitStack, places: dict[str, tuple[str, str, str]], dialect: str, timeout_s: float, store: str
) -> dict[str, ServedModel | None]:
    """Serve the local models among ``places`` in one process, and name the others' addresses.

    Args:
        places: by role, a local model, an address, and what the model is called there.

    Raises:
        UserError: a model is missing, is damaged or does not start, an address is none, or the captioner
            and the summarizer do not know the same clips.
    """
    from serving.gateway.process import model_folder
    from share4video.captioning.domain_guard import domain_of, refuse_mixed
    from share4video.captioning.engine import connect_all
    from share4video.config import EngineSpec
    from share4video.demo_ui.served import ServedModel
    from share4video.served_models import model_address

    how = {"dialect": dialect, "request_timeout_s": timeout_s, "retries": _RETRIES}
    specs, folders = {}, {}
    for role, (local, _, _) in places.items():
        if local:
            folders[role] = model_folder(local, registry_store(local, store))
            specs[role] = EngineSpec(model_path=str(folders[role]), **how)
    domains = {role: domain_of(folder) for role, folder in folders.items()}
    if "captioner" in domains and places["summarizer"][:2] != ("", ""):
        other = domains.get("summarizer", "any")
        refuse_mixed(
            domains["captioner"],
            other,
            names=(places["captioner"][0], places["summarizer"][0] or places["summarizer"][1]),
        )
    if specs:
        typer.echo(
            f"loading {', '.join(dict.fromkeys(local for local, _, _ in places.values() if local))}", err=True
        )
    running: dict[str, Endpoint] = dict(
        zip(specs, held.enter_context(connect_all(list(specs.values()))), strict=True)
    )
    served: dict[str, ServedModel | None] = {}
    for role, (_, address, name) in places.items():
        if role in running:
            endpoint = running[role]
            served[role] = ServedModel(endpoint.base_url, endpoint.model, domains[role], running=endpoint)
        else:
            served[role] = ServedModel(model_address(address), name, spec=how) if address else None
    return served
