"""The caption stage: differential captions of every key frame, and a summary of every clip.

Wide: a caption shard reads one part of the key frames, or one share of a part, and nothing else of them.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice

import pyarrow as pa

from share4video.captioning.client import Endpoint
from share4video.captioning.conversations import CAPTIONER, SUMMARIZER
from share4video.captioning.derived import DerivedPlan
from share4video.captioning.domain_guard import engine_domain, refuse_mixed
from share4video.captioning.engine import connect_all, identity, resolve
from share4video.captioning.journal import open_journal
from share4video.captioning.judge import JUDGE
from share4video.captioning.judge import version as judge_version
from share4video.captioning.roles import prompt_version
from share4video.captioning.spending import Budget, Spending
from share4video.config import CaptionConfig, ChecksConfig, EngineSpec
from share4video.curation.keyframes import cut_bound
from share4video.dataset.manifest import Manifest, Part, StageRef
from share4video.dataset.shards import ShardSet, load_manifest, read_table
from share4video.planning.usage import Usage, record_usage
from share4video.stages.caption_jobs import ClipJobs, caption_clips, frame_text_of
from share4video.stages.caption_judge import judge_clips, judge_metrics, judgement_counts, judgement_table
from share4video.stages.caption_rows import CaptionRows
from share4video.stages.caption_rows_published import PublishedCaptions, published_clips
from share4video.stages.caption_spool import ClipSpool, clip_spool
from share4video.stages.contract import Progress, StageResult
from share4video.store import Store

STAGE = "caption"
VERSION = "1"
CLIPS_AT_ONCE = 256  # as rows in memory, before they are put into tables


@dataclass(frozen=True)
class CaptionInputs:
    """The kept clips, their key frames, and who captions them.

    The captioner summarises where there is no ``summarizer``. Captions of clips that are in ``published``, a
    dataset, are taken over from there.
    """

    clips: StageRef
    keyframes: StageRef
    captioner: EngineSpec
    summarizer: EngineSpec | None = None
    published: StageRef | None = None


def run_stage(
    inputs: CaptionInputs, config: CaptionConfig, store: Store, *, progress: Progress | None = None
) -> StageResult:
    """Publish ``differentials``, ``captions`` (role summary; others, if any) and ``rejects``.

    Rows are clips that have key frames; a clip without sound captions is a reject, ``caption_failed``. Where
    there is a judge, ``judgements`` has a row for each of its clips that was captioned. Metrics tell the
    tokens of all answers, by who gave them, and their ``cost`` where there are prices.

    Raises:
        UserError: an engine does not start, refuses the key or every request, or stops answering, one of the
            two knows only synthetic clips, the summarizer's prompts lack a role that is asked for, or the
            budget is spent.
    """
    inputs = _resolved(inputs)
    DerivedPlan.of(config, inputs.summarizer or inputs.captioner)  # before a server is started
    output = _output(inputs, config, store)
    shards = plan(inputs, config, store)
    computed = 0
    if output.published() is None:
        pending = [shard for shard in shards if output.committed(shard) is None]
        if pending:
            with _connected(inputs, config) as engines:
                for shard in pending:
                    computed += _run_shard(output, inputs, config, shard, engines, progress, alone=True)
    return _finished(output, inputs, config, shards, computed)


def plan(inputs: CaptionInputs, config: CaptionConfig, store: Store) -> list[int]:
    """Return the shards to run: as many as configured, at least one per part of the key frames."""
    return _shards(config, load_manifest(store, inputs.keyframes))


def _shards(config: CaptionConfig, keyframes: Manifest) -> list[int]:
    return list(range(max(1, len(_parts(keyframes)), config.shards)))


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
    output = _output(inputs, config, store)
    if output.committed(shard) is not None:
        return False
    with _connected(inputs, config) as engines:
        return _run_shard(output, inputs, config, shard, engines, progress, alone=False)


def finish(inputs: CaptionInputs, config: CaptionConfig, store: Store) -> StageResult:
    """Publish the output once every shard is committed; which of them this run did is not known here."""
    inputs = _resolved(inputs)
    output, shards = _output(inputs, config, store), plan(inputs, config, store)
    return _finished(output, inputs, config, shards, 0 if output.published() else None)


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
    schema = {"structured_by": "json_schema"} if config.structured and summarizer.json_schema else {}
    cuts = _cut_threshold(config, load_manifest(store, inputs.keyframes))
    return ShardSet(
        store,
        STAGE,
        VERSION,
        inputs=[
            ref.content_hash for ref in (inputs.clips, inputs.keyframes, inputs.published) if ref is not None
        ],
        config=config.without("max_cost", "max_tokens_total").model_copy(
            update={"checks": config.checks.without("judge", "frame_text_encoder")}
        ),
        identity={
            **{role: identity(spec) for role, spec in engines.items()},
            **{f"{role}_prompts": prompt_version(spec.wording) for role, spec in engines.items()},
            **({} if cuts is None else {"cut_threshold": f"{cuts:g}"}),
            **schema,
            **_identity_of_checks(config.checks),
        },
    )


def _cut_threshold(config: CaptionConfig, keyframes: Manifest) -> float | None:
    return cut_bound(config, keyframes.config.get("encoder"))


def _identity_of_checks(checks: ChecksConfig) -> dict[str, str]:
    """Name the models that captions are held against; where they are says nothing about what they say."""
    named = {}
    if (frame_text := frame_text_of(checks)) is not None:
        named["frame_text"] = frame_text.identity
    if checks.judge is not None:
        named |= {"judge": identity(checks.judge), "judge_prompts": judge_version(checks.judge)}
    return named


@contextmanager
def _connected(inputs: CaptionInputs, config: CaptionConfig) -> Iterator[dict[str, Endpoint]]:
    engines = _specs(inputs, config)
    with connect_all(list(engines.values())) as endpoints:
        yield dict(zip(engines, endpoints, strict=True))


def _finished(
    output: ShardSet,
    inputs: CaptionInputs,
    config: CaptionConfig,
    shards: Sequence[int],
    computed: int | None,
) -> StageResult:
    manifest = output.published() or output.publish(len(shards))
    result = StageResult.from_manifest(manifest, computed_shards=computed, total_shards=len(shards))
    specs = _specs(inputs, config)
    if any(spec.prompt_price or spec.completion_price for spec in specs.values()):
        cost = Spending.of_counts(manifest.counts).cost(specs)
        result = replace(result, metrics={**result.metrics, "cost": cost})
    if "judged" in result.metrics:
        rated = judge_metrics(read_table(output.store, result.ref, "judgements"))
        result = replace(result, metrics={**result.metrics, **rated})
    return result


def _run_shard(
    output: ShardSet,
    inputs: CaptionInputs,
    config: CaptionConfig,
    shard: int,
    endpoints: Mapping[str, Endpoint],
    progress: Progress | None,
    *,
    alone: bool,
) -> bool:
    """Caption and commit one shard; return False where another process had done it meanwhile.

    Clips wait on disk, and so do those that are finished. When the tables are written they are in memory
    once, as Arrow: all captions of the shard, and no pictures. ``alone`` says that shards come one by one.
    """
    store = output.store
    with output.writing(shard) as committed:
        if committed is not None:
            return False
        keyframes = load_manifest(store, inputs.keyframes)
        budget = _budget(output, inputs, config, keyframes, None if alone else shard)
        with (
            open_journal(store.url(f"{output.prefix}/{shard:05d}")) as journal,
            clip_spool(
                journal.path.with_suffix(".spool"),
                store,
                inputs.clips,
                inputs.keyframes,
                *_division(keyframes, config, shard),
                published=published_clips(store, inputs.published),
            ) as clips,
        ):
            engines, cuts = _specs(inputs, config), _cut_threshold(config, keyframes)
            jobs = ClipJobs(clips, engines[CAPTIONER], engines[SUMMARIZER], config, cuts)
            begun = time.monotonic()
            spent = asyncio.run(caption_clips(jobs, config, endpoints, journal, budget, progress))
            tables, counts = _tables(clips, inputs, store)
            if JUDGE in endpoints:
                share = config.checks.judge_share
                judged, paid = asyncio.run(judge_clips(clips, share, endpoints[JUDGE], journal, budget))
                spent.add_all(paid)
                tables["judgements"] = judgement_table(judged)
                counts |= judgement_counts(judged)
            output.commit(shard, tables, counts | spent.counts())
            journal.remove()
        seconds = time.monotonic() - begun
        record_usage(store, output.prefix, Usage(shard=shard, clips=len(jobs), seconds=seconds))
    return True


def _tables(
    clips: ClipSpool, inputs: CaptionInputs, store: Store
) -> tuple[dict[str, pa.Table], dict[str, float]]:
    """Return the shard's tables and counts: first what is new, then what was published before."""
    tables: dict[str, list[pa.Table]] = defaultdict(list)
    counts: Counter[str] = Counter()
    for rows in _rows(clips, inputs, store):
        for name, table in rows.tables().items():
            tables[name].append(table)
        counts.update(rows.counts())
    return {name: pa.concat_tables(pieces) for name, pieces in tables.items()}, dict(counts)


