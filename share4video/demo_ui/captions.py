"""Captions of one uploaded clip as they come, and of any span of it from those that came."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from share4video.captioning.client import CallError, ChatClient, Endpoint
from share4video.captioning.clip import (
    ClipRejected,
    ClipRole,
    SpanCaption,
    recaption_with,
    stream_captions,
)
from share4video.captioning.differential import Failure
from share4video.captioning.domain_guard import Domain
from share4video.captioning.roles import Dialect, KeyFrame
from share4video.captioning.spans import SpanCaptions, SpanConversation, caption_span
from share4video.config import CaptionConfig, KeyframeConfig
from share4video.curation.keyframes import cut_bound
from share4video.demo_ui.pictures import Shown
from share4video.demo_ui.served import checked_spec
from share4video.errors import UserError

MAX_PROMPT = 4_000  # characters of a short prompt
_ROUNDING_S = 0.005


@dataclass(frozen=True)
class Captioner:
    """The models that caption, in one dialect, and the rules they caption by."""

    captioner: Endpoint
    summarizer: Endpoint
    config: CaptionConfig

    @classmethod
    def of(
        cls, captioner: Endpoint, summarizer: Endpoint, *, dialect: Dialect, domain: Domain = "any"
    ) -> Captioner:
        """Choose the rules: models of the synthetic clips never saw an anchor, nor a part of a summary.

        Raises:
            UserError: a model is not asked in this dialect, such as one that is sent tiles.
        """
        # A dataset does without a clip of many fallbacks; a visitor sees which captions they are.
        config = CaptionConfig(max_fallback_share=1.0)
        if domain == "synthetic":
            config = config.model_copy(update={"mode": "reference", "summary_budget_tokens": None})
        return cls(_in_dialect(captioner, dialect), _in_dialect(summarizer, dialect), config)


@dataclass
class CaptionedClip:
    """What one visitor has: a clip's key frames, and the captions that came of them.

    Attributes:
        captions: of the key frames, in order of time.
        whole: of the whole clip, by role.
    """

    shown: Shown | None = None
    captions: list[SpanCaption] = field(default_factory=list)
    whole: dict[Literal["fast", "summary"], SpanCaption] = field(default_factory=dict)

    def about(self, shown: Shown | None) -> None:
        """Begin anew, with other key frames."""
        self.shown, self.captions, self.whole = shown, [], {}

    def frame_of(self, caption: SpanCaption) -> KeyFrame:
        """Return the key frame a caption ends at."""
        assert self.shown is not None
        return self.shown.frames[caption.number - 1]

    async def caption(self, roles: tuple[ClipRole, ...], how: Captioner) -> AsyncGenerator[SpanCaption, None]:
        """Caption the clip, keep what comes and hand it out.

        Raises:
            UserError: there is no clip, or no sound captions came of it; those that came until then stay.
        """
        if self.shown is None:
            raise UserError("there is no clip to caption", fix="upload a video, or take an example")
        async with _said_plainly(how.captioner), _clients(how) as (captioner, summarizer):
            stream = stream_captions(
                self.shown.frames,
                roles,
                captioner=captioner,
                summarizer=summarizer,
                config=how.config,
                cut_threshold=cut_bound(how.config, KeyframeConfig().encoder),
            )
            async for caption in stream:
                if caption.role == "sliding":
                    self.captions.append(caption)
                elif caption.role in ("fast", "summary"):
                    self.whole[caption.role] = caption
                yield caption

    async def span(self, start_s: float, end_s: float, how: Captioner) -> tuple[str, tuple[int, ...]]:
        """Caption a span from the key frames' captions alone: no frame is looked at.

        Returns:
            the caption, and the numbers of the key frames whose captions it was made from.

        Raises:
            UserError: there are no captions yet, the span is not one, or the model gave no caption.
        """
        if self.shown is None or not self.captions:
            raise UserError("there are no captions to sum up yet", fix="make sliding captions first")
        if not 0 <= start_s < end_s <= self.shown.duration_s + _ROUNDING_S:
            raise UserError("this is no span of the clip", fix="let it start before it ends")
        chosen = SpanCaptions.of(self.rows(), start_s, end_s)
        conversation = SpanConversation(
            f"{start_s}-{end_s}",
            (start_s, end_s),
            chosen,
            (),
            wording=how.summarizer.spec.wording,
            max_tokens=how.config.max_tokens_summary,
            budget_tokens=how.config.summary_budget_tokens,
            checks=how.config.checks,
        )
        async with _said_plainly(how.summarizer), ChatClient(how.summarizer) as client:
            caption = await caption_span(client, conversation)
        if isinstance(caption, Failure):
            fix = "try again, or name another --summarizer"
            raise UserError(
                f"no caption of the span: {caption.sentence}", where=how.summarizer.model, fix=fix
            )
        return caption.text, tuple(row["index"] + 1 for row in chosen.inside)

    def rows(self) -> list[dict[str, Any]]:
        """Return the key frames' captions as table ``differentials`` has them.

        A full caption is of one moment, a difference of the time since the moment before.
        """
        return [
            {
                "index": one.number - 1,
                "kind": _kind(one),
                "start_s": one.start_s,
                "end_s": one.end_s,
                "caption": one.caption,
            }
            for one in self.captions
        ]


async def recaption(text: str, how: Captioner) -> str:
    """Turn a short generation prompt into a dense caption.

    Raises:
        UserError: the prompt is empty or too long, or the model gave no caption.
    """
    if len(text) > MAX_PROMPT:
        raise UserError(f"the prompt is longer than {MAX_PROMPT} characters", fix="shorten it")
    async with _said_plainly(how.summarizer), ChatClient(how.summarizer) as client:
        caption = await recaption_with(
            client, text, max_tokens=how.config.max_tokens_summary, checks=how.config.checks
        )
    return caption.text


def _kind(caption: SpanCaption) -> Literal["first", "difference", "anchor"]:
    if caption.number == 1:
        return "first"
    return "anchor" if caption.start_s == caption.end_s else "difference"


def is_full(caption: SpanCaption) -> bool:
    """Whether a key frame's caption describes it in full, rather than what changed."""
    return _kind(caption) != "difference"


def _in_dialect(endpoint: Endpoint, dialect: Dialect) -> Endpoint:
    """Raises UserError where the engine is set up for the other dialect's form."""
    fields = dict(endpoint.spec) | {"dialect": dialect}
    return replace(endpoint, spec=checked_spec(fields, where=endpoint.spec.model))


@asynccontextmanager
async def _clients(how: Captioner) -> AsyncIterator[tuple[ChatClient, ChatClient]]:
    async with ChatClient(how.captioner) as captioner, ChatClient(how.summarizer) as summarizer:
        yield captioner, summarizer


@asynccontextmanager
async def _said_plainly(endpoint: Endpoint) -> AsyncIterator[None]:
    """Say in a sentence what goes wrong between the app and a model.

    Raises:
        UserError: a call failed for good, or no sound captions came of the clip.
    """
    fix = "check that the model runs and takes pictures, then try again"
    try:
        yield
    except ClipRejected as error:
        raise UserError(f"no captions: {str(error).rstrip('. ')}", fix=fix) from error
    except CallError as error:
        raise UserError(f"no caption: {str(error).rstrip('. ')}", where=endpoint.model, fix=fix) from error
