"""The caption stage: differential captions of every key frame, and a summary of every clip.

Wide: a caption shard reads one part of the key frames, or one share of a part, and nothing else of them.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from share4video.captioning.client import ChatClient, Endpoint
from share4video.captioning.conversations import CAPTIONER, SUMMARIZER, CaptionPlan, ClipConversation
from share4video.captioning.differential import Chain
from share4video.captioning.domain_guard import engine_domain, refuse_mixed
from share4video.captioning.engine import connect_all, identity, resolve
from share4video.captioning.journal import Journal, open_journal
from share4video.captioning.judge import JUDGE
from share4video.captioning.judge import VERSION as JUDGE_PROMPTS
from share4video.captioning.roles import KeyFrame, prompt_version
from share4video.captioning.scheduler import Conversation, Job, converse
from share4video.config import CaptionConfig, ChecksConfig, EngineSpec
from share4video.dataset.manifest import Manifest, StageRef
from share4video.dataset.shards import ShardSet, load_manifest, read_table
from share4video.stages.caption_judge import judge_clips, judge_metrics, judgement_counts, judgement_table
from share4video.stages.caption_rows import CaptionRows
from share4video.stages.contract import Progress, StageResult
from share4video.stages.division import divide
from share4video.store import Store

if TYPE_CHECKING:
    from share4video.curation.frame_text import FrameTextScores

STAGE = "caption"
VERSION = "1"

Row = Mapping[str, Any]


@dataclass(frozen=True)
class CaptionInputs:
    """The kept clips, their key frames, and who captions them.

    The captioner summarises where there is no ``summarizer``.
    """

    clips: StageRef
    keyframes: StageRef
    captioner: EngineSpec
    summarizer: EngineSpec | None = None


def run_stage(
    inputs: CaptionInputs, config: CaptionConfig, store: Store, *, progress: Progress | None = None
) -> StageResult:
    """Publish ``differentials``, ``captions`` (roles summary and, where asked for, fast) and ``rejects``.

    Rows are clips that have key frames; a clip without sound captions is a reject, ``caption_failed``. Where
    there is a judge, ``judgements`` has a row for each of its clips that was captioned.

    Raises:
        UserError: an engine does not start, refuses the key or every request, or stops answering, or one of
            the two knows only synthetic clips.
    """
    inputs = _resolved(inputs)
    output = _output(inputs, config, store)
    shards = plan(inputs, config, store)
    computed = 0
    if output.published() is None:
        pending = [shard for shard in shards if output.committed(shard) is None]
        if pending:
            with _connected(inputs, config) as engines:
                for shard in pending:
                    computed += _run_shard(inputs, config, store, shard, engines, progress)
    return _finished(output, shards, computed)


def plan(inputs: CaptionInputs, config: CaptionConfig, store: Store) -> list[int]:
    """Return the shards to run: as many as configured, at least one per part of the key frames."""
    parts = _parts(load_manifest(store, inputs.keyframes))
    return list(range(max(1, len(parts), config.shards)))


def run_shard(
    inputs: CaptionInputs,
    config: CaptionConfig,
    store: Store,
    shard: int,
    *,
    progress: Progress | None = None,
) -> bool:
    """Caption one shard's clips and commit it; return whether there was anything to do.

    Raises:
        UserError: as `run_stage` does.
    """
    inputs = _resolved(inputs)
    if _output(inputs, config, store).committed(shard) is not None:
        return False
    with _connected(inputs, config) as engines:
        return _run_shard(inputs, config, store, shard, engines, progress)


def finish(inputs: CaptionInputs, config: CaptionConfig, store: Store) -> StageResult:
    """Publish the output once every shard is committed; which of them this run did is not known here."""
    inputs = _resolved(inputs)
    output, shards = _output(inputs, config, store), plan(inputs, config, store)
    return _finished(output, shards, 0 if output.published() else None)


def _resolved(inputs: CaptionInputs) -> CaptionInputs:
    """Name the engines' models and revisions once, so that a shard cannot see another model than the key."""
    captioner = resolve(inputs.captioner)
    summarizer = resolve(inputs.summarizer) if inputs.summarizer else None
    if summarizer is not None:
        names = (captioner.model, summarizer.model)
        refuse_mixed(engine_domain(captioner), engine_domain(summarizer), names=names)
    return replace(inputs, captioner=captioner, summarizer=summarizer)


def _output(inputs: CaptionInputs, config: CaptionConfig, store: Store) -> ShardSet:
    summarizer = inputs.summarizer or inputs.captioner
    engines = {"captioner": inputs.captioner, "summarizer": summarizer}
    return ShardSet(
        store,
        STAGE,
        VERSION,
        inputs=[inputs.clips.content_hash, inputs.keyframes.content_hash],
        config=config.model_copy(update={"checks": config.checks.without("judge", "frame_text_encoder")}),
        identity={
            **{role: identity(spec) for role, spec in engines.items()},
            **{f"{role}_prompts": prompt_version(spec.dialect) for role, spec in engines.items()},
            **_identity_of_checks(config.checks),
        },
    )


def _identity_of_checks(checks: ChecksConfig) -> dict[str, str]:
    """Name the models that captions are held against; where they are says nothing about what they say."""
    named = {}
    if (frame_text := _frame_text(checks)) is not None:
        named["frame_text"] = frame_text.identity
    if checks.judge is not None:
        named |= {"judge": identity(checks.judge), "judge_prompts": JUDGE_PROMPTS}
    return named


