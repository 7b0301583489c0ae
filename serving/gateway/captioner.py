"""The captioner's four roles over HTTP, with the state machine, prompts and checks of the pipeline."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from serving.gateway.caption_requests import CaptionRequest
from serving.gateway.refusal import Refusal
from serving.gateway.settings import GatewaySettings
from serving.gateway.visual import VisualInput, decode_limits, refuse_longer, undecodable
from share4video.caption_file import key_frames
from share4video.captioning.client import CallError, ChatClient, ChatRequest, Endpoint
from share4video.captioning.clip import ClipRejected, ClipRole, SpanCaption, recaption_with, stream_captions
from share4video.captioning.conversations import checked
from share4video.captioning.differential import Caption
from share4video.captioning.roles import KeyFrame, Summary, TimedCaption, messages
from share4video.config import CaptionConfig, EngineSpec, KeyframeConfig
from share4video.curation.encoders import frame_encoder
from share4video.curation.samples import sample
from share4video.errors import UserError
from share4video.media.limits import MediaError
from share4video.media.probe import probe

RETRIES = 2  # a client is waiting: fewer than a pipeline's
_FAILURES = {
    "timeout": (504, "upstream_timeout", "the model did not answer in time"),
    "unavailable": (503, "upstream_unreachable", "the model is not there; try again"),
    "malformed": (502, "upstream_broken", "the model's answer is none"),
    "refused": (422, "upstream_refused", "the model's server refused the request"),
}

_CLIP_ROLES: dict[str, tuple[ClipRole, ...]] = {
    "fast": ("fast",),
    "sliding": ("sliding", "summary"),
    "summary": ("summary",),
}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CaptionedClip:
    """A clip ready to be captioned."""

    frames: list[KeyFrame]
    duration_s: float


class CaptionService:
    """Answers caption requests with the model behind the gateway.

    Raises:
        UserError: there is no such frame encoder, or no such engine.
    """

    def __init__(self, settings: GatewaySettings, visual: VisualInput) -> None:
        self.settings, self.visual = settings, visual
        self.config = CaptionConfig(mode="reference")  # clips are short, and the nano models know no anchors
        self.keyframes = KeyframeConfig(interval_s=settings.interval_s, encoder=settings.encoder)
        frame_encoder(settings.encoder)  # a wrong name is for whoever starts the gateway, not for its clients
        self.captioner = ChatClient(_endpoint(settings, settings.upstream_url, settings.upstream_model))
        self.summarizer = self.captioner
        if settings.summarizer_url:
            self.summarizer = ChatClient(
                _endpoint(settings, settings.summarizer_url, settings.summarizer_model)
            )

    async def answer(self, request: CaptionRequest) -> dict[str, Any]:
        """Return the whole answer to ``request``. Raises Refusal where there is none."""
        with _said_plainly():
            if request.role == "recaption":
                assert request.text is not None
                caption = await recaption_with(self.summarizer, request.text, checks=self.config.checks)
                return self._described(request, caption)
            if request.captions:
                return self._described(request, await self._summarised(request))
        clip = await self.clip(request)
        captions = [caption async for caption in self._captions(request, clip)]
        facts = self._facts(request) | {"duration_s": clip.duration_s, "keyframes": len(clip.frames)}
        if request.role != "sliding":
            return {**facts, "caption": captions[-1].caption, "checks": captions[-1].checks}
        *differentials, summary = captions
        return {**facts, "captions": [asdict(one) for one in differentials], "summary": asdict(summary)}

    async def events(self, request: CaptionRequest) -> AsyncGenerator[bytes, None]:
        """Return server-sent events: one ``differential`` per key frame as it comes, ``summary``, ``done``.

        A failure after the first is an ``error`` event, which then is the last.

        Raises:
            Refusal: there is no first caption.
        """
        clip = await self.clip(request)
        captions = self._captions(request, clip)
        first = await anext(captions)
        return self._relay(request, clip, first, captions)

    async def _relay(
        self,
        request: CaptionRequest,
        clip: CaptionedClip,
        first: SpanCaption,
        others: AsyncGenerator[SpanCaption, None],
    ) -> AsyncGenerator[bytes, None]:
        async with aclosing(others):
            try:
                yield _event(first)
                async for caption in others:
                    yield _event(caption)
            except Refusal as refusal:
                yield _sse("error", refusal.body())
            else:
                facts = {"duration_s": clip.duration_s, "keyframes": len(clip.frames)}
                yield _sse("done", self._facts(request) | facts)

    async def clip(self, request: CaptionRequest) -> CaptionedClip:
        """Fetch a clip and choose its key frames. Raises Refusal where it cannot be captioned."""
        assert request.video_url is not None
        async with self.visual.source.open(request.video_url.url, "video") as path:
            return await self.visual.decoders.run(self._key_frames, path)

    def _key_frames(self, path: Path) -> CaptionedClip:
        limits, bound_s = decode_limits(self.settings), self.settings.max_duration_s
        try:
            facts = probe(path, limits=limits, decode_up_to_s=bound_s)
            refuse_longer(facts.duration_s, bound_s)
            samples = sample(path, 0.0, facts.duration_s, self.keyframes, limits=limits)
        except MediaError as error:
            raise undecodable(error) from error
        self.visual.refuse_foreign(samples.pictures)
        chosen = key_frames(samples, self.keyframes)
        if len(chosen) > self.settings.max_keyframes:
            bound = self.settings.max_keyframes
            raise Refusal(413, "media_too_long", f"the clip has {len(chosen)} key frames; {bound} are taken")
        return CaptionedClip(chosen, facts.duration_s)

    async def _captions(
        self, request: CaptionRequest, clip: CaptionedClip
    ) -> AsyncGenerator[SpanCaption, None]:
        with _said_plainly():
            stream = stream_captions(
                clip.frames,
                _CLIP_ROLES[request.role],
                captioner=self.captioner,
                summarizer=self.summarizer,
                config=self.config,
            )
            async for caption in stream:
                yield caption

    async def _summarised(self, request: CaptionRequest) -> Caption:
        wording = self.summarizer.spec.wording
        captions = sorted(request.captions, key=lambda one: one.timestamp_s)
        given = Summary(
            tuple(TimedCaption(i, one.timestamp_s, one.caption) for i, one in enumerate(captions, 1))
        )
        chat = ChatRequest(messages(wording, given), self.config.max_tokens_summary)
        caption = checked(await self.summarizer.ask(chat), wording, checks=self.config.checks)
        assert isinstance(caption, Caption)  # a failed call raises
        return caption

    def _described(self, request: CaptionRequest, caption: Caption) -> dict[str, Any]:
        return {**self._facts(request), "caption": caption.text, "checks": caption.failed}

    def _facts(self, request: CaptionRequest) -> dict[str, Any]:
        names = {"model": self.settings.model_name, "revision": self.settings.model_revision}
        return {"object": "captions", "role": request.role, **names}


@contextmanager
def _said_plainly() -> Iterator[None]:
    """Turn what goes wrong between us and the model into answers; addresses stay in the log."""
    try:
        yield
    except ClipRejected as error:
        logger.warning("no captions: %s", error)
        why = "too many key frames have no sound caption" if error.rejection.measured else "a call failed"
        raise Refusal(502, "caption_failed", f"no captions came of the clip: {why}") from error
    except CallError as error:
        logger.warning("the model failed: %s", error)
        raise Refusal(*_FAILURES[error.reason]) from error
    except UserError as error:
        logger.warning("the gateway is not set up right: %s", error)
        raise Refusal(502, "upstream_failed", "the model's server does not take our requests") from error


def _endpoint(settings: GatewaySettings, url: str, model: str) -> Endpoint:
    spec = EngineSpec(
        url=url,
        model=model or settings.model_name,
        revision=settings.model_revision,
        dialect=settings.dialect,
        tiles=settings.tiles,
        system_message=settings.system_message,
        max_in_flight=settings.max_in_flight,
        request_timeout_s=settings.upstream_timeout_s,
        retries=RETRIES,
    )
    key = settings.upstream_api_key.get_secret_value() or "none"
    return Endpoint(url.rstrip("/"), spec.model, spec, api_key=key)


def _event(caption: SpanCaption) -> bytes:
    return _sse("summary" if caption.role == "summary" else "differential", asdict(caption))


def _sse(name: str, data: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n".encode()
