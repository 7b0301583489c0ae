"""``share4video serve MODEL``: a model with its gateway, until Ctrl-C."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from share4video.cli.options import StoreOption
from share4video.errors import UserError
from share4video.store import Store

_CLIP = "CLIP.mp4"


def serve(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="models:/NAME@champion, a checkpoint folder, builtin:nano-base, or http://HOST:PORT/v1 of a "
            "model server that runs.",
        ),
    ],
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port to listen on.")] = 8080,
    host: Annotated[
        str, typer.Option(help="The address to listen on; 0.0.0.0 is all of them.")
    ] = "127.0.0.1",
    role: Annotated[
        str, typer.Option(help="chat, or captioner (fast, sliding, summary, recaption).", metavar="ROLE")
    ] = "chat",
    name: Annotated[str, typer.Option(help="What clients call the model.")] = "",
    summarizer: Annotated[
        str,
        typer.Option(help="The model that summarises captions, where it is another one.", metavar="MODEL"),
    ] = "",
    file_root: Annotated[
        Path | None, typer.Option(help="A folder clients may name clips in, as file:///...", metavar="FOLDER")
    ] = None,
    store: StoreOption = "",
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="A host clips may be fetched from; may be repeated.", metavar="HOST"),
    ] = None,
) -> None:
    """Serve a model over HTTP: OpenAI chat with video_url, KServe's protocol, health and metrics."""
    from serving.gateway.process import serve_model

    if file_root is not None and not file_root.is_dir():
        raise UserError("there is no such folder", where=str(file_root), fix="give --file-root a folder")
    # What is not given is left to the environment, which GatewaySettings reads.
    settings: dict[str, Any] = {"role": _checked_role(role)}
    if file_root is not None:
        settings["file_root"] = file_root.resolve()
    if allow_host:
        settings["allowed_hosts"] = tuple(allow_host)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # a stopped service ends like Ctrl-C
    typer.echo(f"loading {model}", err=True)
    try:
        with serve_model(
            model,
            model_name=name,
            summarizer=summarizer,
            store=registry_store(model, store),
            host=host,
            port=port,
            **settings,
        ) as gateway:
            typer.echo(f"{gateway.model_name} answers at {gateway.url} (Ctrl-C ends it; log: {gateway.log})")
            typer.echo(f"\ntry:\n  {example(gateway.url, role)}")
            if role == "chat":
                typer.echo(
                    f'  share4video chat --video {_CLIP} --url {gateway.url} "What happens in the video?"'
                )
            status = gateway.wait()
            raise UserError(
                f"the gateway ended by itself with status {status}",
                where=str(gateway.log),
                fix="read its log",
            )
    except KeyboardInterrupt:
        typer.echo("stopped", err=True)
    finally:
        signal.signal(signal.SIGTERM, before)


def registry_store(model: str, store: str) -> Store | None:
    """Return the store whose registry holds ``model``, None where the model is not a registered one."""
    return Store.open(store) if store and model.startswith("models:/") else None


def example(url: str, role: str) -> str:
    """Return a curl line that works as it stands, given a clip; the shell builds the JSON."""
    video = r'{"type":"video_url","video_url":{"url":"data:video/mp4;base64,%s"}}'
    if role == "chat":
        text = r'{"type":"text","text":"What happens in the video?"}'
        body, route = rf'{{"messages":[{{"role":"user","content":[{video},{text}]}}]}}', "chat/completions"
    else:
        body, route = r'{"role":"sliding","video_url":{"url":"data:video/mp4;base64,%s"}}', "captions"
    send = f"curl -sN {url}/v1/{route} -H 'Content-Type: application/json' -d @-"
    return f"printf '{body}' \"$(base64 -w0 {_CLIP})\" | {send}"


def _checked_role(role: str) -> Literal["chat", "captioner"]:
    if role == "chat":
        return "chat"
    if role == "captioner":
        return "captioner"
    raise UserError("there is no such role", where=role, fix="give --role chat or --role captioner")