def _rows(clips: ClipSpool, inputs: CaptionInputs, store: Store) -> Iterator[CaptionRows]:
    """Yield the rows of some clips at a time; at least once."""
    finished = clips.finished()
    published = PublishedCaptions(store, inputs.published, clips.published)
    rest = list(clips.published)
    while True:
        rows = CaptionRows(STAGE, inputs.captioner, inputs.summarizer or inputs.captioner)
        some = list(islice(finished, CLIPS_AT_ONCE))
        for clip, chain in some:
            rows.add(clip, chain)
        for clip_id in [] if some else rest[:CLIPS_AT_ONCE]:
            rows.take_over(published, clip_id)
        yield rows
        if not some:
            rest = rest[CLIPS_AT_ONCE:]
            if not rest:
                return


def _budget(
    output: ShardSet, inputs: CaptionInputs, config: CaptionConfig, keyframes: Manifest, shard: int | None
) -> Budget | None:
    """Return what may be spent: all that committed shards have left, or one shard's share of that.

    Shards that run side by side do not know what the others are spending. Each keeps to its share, by key
    frames, so that together they keep to the whole.
    """
    if config.max_cost is None and config.max_tokens_total is None:
        return None
    before = Spending()
    weights: dict[int, float] = {}  # of shards that are not committed
    for number in _shards(config, keyframes):
        commit = output.committed(number)
        if commit is not None:
            before.add_all(Spending.of_counts(commit.counts))
            continue
        part, _, of = _division(keyframes, config, number)
        weights[number] = part.rows / of if part is not None else 0.0
    share = 1.0 if shard is None else weights[shard] / (sum(weights.values()) or 1.0)
    return Budget(_specs(inputs, config), config.max_cost, config.max_tokens_total, before, share)


def _specs(inputs: CaptionInputs, config: CaptionConfig) -> dict[str, EngineSpec]:
    """Return the engines by the names their calls and their tokens go by."""
    specs = {CAPTIONER: inputs.captioner, SUMMARIZER: inputs.summarizer or inputs.captioner}
    if config.checks.judge is not None:
        specs[JUDGE] = config.checks.judge
    return specs


def _division(keyframes: Manifest, config: CaptionConfig, shard: int) -> tuple[Part | None, int, int]:
    """Return the part of the key frames a shard reads, and which share of how many is its own."""
    parts = _parts(keyframes)
    if not parts:
        return None, 0, 1
    shards = max(len(parts), config.shards)
    part = parts[shard % len(parts)]
    return part, shard // len(parts), len(range(shard % len(parts), shards, len(parts)))


def _parts(keyframes: Manifest) -> list[Part]:
    parts = (part for part in keyframes.parts if part.table == "keyframes")
    return sorted(parts, key=lambda part: part.shard)
