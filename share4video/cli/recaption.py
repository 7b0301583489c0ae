"""``share4video recaption``: short generation prompts to dense captions, and the other way round."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from share4video.captioning.client import ChatRequest, Completion
from share4video.captioning.engine import answer_all, connect
from share4video.captioning.roles import Recaption, RoleInput, ShortPrompt, messages, require_role
from share4video.cli.options import ConfigOption, EngineOption, PromptsOption, SetOption, read_settings
from share4video.config import EngineSpec
from share4video.errors import UserError

MAX_FILE_BYTES = 64 << 20


def recaption(
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="[TEXT]...", help="Short prompts; captions with --reverse.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", metavar="FILE", help="A text file with one text a line.")
    ] = None,
    reverse: Annotated[
        bool, typer.Option("--reverse", help="Make short prompts of detailed captions instead.")
    ] = False,
    engine: EngineOption = None,
    prompts: PromptsOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
) -> None:
    """Translate short generation prompts into detailed captions: a JSON line each, in the texts' order."""
    wanted = read_settings(config, settings, engine=engine, prompts=prompts)
    given = [*(texts or ()), *(_read_texts(file) if file is not None else ())]
    if not given:
        missing = "caption" if reverse else "prompt"
        raise UserError(f"there is no {missing}", fix="give one on the command line, or a file with --file")
    spec = wanted.engines.summarizer or wanted.engines.captioner  # whichever of them works on text alone
    require_role(spec, "prompt" if reverse else "recaption")
    max_tokens = wanted.caption.max_tokens_difference if reverse else wanted.caption.max_tokens_summary
    role = ShortPrompt if reverse else Recaption
    requests = {
        str(index): partial(_request, role(text), spec, max_tokens) for index, text in enumerate(given)
    }
    with connect(spec) as endpoint:
        answers = answer_all(endpoint, requests)
    made, kept = ("prompt", "caption") if reverse else ("caption", "prompt")
    for index, text in enumerate(given):
        answer = answers[str(index)]
        if not isinstance(answer, Completion):
            raise UserError(f"a text got no {made}: {answer}", where=text[:80], fix="run it again")
        if not (said := answer.text.strip()):
            raise UserError(
                f"a text got an empty {made}", where=text[:80], fix="write it longer, or name another model"
            )
        typer.echo(json.dumps({kept: text, made: said}, ensure_ascii=False))


def _request(given: RoleInput, spec: EngineSpec, max_tokens: int) -> ChatRequest:
    return ChatRequest(messages(spec.wording, given), max_tokens)


def _read_texts(file: Path) -> list[str]:
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise UserError(
                "the file is too large", where=str(file), fix=f"split it below {MAX_FILE_BYTES} bytes"
            )
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the texts: {error}", where=str(file), fix="give a text file") from None
    return [line.strip() for line in lines if line.strip()]
