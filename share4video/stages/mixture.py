"""The mixture stage: SFT samples for the chat model from the published dataset, with their frame grids."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from share4video.config import MixtureConfig
from share4video.dataset import mixture
from share4video.dataset.formats import llava
from share4video.dataset.manifest import Manifest, StageRef
from share4video.dataset.messages import encode_messages
from share4video.dataset.mixture import ClipCaptions, QuestionWriter, Sample, TimedCaption
from share4video.dataset.shards import ShardSet, read_table, table_from_rows
from share4video.errors import UserError
from share4video.media.frame_strip import frame_strip
from share4video.media.grid_picture import grid_picture
from share4video.media.limits import MediaError
from share4video.media.sources import clip_file
from share4video.stages.clip_frames import media_reject, reject_row
from share4video.stages.contract import Progress, StageResult
from share4video.stages.dataset import LICENCE, allowed_by, licence_sentence
from share4video.stages.outcome import refuse_empty
from share4video.store import Store

STAGE = "mixture"
VERSION = "1"
NOT_SELECTED = "not_selected"
FOLDERS = {"grid": "images", "frames": "frames"}  # of the attached pictures

Row = Mapping[str, Any]


@dataclass(frozen=True)
class MixtureInputs:
    """The published dataset, and the sources its clips were found in."""

    dataset: StageRef
    source: str


@dataclass(frozen=True)
class _Job:
    """A clip and the samples chosen of it."""

    clip: Row
    samples: tuple[Sample, ...]
    refused: bool = False  # by its licence


def question_writer(name: str) -> QuestionWriter | None:
    """Return the question writer a configuration names, None for ``none``."""
    if name == "none":
        return None
    assert name == "synthetic"
    from share4video.synthetic.qa import SyntheticQuestionWriter

    return SyntheticQuestionWriter()


def run_stage(
    inputs: MixtureInputs,
    config: MixtureConfig,
    store: Store,
    *,
    writer: QuestionWriter | None = None,
    progress: Progress | None = None,
) -> StageResult:
    """Publish the ``sft`` table and, as attached files ``images/<sha256>.jpg``, one frame grid per clip.

    With ``config.visual`` ``frames`` they are strips of frames, ``frames/<sha256>.jpg`` (see
    `share4video.media.frame_strip`). ``sft.image`` is the attached file's name, or of a strip ``sft.video``;
    ``llava/part-*.json`` hold the same samples in LLaVA's form.
    Rows are clips: a clip that cannot be decoded is a reject under the decoder's reason, one of which no
    sample was chosen under ``not_selected``, one whose licence is not asked for under ``licence``.

    Args:
        writer: derives the questions; None takes the one ``config.question_writer`` names.

    Raises:
        UserError: the dataset holds no clip, or too few to shuffle captions between, or the source does not
            hold a clip as it was probed, or every clip was rejected; the rejects are published then.
    """
    writer = writer or question_writer(config.question_writer)
    identity = {"question_writer": writer.version if writer else "none"}
    output = ShardSet(
        store, STAGE, VERSION, inputs=[inputs.dataset.content_hash], config=config, identity=identity
    )
    earlier = output.published()
    if earlier is not None:
        shards = len({part.shard for part in earlier.parts})
        return _finished(earlier, store, computed=0, shards=shards)
    jobs = _plan(inputs, config, store, writer)
    chunks = [jobs[i : i + config.clips_per_shard] for i in range(0, len(jobs), config.clips_per_shard)]
    computed = done = 0
    for shard, chunk in enumerate(chunks):
        with output.writing(shard) as finished:
            if finished is None:
                _write_shard(output, shard, chunk, inputs.source, config, _counter(progress, done, len(jobs)))
                computed += 1
        done += len(chunk)
    return _finished(output.publish(len(chunks)), store, computed=computed, shards=len(chunks))


def _finished(manifest: Manifest, store: Store, *, computed: int, shards: int) -> StageResult:
    """Return the result of what is published. Raises UserError where no clip is left."""
    result = StageResult.from_manifest(manifest, computed_shards=computed, total_shards=shards)
    refuse_empty(result, store, where=STAGE)
    return result


def _plan(
    inputs: MixtureInputs, config: MixtureConfig, store: Store, writer: QuestionWriter | None
) -> list[_Job]:
    """Decide every clip's samples from the captions alone; a later shard decides the same."""
    clips = read_table(store, inputs.dataset, "clips").to_pylist()
    if not clips:
        raise UserError(
            "the dataset holds no clip",
            where=str(inputs.dataset),
            fix="look at the rejects of the earlier stages",
        )
    allowed = [clip["clip_id"] for clip in clips if allowed_by(config, clip["licence"])]
    captions = _captions(inputs.dataset, store, allowed)
    if config.shuffle_captions:
        if len(captions) < 2:
            raise UserError(
                "captions cannot be shuffled between fewer than two clips",
                where=str(inputs.dataset),
                fix="turn mixture.shuffle_captions off or add clips",
            )
        captions = mixture.shuffle_captions(captions, config.seed)
    candidates: list[Sample] = []
    request = mixture.DESCRIBE_REQUEST if config.visual == "frames" else ""
    for clip in captions:
        candidates.append(mixture.caption_sample(clip, request))
        if writer is not None:
            candidates += mixture.question_samples(clip, writer)
    chosen: defaultdict[str, list[Sample]] = defaultdict(list)
    for sample in mixture.select(
        candidates, max_samples=config.max_samples, caption_share=config.caption_share, seed=config.seed
    ):
        chosen[sample.clip_id].append(sample)
    wanted = set(allowed)
    return [_Job(clip, tuple(chosen[clip["clip_id"]]), clip["clip_id"] not in wanted) for clip in clips]


