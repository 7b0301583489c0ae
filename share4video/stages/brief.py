"""The brief stage: one sentence per clip from a few uniform frames, and its embedding (paper section 3.1).

The sentences are what de-duplication compares; the paper used Panda-Student and BERT here. Wide: a shard is a
part of the clips. Captions do not depend on the division; the embeddings of a neural text model, which pads a
batch to its longest text, may in their last bits.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from share4video.captioning.client import ChatClient, Endpoint, Outcome
from share4video.captioning.conversations import CAPTIONER, BriefConversation
from share4video.captioning.differential import CAPTION_FAILED, Caption
from share4video.captioning.domain_guard import REAL_MODELS, Domain, engine_domain, refuse_foreign_clip
from share4video.captioning.engine import connect, identity, resolve
from share4video.captioning.journal import Journal, open_journal
from share4video.captioning.roles import KeyFrame, prompt_version
from share4video.captioning.scheduler import Call, Conversation, Finished, converse
from share4video.captioning.sharecaptioner import encode_jpeg
from share4video.config import BriefConfig, EngineSpec
from share4video.curation.encoders import TextEncoder, text_encoder
from share4video.dataset.manifest import StageRef
from share4video.dataset.shards import ShardSet, read_table, table_from_rows
from share4video.errors import UserError
from share4video.media import decode
from share4video.media.decode import Frame
from share4video.media.limits import FAILURES, MediaError
from share4video.media.sources import clip_file
from share4video.stages.clip_frames import media_reject, shift_metrics
from share4video.stages.contract import Progress, StageResult
from share4video.stages.dedup_inputs import kept_before
from share4video.stages.division import clips_by_shard
from share4video.stages.outcome import refuse_empty, refuse_failures
from share4video.store import Store

STAGE = "brief"
VERSION = "1"
FOREIGN_CLIP = "foreign_clip"
MAX_SIDE = 1024  # pixels of a frame; four of them make a grid of at most twice that

Row = Mapping[str, Any]


@dataclass(frozen=True)
class BriefInputs:
    """The clips, the sources they were found in, and who captions them.

    ``published`` is an earlier output of the dedup stage, or a dataset made from one, that the clips are
    added to: nothing is asked about what it and those before it kept, or hold.
    """

    clips: StageRef
    source: str
    engine: EngineSpec
    published: StageRef | None = None


def run_stage(
    inputs: BriefInputs, config: BriefConfig, store: Store, *, progress: Progress | None = None
) -> StageResult:
    """Publish ``brief_captions`` and ``rejects``.

    Where key frames stand for the frames, ``mean_shift_s`` and ``max_shift_s`` are told beside them: how many
    seconds the farthest picture of a clip lies from the moment it stands for, over all captioned clips.

    Rejected are clips that cannot be decoded (the decoder's reason), that the engine has no sentence for
    (``caption_failed``), that an engine for synthetic clips does not know (``foreign_clip``), and that are
    published already (``exact_duplicate``).

    Raises:
        UserError: the engine does not start, stops answering or refuses every request, the text encoder is
            unknown, the engine knows only synthetic clips and there is not one, or the source does not hold a
            clip as it was probed.
    """
    inputs = replace(inputs, engine=resolve(inputs.engine))
    output = _output(inputs, config, store)
    shards = plan(inputs, config, store)
    computed = 0
    if output.published() is None:
        pending = [shard for shard in shards if output.committed(shard) is None]
        if pending:
            with connect(inputs.engine) as endpoint:
                for shard in pending:
                    computed += _run_shard(inputs, config, store, shard, endpoint, progress)
    return _finished(output, config, len(shards), computed)


def plan(inputs: BriefInputs, config: BriefConfig, store: Store) -> list[int]:
    """Return the shards to run; at least one, also for no clips."""
    return list(range(len(clips_by_shard(store, inputs.clips, config.shards))))


def run_shard(
    inputs: BriefInputs,
    config: BriefConfig,
    store: Store,
    shard: int,
    *,
    progress: Progress | None = None,
) -> bool:
    """Caption one shard's clips and commit it; return whether there was anything to do.

    Raises:
        UserError: as `run_stage` does.
    """
    inputs = replace(inputs, engine=resolve(inputs.engine))
    if _output(inputs, config, store).committed(shard) is not None:
        return False
    with connect(inputs.engine) as endpoint:
        return _run_shard(inputs, config, store, shard, endpoint, progress)


def finish(inputs: BriefInputs, config: BriefConfig, store: Store) -> StageResult:
    """Publish the output once every shard is committed; which of them this run did is not known here.

    Raises:
        UserError: the engine knows only synthetic clips and there is not one.
        RuntimeError: a shard is not committed.
    """
    output = _output(replace(inputs, engine=resolve(inputs.engine)), config, store)
    shards = len(plan(inputs, config, store))
    return _finished(output, config, shards, 0 if output.published() else None)


def _output(inputs: BriefInputs, config: BriefConfig, store: Store) -> ShardSet:
    encoder = text_encoder(config.embedder)
    return ShardSet(
        store,
        STAGE,
        VERSION,
        inputs=[ref.content_hash for ref in (inputs.clips, inputs.published) if ref is not None],
        config=config.without("max_failed_share").model_copy(
            update={"embedder": encoder.name, "checks": config.checks.of_text()}
        ),
        identity={
            "engine": identity(inputs.engine),
            "prompts": prompt_version(inputs.engine.wording),
            "embedder": encoder.revision,
        },
    )


def _finished(output: ShardSet, config: BriefConfig, shards: int, computed: int | None) -> StageResult:
    manifest = output.published() or output.publish(shards)
    result = StageResult.from_manifest(manifest, computed_shards=computed, total_shards=shards)
    if result.rows_in and result.rejects == {FOREIGN_CLIP: result.rows_in}:
        sentence = read_table(output.store, result.ref, "rejects")["sentence"][0].as_py()
        raise UserError(sentence, where="every clip", fix=REAL_MODELS)
    if "exact_duplicate" not in result.rejects:  # what is added to others may all be there already
        refuse_empty(result, output.store, where=STAGE)
    refuse_failures(
        result,
        output.store,
        max_share=config.max_failed_share,
        setting="brief.max_failed_share",
        where=STAGE,
        failures=FAILURES | {CAPTION_FAILED},
    )
    if result.rows_out and config.decode != "exact":
        shifts_s = read_table(output.store, result.ref, "brief_captions", columns=["shift_s"])
        result = replace(result, metrics={**result.metrics, **shift_metrics(shifts_s["shift_s"].to_pylist())})
    return result


def _run_shard(
    inputs: BriefInputs,
    config: BriefConfig,
    store: Store,
    shard: int,
    endpoint: Endpoint,
    progress: Progress | None,
) -> bool:
    """Caption and commit one shard; return False where another process had done it meanwhile."""
    output = _output(inputs, config, store)
    with output.writing(shard) as committed:
        if committed is not None:
            return False
        clips = clips_by_shard(store, inputs.clips, config.shards)[shard]
        with open_journal(store.url(f"{output.prefix}/{shard:05d}")) as journal:
            results, shifts_s = asyncio.run(
                _describe(clips, inputs, config, store, endpoint, journal, progress)
            )
            _commit(output, shard, clips, results, shifts_s, text_encoder(config.embedder))
            journal.remove()
    return True


async def _describe(
    clips: Sequence[Row],
    inputs: BriefInputs,
    config: BriefConfig,
    store: Store,
    endpoint: Endpoint,
    journal: Journal,
    progress: Progress | None,
) -> tuple[dict[str, Caption | MediaError], dict[str, float]]:
    """Return each clip's sentence, or why it has none, and its frames' longest shift in seconds, by clip."""
    engine = inputs.engine
    domain = engine_domain(engine)
    kept = kept_before(store, inputs.published)
    results: dict[str, Caption | MediaError] = {}
    shifts_s: dict[str, float] = {}

    def open_clip(clip: Row) -> Conversation:
        if clip["clip_id"] in kept:
            return _Refused(MediaError("exact_duplicate", "the same content as a published clip"))
        try:
            frames = _frames(clip, inputs.source, config, domain, engine.model)
        except MediaError as error:
            return _Refused(error)
        if config.decode != "exact":
            shifts_s[clip["clip_id"]] = max(abs(frame.shift_s) for frame in frames)
        shown = [
            KeyFrame(n, frame.timestamp_s, encode_jpeg(frame.image)) for n, frame in enumerate(frames, 1)
        ]
        return BriefConversation(clip["clip_id"], shown, engine.wording, config.max_tokens, config.checks)

    def done(finished: Finished) -> None:
        results[clips[finished.number]["clip_id"]] = _result(finished.conversation)
        if progress is not None:
            progress("clips", len(results), len(clips))

    async with ChatClient(endpoint) as client:
        await converse(_ClipJobs(clips, open_clip), {CAPTIONER: client}, journal, done)
    return results, shifts_s


class _ClipJobs:
    """Clips as conversations of one call."""

    def __init__(self, clips: Sequence[Row], open_clip: Callable[[Row], Conversation]) -> None:
        self.weights = np.ones(len(clips), np.int32)
        self._clips, self._open_clip = clips, open_clip

    def open(self, number: int) -> tuple[str, Conversation]:
        clip = self._clips[number]
        return clip["clip_id"], self._open_clip(clip)


def _frames(clip: Row, source: str, config: BriefConfig, domain: Domain, model: str) -> list[Frame]:
    """Decode a clip's uniform frames.

    Raises:
        MediaError: they cannot be decoded, or are not for this model.
        UserError: the source does not hold the clip as it was probed.
    """
    span_s = clip["start_s"], clip["end_s"]
    with clip_file(source, clip) as path:
        frames = decode.uniform_frames(path, config.frames, *span_s, max_side=MAX_SIDE, mode=config.decode)
    try:
        refuse_foreign_clip(domain, [frame.rgb for frame in frames], model=model)
    except UserError as error:
        raise MediaError(FOREIGN_CLIP, error.what) from error
    return frames


class _Refused:
    """A conversation that is over before it began."""

    calls_left = 0

    def __init__(self, error: MediaError) -> None:
        self.error = error

    def next(self) -> Call | None:
        return None

    def take(self, call: Call, outcome: Outcome) -> None:
        raise AssertionError("nothing was asked")


def _result(conversation: Conversation) -> Caption | MediaError:
    if isinstance(conversation, _Refused):
        return conversation.error
    assert isinstance(conversation, BriefConversation)
    if isinstance(conversation.result, Caption):
        return conversation.result
    assert conversation.result is not None
    return MediaError(CAPTION_FAILED, conversation.result.sentence)


def _commit(
    output: ShardSet,
    shard: int,
    clips: Sequence[Row],
    results: Mapping[str, Caption | MediaError],
    shifts_s: Mapping[str, float],
    encoder: TextEncoder,
) -> None:
    captions = {
        clip["clip_id"]: result for clip in clips if isinstance(result := results[clip["clip_id"]], Caption)
    }
    vectors = encoder.encode([caption.text for caption in captions.values()])
    rows = [
        {
            "clip_id": clip_id,
            "caption": caption.text,
            "embedding": vector.tolist(),
            "shift_s": shifts_s.get(clip_id),
        }
        for (clip_id, caption), vector in zip(captions.items(), vectors, strict=True)
    ]
    rejects = [
        media_reject(clip, STAGE, result)
        for clip in clips
        if isinstance(result := results[clip["clip_id"]], MediaError)
    ]
    reasons = Counter(reject["reason"] for reject in rejects)
    counts = {
        "rows_in": len(clips),
        "rows_out": len(rows),
        "metric:flagged_captions": sum(bool(caption.failed) for caption in captions.values()),
        **{f"reject:{reason}": number for reason, number in sorted(reasons.items())},
    }
    tables = {
        "brief_captions": table_from_rows("brief_captions", rows),
        "rejects": table_from_rows("rejects", rejects),
    }
    output.commit(shard, tables, counts)
