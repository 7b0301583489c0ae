"""``share4video recaption``: short generation prompts to dense captions, and the other way round."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from share4video.captioning.checks import EMPTY, CheckContext
from share4video.captioning.client import CallError, ChatClient, ChatRequest, Endpoint, Outcome
from share4video.captioning.conversations import held_against
from share4video.captioning.differential import Failure
from share4video.captioning.engine import connect
from share4video.captioning.roles import Recaption, RoleInput, ShortPrompt, leaks, messages, require_role
from share4video.cli.options import ConfigOption, EngineOption, PromptsOption, SetOption, read_settings
from share4video.errors import UserError

MAX_FILE_BYTES = 64 << 20
_AHEAD = 4  # texts under way for each call that the engine takes at a time: a slow one holds up few others


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
    """Translate short generation prompts into detailed captions: a JSON line each, in the texts' order.

    A line holds the codes of the checks that its answer failed. A text without an answer has the error in its
    line, and the exit code is then 2.
    """
    wanted = read_settings(config, settings, engine=engine, prompts=prompts)
    given = [*(texts or ()), *(_read_texts(file) if file is not None else ())]
    if not given:
        missing = "caption" if reverse else "prompt"
        raise UserError(f"there is no {missing}", fix="give one on the command line, or a file with --file")
    spec = wanted.engines.summarizer or wanted.engines.captioner  # whichever of them works on text alone
    require_role(spec, "prompt" if reverse else "recaption")
    max_tokens = wanted.caption.max_tokens_difference if reverse else wanted.caption.max_tokens_summary
    role = ShortPrompt if reverse else Recaption
    roles = [role(text) for text in given]
    context = CheckContext(wanted.caption.checks, leaks(spec.wording))
    made, kept = ("prompt", "caption") if reverse else ("caption", "prompt")
    errors: list[str] = []

    async def tell(endpoint: Endpoint) -> None:
        answers = aiter(_answers(endpoint, roles, max_tokens))
        for text in given:
            line = _line(await anext(answers), made, context)
            if "error" in line:
                errors.append(str(line["error"]))
            typer.echo(json.dumps({kept: text, **line}, ensure_ascii=False))

    with connect(spec) as endpoint:
        asyncio.run(tell(endpoint))
    if errors:
        raise UserError(
            f"{len(errors)} of {len(given)} texts got no {made}, the first: {errors[0].rstrip('.')}",
            where=endpoint.spec.model,
            fix="give those texts again, or name another model",
        )


async def _answers(endpoint: Endpoint, roles: Sequence[RoleInput], max_tokens: int) -> AsyncIterator[Outcome]:
    """Ask for every role, many at a time, and yield the outcomes in their order.

    Raises:
        UserError: the engine refuses the key or knows no such model.
    """

    async def ask(given: RoleInput) -> Outcome:
        try:
            return await client.ask(ChatRequest(messages(endpoint.spec.wording, given), max_tokens))
        except CallError as error:
            return error.bare()

    waiting: deque[asyncio.Task[Outcome]] = deque()
    async with ChatClient(endpoint) as client:
        try:
            for given in roles:
                waiting.append(asyncio.create_task(ask(given)))
                if len(waiting) >= _AHEAD * endpoint.spec.max_in_flight:
                    yield await waiting.popleft()
            while waiting:
                yield await waiting.popleft()
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)


def _line(outcome: Outcome, made: str, context: CheckContext) -> dict[str, object]:
    """Return what is told of an outcome: the text ``made`` and the checks it failed, or why there is none."""
    caption = held_against(context, outcome)
    if isinstance(caption, Failure):
        return {made: "", "error": caption.sentence}
    if EMPTY in caption.failed:
        return {made: "", "checks": caption.failed, "error": "the answer was empty"}
    return {made: caption.text, "checks": caption.failed}


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