def _captions(dataset: StageRef, store: Store, clip_ids: Sequence[str]) -> list[ClipCaptions]:
    summaries: dict[str, str] = {}
    for row in read_table(store, dataset, "captions").to_pylist():
        if row["role"] == "summary":
            summaries.setdefault(row["clip_id"], row["caption"])
    differentials: defaultdict[str, list[Row]] = defaultdict(list)
    for row in read_table(store, dataset, "differentials").to_pylist():
        differentials[row["clip_id"]].append(row)
    return [
        ClipCaptions(
            clip_id=clip_id,
            differentials=tuple(
                TimedCaption(row["start_s"], row["end_s"], row["caption"])
                for row in sorted(differentials[clip_id], key=lambda row: row["index"])
            ),
            summary=summaries[clip_id],
        )
        for clip_id in clip_ids
    ]


def _write_shard(
    output: ShardSet,
    shard: int,
    jobs: Sequence[_Job],
    source: str,
    config: MixtureConfig,
    count: Callable[[int], None],
) -> None:
    rows: list[Row] = []
    rejects: list[Row] = []
    conversations: list[llava.Sample] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding happens in child processes
        grids = pool.map(lambda job: _grid(job, source, config), jobs)
        for done, (job, grid) in enumerate(zip(jobs, grids, strict=True), start=1):
            if isinstance(grid, MediaError):
                rejects.append(media_reject(job.clip, STAGE, grid))
            elif job.refused:
                rejects.append(reject_row(job.clip, STAGE, LICENCE, licence_sentence(job.clip, config)))
            elif grid is None:
                sentence = "no sample of this clip is among the max_samples that were chosen"
                rejects.append(reject_row(job.clip, STAGE, NOT_SELECTED, sentence))
            else:
                name = f"{FOLDERS[config.visual]}/{hashlib.sha256(grid).hexdigest()}.jpg"
                output.attach(name, grid, shard)
                image, video = (name, None) if config.visual == "grid" else (None, name)
                rows += [_row(sample, image, video) for sample in job.samples]
                conversations += [llava.Sample(s.sample_id, image, s.messages, video) for s in job.samples]
            count(done)
    output.attach(f"llava/part-{shard:05d}.json", llava.encode(conversations), shard)
    sources = Counter(str(row["source"]).partition(":")[0] for row in rows)
    reasons = Counter(str(row["reason"]) for row in rejects)
    counts = {
        "rows_in": len(jobs),
        "rows_out": len(jobs) - len(rejects),
        "metric:samples": len(rows),
        **{f"metric:{kind}_samples": number for kind, number in sorted(sources.items())},
        **{f"reject:{reason}": number for reason, number in sorted(reasons.items())},
    }
    tables = {"sft": table_from_rows("sft", rows), "rejects": table_from_rows("rejects", rejects)}
    output.commit(shard, tables, counts)


def _grid(job: _Job, source: str, config: MixtureConfig) -> bytes | MediaError | None:
    """Return the clip's grid or strip as JPEG, why there is none, or None where no sample asks for it.

    Raises:
        UserError: the source does not hold the clip as it was probed.
    """
    if not job.samples:
        return None
    clip = job.clip
    try:
        with clip_file(source, clip) as path:
            span = (clip["start_s"], clip["end_s"])
            if config.visual == "frames":
                return frame_strip(path, *span, frames=config.strip_frames, quality=config.jpeg_quality)
            return grid_picture(path, *span, frames=config.grid_frames, quality=config.jpeg_quality)
    except MediaError as error:
        return error


def _row(sample: Sample, image: str | None, video: str | None) -> Row:
    return {
        "sample_id": sample.sample_id,
        "clip_id": sample.clip_id,
        "image": image,
        "video": video,
        "messages": encode_messages(sample.messages),
        "source": sample.source,
    }


def _counter(progress: Progress | None, before: int, total: int) -> Callable[[int], None]:
    def count(done: int) -> None:
        if progress is not None:
            progress("clips", before + done, total)

    return count
