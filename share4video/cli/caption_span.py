"""``share4video caption CLIP --span A-B``: a caption of any span from what is stored."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence

import typer

from share4video.captioning.client import ChatClient
from share4video.captioning.differential import Failure
from share4video.captioning.domain_guard import engine_domain, refuse_mixed
from share4video.captioning.engine import connect, identity, resolve
from share4video.captioning.spans import SpanCaptions, SpanConversation, caption_span
from share4video.captioning.stored import StoredClip, find_clip
from share4video.cli.runs import engines_running
from share4video.config import RunConfig
from share4video.dataset.manifest import StageRef
from share4video.errors import UserError
from share4video.store import Store

_SPAN = re.compile(r"(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)")
_ROUNDING_S = 0.005  # bounds are printed with two decimals


def caption_spans(
    clip: str, spans: Sequence[str], dataset: str | None, store: str, settings: RunConfig
) -> None:
    """Print a JSON line per span: its caption, and which differential captions it was made from.

    Raises:
        UserError: there is no such clip or no such span of it, or the engine gives no caption.
    """
    found = find_clip(Store.open(store), clip, StageRef.parse(dataset) if dataset else None)
    bounds = [_within(found, parse_span(span)) for span in spans]
    engine = settings.engines.summarizer or settings.engines.captioner
    _refuse_foreign(found, settings)

    async def ask(client: ChatClient) -> None:
        for span_s in bounds:
            chosen = SpanCaptions.of(found.differentials, *span_s)
            conversation = SpanConversation(
                f"{found.clip_id}/{span_s[0]}-{span_s[1]}",
                span_s,
                chosen,
                found.parts,
                wording=engine.wording,
                max_tokens=settings.caption.max_tokens_summary,
                budget_tokens=settings.caption.summary_budget_tokens,
                checks=settings.caption.checks,
            )
            caption = await caption_span(client, conversation)
            if isinstance(caption, Failure):
                raise UserError(
                    f"no caption of the span: {caption.sentence}",
                    where=f"{found.clip_id}, {span_s[0]:g}-{span_s[1]:g}",
                    fix="run it again, or name another engine",
                )
            line = {
                "clip_id": found.clip_id,
                "start_s": span_s[0],
                "end_s": span_s[1],
                "caption": caption.text,
                "differentials": [row["index"] for row in chosen.inside],
                "context": [row["index"] for row in chosen.context],
                "checks": list(caption.failed),
            }
            typer.echo(json.dumps(line, ensure_ascii=False))

    async def run() -> None:
        async with ChatClient(endpoint) as client:
            await ask(client)

    with engines_running([engine]), connect(engine) as endpoint:
        asyncio.run(run())


def parse_span(text: str) -> tuple[float, float]:
    """Read ``12.5-31`` as seconds. Raises UserError where it is no span."""
    match = _SPAN.fullmatch(text.strip())
    if match is None or float(match[1]) >= float(match[2]):
        raise UserError("not a span of time", where=text, fix="give FROM-TO in seconds, such as 12.5-31")
    return float(match[1]), float(match[2])


def _within(clip: StoredClip, span_s: tuple[float, float]) -> tuple[float, float]:
    if span_s[0] < clip.start_s - _ROUNDING_S or span_s[1] > clip.end_s + _ROUNDING_S:
        raise UserError(
            "the span is not within the clip",
            where=f"{clip.clip_id}, {span_s[0]:g}-{span_s[1]:g}",
            fix=f"the clip goes from {clip.start_s:.2f} to {clip.end_s:.2f} s of its source",
        )
    return span_s


def _refuse_foreign(clip: StoredClip, settings: RunConfig) -> None:
    """Refuse a model that knows only synthetic clips for captions that it does not know."""
    captioner, engine = settings.engines.captioner, settings.engines.summarizer or settings.engines.captioner
    domain = engine_domain(engine)
    writers = sorted({str(row["engine"]) for row in clip.differentials})
    if domain == "synthetic" and writers != [identity(captioner)]:
        refuse_mixed("any", domain, names=(writers[0], resolve(engine).model))
