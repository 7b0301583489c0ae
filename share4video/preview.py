"""A few clips captioned before a run: every call as it was made. Nothing is stored."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from share4video.caption_file import key_frames
from share4video.captioning.client import CallError, ChatClient, ChatRequest, Completion, Endpoint, Outcome
from share4video.captioning.conversations import (
    CAPTIONER,
    SUMMARIZER,
    CaptionPlan,
    ClipConversation,
    checked,
)
from share4video.captioning.derived import DerivedConversation, DerivedPlan
from share4video.captioning.differential import Caption
from share4video.captioning.domain_guard import Domain, engine_domain, refuse_foreign_clip, refuse_mixed
from share4video.captioning.engine import connect_all, resolve, user_error_in
from share4video.captioning.roles import KeyFrame
from share4video.captioning.scheduler import Call
from share4video.config import EngineSpec, RunConfig
from share4video.curation.filters import judge
from share4video.curation.samples import sample
from share4video.errors import UserError
from share4video.media.limits import Limits, MediaError
from share4video.media.probe import probe
from share4video.media.sources import SourceFile, list_sources

TRIES = 5  # files that are looked at for one clip


@dataclass(frozen=True)
class PreviewCall:
    """One call as it was made.

    Attributes:
        seconds: from sending it to its answer, retries included.
        failed: codes of the checks its answer failed.
    """

    key: str
    engine: str
    request: ChatRequest
    outcome: Outcome
    seconds: float
    failed: tuple[str, ...]


@dataclass(frozen=True)
class PreviewClip:
    """A clip and all that was asked and answered of it; ``rejection`` is empty where a run would keep it."""

    uri: str
    duration_s: float
    frames: tuple[KeyFrame, ...]
    calls: tuple[PreviewCall, ...]
    captions: Mapping[str, Caption]
    rejection: str


@dataclass(frozen=True)
class Preview:
    """What came of it; ``passed_over`` are files that a run would not caption either, with the reason."""

    clips: tuple[PreviewClip, ...]
    passed_over: tuple[tuple[str, str], ...]
    files: int
    captioner: EngineSpec
    summarizer: EngineSpec


@dataclass(frozen=True)
class _Chosen:
    uri: str
    duration_s: float
    frames: tuple[KeyFrame, ...]


def preview(
    source: str, config: RunConfig, clips: int, *, on_clip: Callable[[int, int], None] | None = None
) -> Preview:
    """Caption a spread of the source's clips as a run with this configuration would.

    The rows are cut into as many parts by name as clips are wanted, and of each part the clip nearest to its
    middle is taken that a run would keep, so the choice is the same every time. A file is one clip, also
    where a run would split it into scenes.

    Args:
        source: as `share4video.media.sources.join_sources` writes it.
        on_clip: called with (clips done, clips chosen).

    Raises:
        UserError: the source cannot be read, none of the files is one to caption, the models know only
            synthetic clips, or an engine does not start or refuses the key.
    """
    captioner = resolve(config.engines.captioner)
    summarizer = resolve(config.engines.summarizer) if config.engines.summarizer else captioner
    domain = engine_domain(captioner)
    refuse_mixed(domain, engine_domain(summarizer), names=(captioner.model, summarizer.model))
    derived = DerivedPlan.of(config.caption, summarizer)  # refuses roles the prompts lack
    rows = list_sources(source, allow=config.probe.allow, limit=config.probe.limit, shard=config.probe.part)
    chosen, passed_over = _choose(rows, clips, config, domain, captioner.model)
    plan = CaptionPlan.of(config.caption, captioner, summarizer)
    talks = [DerivedConversation(ClipConversation(clip.uri, clip.frames, plan), derived) for clip in chosen]
    with connect_all([captioner, summarizer]) as endpoints:
        work = _converse(talks, dict(zip((CAPTIONER, SUMMARIZER), endpoints, strict=True)), on_clip)
        try:
            calls = asyncio.run(work)
        except BaseExceptionGroup as group:
            raise user_error_in(group) or group from None
    shown = (_shown(*one) for one in zip(chosen, talks, calls, strict=True))
    return Preview(tuple(shown), tuple(passed_over), len(rows), captioner, summarizer)


def _choose(
    rows: Sequence[SourceFile], wanted: int, config: RunConfig, domain: Domain, model: str
) -> tuple[list[_Chosen], list[tuple[str, str]]]:
    chosen: list[_Chosen] = []
    passed_over: list[tuple[str, str]] = []
    parts = min(wanted, len(rows))
    for part in range(parts):
        first, end = len(rows) * part // parts, len(rows) * (part + 1) // parts
        middle = (first + end - 1) / 2
        nearest = sorted(range(first, end), key=lambda index: (abs(index - middle), index))
        for index in nearest[:TRIES]:
            try:
                chosen.append(_look_at(rows[index], config, domain, model))
            except MediaError as error:
                passed_over.append((rows[index].uri, error.sentence))
            else:
                break
    if not chosen:
        uri, why = passed_over[0]
        raise UserError(
            f"none of the {len(passed_over)} files that were looked at is one to caption: {why}",
            where=uri,
            fix="give other clips, or change the settings under probe",
        )
    return chosen, passed_over


def _look_at(row: SourceFile, config: RunConfig, domain: Domain, model: str) -> _Chosen:
    """Return a file's key frames. Raises MediaError where it is none that a run would caption."""
    scan = config.probe
    content = row.content_hash(max_bytes=scan.max_file_bytes)
    with row.opened(content) as path:
        clip = probe(
            path,
            limits=Limits(wall_s=scan.decode_timeout_s, max_pixels=scan.max_pixels),
            max_file_bytes=scan.max_file_bytes,
            decode_up_to_s=scan.scan_up_to_s,
            known_hash=content,
        )
        rejection = judge(clip, scan.without("min_aesthetic"))
        if rejection is not None:
            raise MediaError(rejection.reason, rejection.sentence)
        samples = sample(path, 0.0, clip.duration_s, config.keyframes)
        refuse_foreign_clip(domain, samples.pictures, model=model, where=row.uri)
        return _Chosen(row.uri, clip.duration_s, tuple(key_frames(samples, config.keyframes)))


