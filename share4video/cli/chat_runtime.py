"""Where ``share4video chat`` finds its model: behind an address, served for the call, or in this process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import typer

from share4video.chat import Conversation
from share4video.chat_visuals import Visual
from share4video.cli.serve import registry_store
from share4video.decoding import GREEDY, Decoding
from share4video.errors import UserError

DEFAULT_URL = "http://127.0.0.1:8080"
_GATEWAY_FAMILY = "llava_next"  # the gateway lays frames out as this family was trained to see them


class Session(Protocol):
    """A conversation, wherever the model is."""

    def ask(self, question: str, decoding: Decoding = GREEDY) -> Iterator[str]:
        """Yield the answer as it comes; the turn counts once its last piece was taken."""


@dataclass(frozen=True)
class Asked:
    """What the options of ``share4video chat`` ask for; empty and None are what was not given."""

    visual: Visual | None
    url: str
    model: str
    store: str
    name: str
    runtime: str
    visual_path: str
    device: str
    dtype: str
    decoding: Decoding

    @property
    def is_address(self) -> bool:
        return self.model.startswith(("http://", "https://"))


@contextmanager
def open_session(asked: Asked) -> Iterator[Session]:
    """Open the conversation that ``asked`` describes, and close what was started for it.

    Raises:
        UserError: the options do not go together, or the model, its device or the clip cannot be used.
    """
    if asked.url and asked.model:
        raise UserError("--url and --model name two models", fix="give one of them")
    if asked.visual is not None:
        asked.visual.check()
    if not asked.model or asked.is_address:
        _refuse_here(asked)
        yield Conversation(asked.url or asked.model or DEFAULT_URL, asked.visual, model=asked.name)
        return
    from serving.gateway.process import model_folder

    store = registry_store(asked.model, asked.store)
    folder = model_folder(asked.model, store)
    why = _choose(asked, folder)
    if why is None:
        from serving.gateway.process import serve_model

        settings: dict[str, Any] = {}
        visual = asked.visual
        if visual is not None and visual.frames is not None and visual.send == "auto":
            settings["frames"] = visual.frames
            visual = Visual(visual.address, visual.kind)
        if visual is not None:
            visual.check_size(gateway=True)
        typer.echo(f"loading {asked.model}", err=True)
        with serve_model(asked.model, model_name=asked.name, store=store, **settings) as gateway:
            yield Conversation(gateway.url, visual)
    else:
        reason = f" (needed for {why})" if why else ""
        typer.echo(f"loading {asked.model} into this process{reason}", err=True)
        yield _load(asked, folder)


def _refuse_here(asked: Asked) -> None:
    """Raise UserError where an option needs a model that is loaded here and the model is elsewhere."""
    given = {
        "--runtime reference": asked.runtime == "reference",
        f"--visual-path {asked.visual_path}": bool(asked.visual_path) and asked.visual_path != "anyres",
        "--device": bool(asked.device),
        "--dtype": bool(asked.dtype),
    }
    for option, there in given.items():
        if there:
            raise UserError(
                f"{option} is for a model that this process loads",
                fix="give --model a checkpoint folder, models:/NAME@champion or builtin:NAME",
            )


def _choose(asked: Asked, folder: Path) -> str | None:
    """Return why the model is loaded here (nothing where it was said so), or None where it is served."""
    from share4video.models.chat_session import FAMILIES, model_type

    family = model_type(folder)
    if asked.visual_path and family != _GATEWAY_FAMILY:
        what = f"only models of type {_GATEWAY_FAMILY} have two visual paths, and this is {family}"
        raise UserError(what, where=str(folder), fix="leave out --visual-path")
    needed = {
        f"--visual-path {asked.visual_path}": bool(asked.visual_path) and asked.visual_path != "anyres",
        "--device": bool(asked.device),
        "--dtype": bool(asked.dtype),
        # `transformers serve` draws only where the checkpoint says so, whatever temperature it is given.
        "--temperature": asked.decoding.temperature > 0,
        f"its architecture {family}": family in FAMILIES and family != _GATEWAY_FAMILY,
    }
    reasons = [reason for reason, there in needed.items() if there]
    if asked.runtime == "reference":
        if asked.visual is not None and asked.visual.send != "auto":
            raise UserError(
                "--send is for a model that is served", fix="leave it out with --runtime reference"
            )
        return ""
    if reasons and asked.runtime == "http":
        raise UserError(
            f"a model that is served here does not do {', '.join(reasons)}",
            where="--runtime http",
            fix="leave it out, or give --runtime reference",
        )
    if reasons and family not in FAMILIES:
        raise UserError(
            f"models of type {family!r} do not run in this process, which {', '.join(reasons)} asks for",
            where=str(folder),
            fix=f"leave it out, or use a model of type {', '.join(sorted(FAMILIES))}",
        )
    return ", ".join(reasons) or None


def _load(asked: Asked, folder: Path) -> Session:
    from share4video.models.chat_session import Runtime, load_chat_model

    visual = asked.visual
    if visual is not None and visual.is_url:
        raise UserError(
            "a model in this process reads local files alone",
            where=visual.address[:200],
            fix="fetch the clip",
        )
    _bars_only_at_a_terminal()
    path: Literal["anyres", "thumbnail"] = "thumbnail" if asked.visual_path == "thumbnail" else "anyres"
    runtime = Runtime(
        device=asked.device or "cpu",
        dtype=asked.dtype or "float32",
        frames=None if visual is None else visual.frames,
        visual_path=path,
    )
    model = load_chat_model(folder, runtime)
    if visual is None:
        return model.open(None)
    return model.open(Path(visual.address), visual.kind)


def _bars_only_at_a_terminal() -> None:
    from transformers.utils import logging

    if not sys.stderr.isatty():
        logging.disable_progress_bar()
