"""``share4video demo-ui``: a web page to chat about clips and to caption them."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from share4video.cli.chat_runtime import DEFAULT_URL
from share4video.cli.engines import engine_fields
from share4video.cli.options import EngineOption, StoreOption, presets_file
from share4video.cli.serve import registry_store
from share4video.errors import UserError

if TYPE_CHECKING:
    from share4video.captioning.client import Endpoint
    from share4video.demo_ui.served import ServedModel

_NANO_CAPTIONER, _NANO_SUMMARIZER = "builtin:nano-captioner", "builtin:nano-summarizer"
_PATIENCE_S = 120.0
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
    engine: EngineOption = None,
    dialect: Annotated[
        str,
        typer.Option(
            help="The captioner's prompts: sharecaptioner or teacher (default: the engine's, or the first).",
            metavar="NAME",
        ),
    ] = "",
    examples: Annotated[
        Path | None, typer.Option(help="A folder of videos to offer as examples.", metavar="FOLDER")
    ] = None,
    host: Annotated[
        str, typer.Option(help="The address to listen on; 0.0.0.0 is all of them.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port to listen on.")] = 7860,
    timeout: Annotated[
        float | None,
        typer.Option(min=1, max=3600, help=f"Seconds a model may say nothing (default {_PATIENCE_S:g})."),
    ] = None,
    max_upload: Annotated[int, typer.Option(min=1, max=4096, help="MiB that an upload may have.")] = 256,
    max_duration: Annotated[
        float, typer.Option(min=1, max=7200, help="Seconds that a clip may have.")
    ] = 600.0,
    store: StoreOption = "",
) -> None:
    """Open a web page to chat about clips and to caption them, with any OpenAI-compatible server.

    A key is read from SHARE4VIDEO_API_KEY where all addresses have one origin, and else from
    SHARE4VIDEO_CHAT_API_KEY, SHARE4VIDEO_CAPTION_API_KEY and SHARE4VIDEO_SUMMARIZER_API_KEY.
    """
    from serving.gateway.listening import check_port_free
    from share4video.demo_ui import app
    from share4video.demo_ui.page import Page
    from share4video.demo_ui.pictures import Uploads
    from share4video.demo_ui.settings import Bounds

    fields = engine_fields(engine, presets_file()) if engine is not None else {}
    fields["dialect"] = dialect = dialect or fields.get("dialect", "sharecaptioner")
    if dialect not in ("sharecaptioner", "teacher"):
        raise UserError("there is no such dialect", where=dialect, fix="give sharecaptioner or teacher")
    for local, elsewhere, name in ((model, chat_url, "chat"), (captioner, caption_url, "caption")):
        if local and elsewhere:
            flag = "--model" if name == "chat" else "--captioner"
            raise UserError(f"{flag} and --{name}-url name two models", fix="give one of them")
    is_elsewhere = summarizer.startswith(("http://", "https://"))
    for given, is_local, flag, local_flag in (
        (chat_model, model, "--chat-model", "--model"),
        (caption_model, captioner, "--caption-model", "--captioner"),
        (summarizer_model, not is_elsewhere, "--summarizer-model", "a --summarizer that is no address"),
    ):
        if given and is_local:
            raise UserError(
                f"{flag} is what a server elsewhere calls its model, and does not go with {local_flag}",
                fix="give one of them",
            )
    check_port_free(host, port)  # before a model is loaded for nothing
    summarizer = summarizer or (_NANO_SUMMARIZER if captioner == _NANO_CAPTIONER else "")
    # Once it is said where one model is, the other tab is not sent anywhere unasked.
    fallback = url or ("" if model or captioner or chat_url or caption_url or is_elsewhere else DEFAULT_URL)
    summed_up = ("", summarizer, summarizer_model) if is_elsewhere else (summarizer, "", "")
    places = {
        "chat": (model, chat_url or fallback, chat_model),
        "captioner": (captioner, caption_url or fallback, caption_model or fields.get("model", "")),
        "summarizer": summed_up,
    }
    patience_s = timeout or _PATIENCE_S
    how = {"dialect": dialect, "request_timeout_s": patience_s, "retries": _RETRIES}
    asked = dict.fromkeys(places, how)
    own = {key: value for key, value in fields.items() if key not in ("model", "retries")}
    asked["captioner"] = how | own | ({"request_timeout_s": timeout} if timeout else {})
    bounds = Bounds(max_bytes=max_upload << 20, max_duration_s=max_duration)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # a stopped service ends like Ctrl-C
    try:
        with ExitStack() as held:
            folders = held.enter_context(app.work_folders())
            offered = app.make_examples(folders, examples, bounds)
            served = _served(held, places, asked, store)
            page = Page(
                chat=served["chat"],
                captioner=served["captioner"],
                summarizer=served["summarizer"],
                uploads=Uploads(bounds),
                folder=folders.uploads,
                dialect="teacher" if dialect == "teacher" else "sharecaptioner",
                patience_s=patience_s,
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


def _served(
    held: ExitStack, places: dict[str, tuple[str, str, str]], asked: dict[str, dict[str, Any]], store: str
) -> dict[str, ServedModel | None]:
    """Serve the local models among ``places`` in one process, and name the others' addresses.

    Args:
        places: by role, a local model, an address, and what the model is called there.
        asked: by role, further fields of its engine.

    Raises:
        UserError: a model is missing, is damaged or does not start, an address is none, an engine's fields do
            not go together, or the captioner and the summarizer do not know the same clips.
    """
    from serving.gateway.process import model_folder
    from share4video.captioning.domain_guard import domain_of, refuse_mixed
    from share4video.captioning.engine import connect_all
    from share4video.demo_ui.keys import KEY_VARIABLES, api_keys
    from share4video.demo_ui.served import ServedModel, checked_spec
    from share4video.served_models import API_KEY_VARIABLE, NO_KEY, model_address

    addresses = {
        role: model_address(address) for role, (local, address, _) in places.items() if address and not local
    }
    for role, address in addresses.items():  # said now, not when a visitor asks
        checked_spec({"url": address, **asked[role]}, where=address)
    keys = api_keys(addresses, os.environ)
    if os.environ.get(API_KEY_VARIABLE) and NO_KEY in keys.values():
        unsent = ", ".join(KEY_VARIABLES[role] for role, key in keys.items() if key == NO_KEY)
        typer.echo(
            f"{API_KEY_VARIABLE} is sent nowhere: the models are at several hosts; set {unsent}", err=True
        )
    specs, folders = {}, {}
    for role, (local, _, _) in places.items():
        if local:
            folders[role] = model_folder(local, registry_store(local, store))
            fields = {key: value for key, value in asked[role].items() if key != "revision"}
            specs[role] = checked_spec({**fields, "model_path": str(folders[role])}, where=local)
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
    for role, (_, _, name) in places.items():
        if role in running:
            endpoint = running[role]
            served[role] = ServedModel(endpoint.base_url, endpoint.model, domains[role], running=endpoint)
        elif role in addresses:
            served[role] = ServedModel(addresses[role], name, api_key=keys[role], spec=asked[role])
        else:
            served[role] = None
    return served