def _frame_text(checks: ChecksConfig) -> FrameTextScores | None:
    if checks.frame_text_encoder is None:
        return None
    from share4video.curation.frame_text import frame_text_scores

    return frame_text_scores(checks.frame_text_encoder)


@contextmanager
def _connected(inputs: CaptionInputs, config: CaptionConfig) -> Iterator[dict[str, Endpoint]]:
    engines = {CAPTIONER: inputs.captioner, SUMMARIZER: inputs.summarizer or inputs.captioner}
    if config.checks.judge is not None:
        engines[JUDGE] = resolve(config.checks.judge)
    with connect_all(list(engines.values())) as endpoints:
        yield dict(zip(engines, endpoints, strict=True))


def _finished(output: ShardSet, shards: Sequence[int], computed: int | None) -> StageResult:
    manifest = output.published() or output.publish(len(shards))
    result = StageResult.from_manifest(manifest, computed_shards=computed, total_shards=len(shards))
    if "judged" not in result.metrics:
        return result
    rated = judge_metrics(read_table(output.store, result.ref, "judgements"))
    return replace(result, metrics={**result.metrics, **rated})


def _run_shard(
    inputs: CaptionInputs,
    config: CaptionConfig,
    store: Store,
    shard: int,
    endpoints: Mapping[str, Endpoint],
    progress: Progress | None,
) -> bool:
    """Caption and commit one shard; return False where another process had done it meanwhile."""
    output = _output(inputs, config, store)
    with output.writing(shard) as committed:
        if committed is not None:
            return False
        clips = _clips_of(inputs, config, store, shard)
        with open_journal(store.url(f"{output.prefix}/{shard:05d}")) as journal:
            chains = asyncio.run(_caption(clips, inputs, config, endpoints, journal, progress))
            rows = CaptionRows(STAGE, inputs.captioner, inputs.summarizer or inputs.captioner)
            for clip in clips:
                rows.add(clip.row, chains[clip.id])
            tables, counts = rows.tables(), rows.counts()
            if JUDGE in endpoints:
                frames, share = {clip.id: clip.frames for clip in clips}, config.checks.judge_share
                judged = asyncio.run(judge_clips(frames, chains, share, endpoints[JUDGE], journal))
                tables["judgements"] = judgement_table(judged)
                counts |= judgement_counts(judged)
            output.commit(shard, tables, counts)
            journal.remove()
    return True


async def _caption(
    clips: Sequence[_Clip],
    inputs: CaptionInputs,
    config: CaptionConfig,
    endpoints: Mapping[str, Endpoint],
    journal: Journal,
    progress: Progress | None,
) -> dict[str, Chain]:
    captions = CaptionPlan.of(config, inputs.captioner, inputs.summarizer)
    frame_text = _frame_text(config.checks)
    chains: dict[str, Chain] = {}

    def done(clip_id: str, conversation: Conversation) -> None:
        assert isinstance(conversation, ClipConversation)
        chains[clip_id] = conversation.chain
        if progress is not None:
            progress("clips", len(chains), len(clips))

    jobs = [
        Job(
            clip.id,
            len(clip.frames) + 1,
            partial(ClipConversation, clip.id, clip.frames, captions, frame_text),
        )
        for clip in clips
    ]
    async with AsyncExitStack() as stack:
        by_endpoint = {
            endpoint: await stack.enter_async_context(ChatClient(endpoint))
            for endpoint in dict.fromkeys(endpoints[role] for role in (CAPTIONER, SUMMARIZER))
        }
        clients = {role: by_endpoint[endpoints[role]] for role in (CAPTIONER, SUMMARIZER)}
        await converse(jobs, clients, journal, done)
    return chains


@dataclass(frozen=True)
class _Clip:
    """A clip's row, and its key frames in order of time."""

    row: Row
    frames: tuple[KeyFrame, ...]

    @property
    def id(self) -> str:
        return str(self.row["clip_id"])


def _clips_of(inputs: CaptionInputs, config: CaptionConfig, store: Store, shard: int) -> list[_Clip]:
    """Read one shard's clips. Parts of the key frames are cut into equal shares by number of key frames."""
    parts = _parts(load_manifest(store, inputs.keyframes))
    if not parts:
        return []
    shards = max(len(parts), config.shards)
    part, share = parts[shard % len(parts)], shard // len(parts)
    shares = len(range(shard % len(parts), shards, len(parts)))
    frames: dict[str, list[Row]] = defaultdict(list)
    for row in read_table(store, inputs.keyframes, "keyframes", shard=part).to_pylist():
        frames[row["clip_id"]].append(row)
    clip_ids = sorted(frames)
    groups = divide([len(frames[clip_id]) for clip_id in clip_ids], shares)
    mine = {clip_ids[number] for number in groups[share]} if share < len(groups) else set()
    clips = read_table(store, inputs.clips, "clips").sort_by("clip_id").to_pylist()
    return [_Clip(row, _key_frames(frames[row["clip_id"]])) for row in clips if row["clip_id"] in mine]


def _parts(keyframes: Manifest) -> list[int]:
    return sorted(part.shard for part in keyframes.parts if part.table == "keyframes")


def _key_frames(rows: Sequence[Row]) -> tuple[KeyFrame, ...]:
    ordered = sorted(rows, key=lambda row: row["index"])
    return tuple(KeyFrame(number, row["timestamp_s"], row["jpeg"]) for number, row in enumerate(ordered, 1))