async def _converse(
    talks: Sequence[DerivedConversation],
    endpoints: Mapping[str, Endpoint],
    on_clip: Callable[[int, int], None] | None,
) -> list[list[PreviewCall]]:
    """Carry all conversations through, side by side, and return the calls of each."""
    done = 0
    # As many at a time as the engines take: then a call's seconds are the engine's, not those of a queue.
    slots = asyncio.Semaphore(min(endpoint.spec.max_in_flight for endpoint in endpoints.values()))

    async def carry(talk: DerivedConversation, clients: Mapping[str, ChatClient]) -> list[PreviewCall]:
        nonlocal done
        calls = []
        while (call := talk.next()) is not None:
            request = await asyncio.to_thread(call.build)
            async with slots:
                started = time.monotonic()
                outcome = await _ask(clients[call.engine], request)
                seconds = time.monotonic() - started
            failed = _failed(talk, call, outcome, endpoints[call.engine].spec)
            calls.append(PreviewCall(call.key, call.engine, request, outcome, seconds, failed))
            talk.take(call, outcome)
        done += 1
        if on_clip is not None:
            on_clip(done, len(talks))
        return calls

    async with AsyncExitStack() as stack:
        clients = {
            role: await stack.enter_async_context(ChatClient(endpoint))
            for role, endpoint in endpoints.items()
        }
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(carry(talk, clients)) for talk in talks]
    return [task.result() for task in tasks]


async def _ask(client: ChatClient, request: ChatRequest) -> Outcome:
    try:
        return await client.ask(request)
    except CallError as error:
        return error.bare()


def _failed(talk: DerivedConversation, call: Call, outcome: Outcome, spec: EngineSpec) -> tuple[str, ...]:
    if not isinstance(outcome, Completion):
        return ()
    if (role := talk.derived_role(call)) is not None:
        return talk.checked(role, outcome).failed
    caption = checked(outcome, spec.wording)
    return caption.failed if isinstance(caption, Caption) else ()


def _shown(clip: _Chosen, talk: DerivedConversation, calls: Sequence[PreviewCall]) -> PreviewClip:
    chain = talk.chain
    captions: dict[str, Caption] = {f"frame {d.frame + 1}": d.caption for d in chain.differentials}
    whole = {"fast": chain.fast, "summary": chain.summary}
    captions |= {role: caption for role, caption in whole.items() if caption is not None}
    captions |= {str(role): caption for role, caption in talk.captions.items()}
    rejection = chain.rejection.sentence if chain.rejection else ""
    return PreviewClip(clip.uri, clip.duration_s, clip.frames, tuple(calls), captions, rejection)
