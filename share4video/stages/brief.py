"""The brief stage: one sentence per clip from a few uniform frames, and its embedding (paper section 3.1).

The sentences are what de-duplication compares; the paper used Panda-Student and BERT here.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from share4video.captioning.client import ChatClient, Endpoint, Outcome
from share4video.captioning.conversations import CAPTIONER, BriefConversation
from share4video.captioning.differential import CAPTION_FAILED, Caption
from share4video.captioning.domain_guard import REAL_MODELS, Domain, engine_domain, refuse_foreign_clip
from share4video.captioning.engine import connect, identity, resolve
from share4video.captioning.journal import Journal, open_journal
from share4video.captioning.roles import KeyFrame, prompt_version
from share4video.captioning.scheduler import Call, Conversation, Job, converse
from share4video.captioning.sharecaptioner import encode_jpeg
from share4video.config import BriefConfig, EngineSpec
from share4video.curation.encoders import TextEncoder, text_encoder
from share4video.dataset.manifest import StageRef
from share4video.dataset.shards import ShardSet, read_table, table_from_rows
from share4video.errors import UserError
from share4video.media import decode
from share4video.media.limits import MediaError
from share4video.media.sources import clip_file
from share4video.stages.clip_frames import media_reject
from share4video.stages.contract import StageResult
from share4video.store import Store

STAGE = "brief"
VERSION = "1"
FOREIGN_CLIP = "foreign_clip"
MAX_SIDE = 1024  # pixels of a frame; four of them make a grid of at most twice that

Row = Mapping[str, Any]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class BriefInputs:
    """The clips, the sources they were found in, and who captions them."""

    clips: StageRef
    source: str
    engine: EngineSpec


def run_stage(
    inputs: BriefInputs, config: BriefConfig, store: Store, *, progress: Progress | None = None
) -> StageResult:
    """Publish ``brief_captions`` and ``rejects``.

    Rejected are clips that cannot be decoded (the decoder's reason), that the engine has no sentence for
    (``caption_failed``), and that an engine for synthetic clips does not know (``foreign_clip``).

    Raises:
        UserError: the engine does not start, stops answering or refuses every request, the text encoder is
            unknown, the engine knows only synthetic clips and there is not one, or the source does not hold a
            clip as it was probed.
    """
    encoder = text_encoder(config.embedder)
    engine = resolve(inputs.engine)
    output = ShardSet(
        store,
        STAGE,
        VERSION,
        inputs=[inputs.clips.content_hash],
        config=config,
        identity={
            "engine": identity(engine),
            "prompts": prompt_version(engine.dialect),
            "embedder": encoder.revision,
        },
    )
    computed = 0
    if (manifest := output.published()) is None:
        with output.writing(0) as committed, open_journal(store.url(f"{output.prefix}/00000")) as journal:
            if committed is None:
                clips = read_table(store, inputs.clips, "clips").sort_by("clip_id").to_pylist()
                results = _describe(clips, inputs.source, engine, config, journal, progress)
                _commit(output, clips, results, encoder)
                computed = 1
            journal.remove()
        manifest = output.publish(1)
    return StageResult.from_manifest(manifest, computed_shards=computed, total_shards=1)


def _describe(
    clips: Sequence[Row],
    source: str,
    engine: EngineSpec,
    config: BriefConfig,
    journal: Journal,
    progress: Progress | None,
) -> dict[str, Caption | MediaError]:
    """Return each clip's sentence, or why it has none, by clip id."""
    domain = engine_domain(engine)
    results: dict[str, Caption | MediaError] = {}

    def open_clip(clip: Row) -> Conversation:
        try:
            frames = _frames(clip, source, config.frames, domain, engine.model)
        except MediaError as error:
            return _Refused(error)
        return BriefConversation(clip["clip_id"], frames, engine.dialect, config.max_tokens)

    def done(clip_id: str, conversation: Conversation) -> None:
        results[clip_id] = _result(conversation)
        if progress is not None:
            progress("clips", len(results), len(clips))

    async def run(endpoint: Endpoint) -> None:
        jobs = [Job(clip["clip_id"], 1, partial(open_clip, clip)) for clip in clips]
        async with ChatClient(endpoint) as client:
            await converse(jobs, {CAPTIONER: client}, journal, done)

    with connect(engine) as endpoint:
        asyncio.run(run(endpoint))
    foreign = [r for r in results.values() if isinstance(r, MediaError) and r.reason == FOREIGN_CLIP]
    if foreign and len(foreign) == len(results):
        raise UserError(foreign[0].sentence, where="every clip", fix=REAL_MODELS)
    return results


def _frames(clip: Row, source: str, count: int, domain: Domain, model: str) -> list[KeyFrame]:
    """Decode a clip's uniform frames.

    Raises:
        MediaError: they cannot be decoded, or are not for this model.
        UserError: the source does not hold the clip as it was probed.
    """
    with clip_file(source, clip) as path:
        frames = decode.uniform_frames(path, count, clip["start_s"], clip["end_s"], max_side=MAX_SIDE)
    try:
        refuse_foreign_clip(domain, [frame.rgb for frame in frames], model=model)
    except UserError as error:
        raise MediaError(FOREIGN_CLIP, error.what) from error
    return [KeyFrame(n, frame.timestamp_s, encode_jpeg(frame.image)) for n, frame in enumerate(frames, 1)]


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
    clips: Sequence[Row],
    results: Mapping[str, Caption | MediaError],
    encoder: TextEncoder,
) -> None:
    captions = {
        clip["clip_id"]: result for clip in clips if isinstance(result := results[clip["clip_id"]], Caption)
    }
    vectors = encoder.encode([caption.text for caption in captions.values()])
    rows = [
        {"clip_id": clip_id, "caption": caption.text, "embedding": vector.tolist()}
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
    output.commit(0, tables, counts)
