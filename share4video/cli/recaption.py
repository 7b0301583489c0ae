"""``share4video recaption``: short generation prompts to dense captions."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from share4video.captioning.client import ChatRequest, Completion
from share4video.captioning.engine import answer_all, connect
from share4video.captioning.role_inputs import Recaption
from share4video.captioning.roles import messages
from share4video.cli.options import ConfigOption, SetOption, read_settings
from share4video.config import EngineSpec
from share4video.errors import UserError

MAX_FILE_BYTES = 64 << 20


def recaption(
    prompts: Annotated[list[str] | None, typer.Argument(metavar="[PROMPT]...", help="Short prompts.")] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", metavar="FILE", help="A text file with one prompt a line.")
    ] = None,
    config: ConfigOption = None,
    settings: SetOption = None,
) -> None:
    """Translate short generation prompts into detailed captions: a JSON line each, in the prompts' order."""
    wanted = read_settings(config, settings)
    texts = [*(prompts or ()), *(_read_prompts(file) if file is not None else ())]
    if not texts:
        raise UserError("there is no prompt", fix="give one on the command line, or a file with --file")
    engine = wanted.engines.summarizer or wanted.engines.captioner  # whichever of them works on text alone
    requests = {
        str(index): partial(_request, text, engine, wanted.caption.max_tokens_summary)
        for index, text in enumerate(texts)
    }
    with connect(engine) as endpoint:
        answers = answer_all(endpoint, requests)
    for index, text in enumerate(texts):
        answer = answers[str(index)]
        if not isinstance(answer, Completion):
            raise UserError(f"a prompt got no caption: {answer}", where=text[:80], fix="run it again")
        if not (caption := answer.text.strip()):
            raise UserError(
                "a prompt got an empty caption", where=text[:80], fix="write it longer, or name another model"
            )
        typer.echo(json.dumps({"prompt": text, "caption": caption}, ensure_ascii=False))


def _request(text: str, engine: EngineSpec, max_tokens: int) -> ChatRequest:
    return ChatRequest(messages(engine.dialect, Recaption(text)), max_tokens)


def _read_prompts(file: Path) -> list[str]:
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise UserError(
                "the file is too large", where=str(file), fix=f"split it below {MAX_FILE_BYTES} bytes"
            )
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"cannot read the prompts: {error}", where=str(file), fix="give a text file"
        ) from None
    return [line.strip() for line in lines if line.strip()]
