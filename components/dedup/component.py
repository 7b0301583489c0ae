"""Dedup: look at the clips side by side, then keep one of every group of near-duplicates."""

from typing import List

from kfp import dsl

from components.image import PLACEHOLDER_IMAGE


@dsl.component(base_image=PLACEHOLDER_IMAGE, install_kfp_package=False)
def looks_plan(clips: str, brief: str, source: str, published: str, config: str, store: str) -> List[str]:
    """Return the indices of the shards, as the strings ParallelFor iterates over; never none."""
    from share4video.config import DedupConfig
    from share4video.dataset.manifest import StageRef
    from share4video.dataset.outputs import published_clips
    from share4video.stages.dedup import DedupInputs
    from share4video.stages.looks import plan
    from share4video.stages.task import parse_stage_config, stage_task

    with stage_task("dedup", store) as task:
        before = published_clips(task.store, published)
        inputs = DedupInputs(StageRef.parse(clips), StageRef.parse(brief), source, before)
        return task.planned(plan(inputs, parse_stage_config(DedupConfig, config), task.store))


@dsl.component(base_image=PLACEHOLDER_IMAGE, install_kfp_package=False)
def looks_shard(
    shard: str, clips: str, brief: str, source: str, published: str, config: str, store: str
) -> str:
    """Encode frames of one shard's clips; a shard that is committed already is left as it is."""
    from share4video.config import DedupConfig
    from share4video.dataset.manifest import StageRef
    from share4video.dataset.outputs import published_clips
    from share4video.stages.dedup import DedupInputs
    from share4video.stages.looks import run_shard
    from share4video.stages.task import parse_stage_config, stage_task

    with stage_task("dedup", store, shard=int(shard)) as task:
        before = published_clips(task.store, published)
        inputs = DedupInputs(StageRef.parse(clips), StageRef.parse(brief), source, before)
        settings = parse_stage_config(DedupConfig, config)
        run_shard(inputs, settings, task.store, int(shard), progress=task.progress)
        return shard


@dsl.component(base_image=PLACEHOLDER_IMAGE, install_kfp_package=False)
def dedup(
    clips: str,
    brief: str,
    source: str,
    published: str,
    config: str,
    store: str,
    kept: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
) -> str:
    """De-duplicate ``clips`` by their brief captions and frames; returns what was kept.

    ``published`` is an earlier output of this component that the clips are added to, or a dataset, or empty.
    """
    from share4video.config import DedupConfig
    from share4video.dataset.manifest import StageRef
    from share4video.dataset.outputs import published_clips
    from share4video.stages.dedup import DedupInputs, run_stage
    from share4video.stages.task import parse_stage_config, stage_task

    with stage_task("dedup", store) as task:
        before = published_clips(task.store, published)
        inputs = DedupInputs(StageRef.parse(clips), StageRef.parse(brief), source, before)
        settings = parse_stage_config(DedupConfig, config)
        result = run_stage(inputs, settings, task.store, progress=task.progress)
        return task.finish(result, output=kept, metrics=metrics, summary=summary)
