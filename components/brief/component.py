"""Brief: one-sentence captions of the clips and their embeddings; plan, caption side by side, publish."""

from typing import List

from kfp import dsl

from components.image import PLACEHOLDER_IMAGE


@dsl.component(base_image=PLACEHOLDER_IMAGE, install_kfp_package=False)
def brief_plan(clips: str, source: str, engine: str, published: str, config: str, store: str) -> List[str]:
    """Return the indices of the shards, as the strings ParallelFor iterates over; never none."""
    from share4video.config import BriefConfig, EngineSpec
    from share4video.dataset.manifest import StageRef
    from share4video.dataset.outputs import published_clips
    from share4video.stages.brief import BriefInputs, plan
    from share4video.stages.task import parse_stage_config, stage_task

    with stage_task("brief", store) as task:
        before = published_clips(task.store, published)
        inputs = BriefInputs(StageRef.parse(clips), source, parse_stage_config(EngineSpec, engine), before)
        return task.planned(plan(inputs, parse_stage_config(BriefConfig, config), task.store))


@dsl.component(base_image=PLACEHOLDER_IMAGE, install_kfp_package=False)
def brief_shard(
    shard: str, clips: str, source: str, engine: str, published: str, config: str, store: str
) -> str:
    """Caption every clip of one shard in a sentence; a shard that is committed is left as it is."""
    from share4video.config import BriefConfig, EngineSpec
    from share4video.dataset.manifest import StageRef
    from share4video.dataset.outputs import published_clips
    from share4video.stages.brief import BriefInputs, run_shard
    from share4video.stages.task import parse_stage_config, stage_task

    with stage_task("brief", store, shard=int(shard)) as task:
        before = published_clips(task.store, published)
        inputs = BriefInputs(StageRef.parse(clips), source, parse_stage_config(EngineSpec, engine), before)
        settings = parse_stage_config(BriefConfig, config)
        run_shard(inputs, settings, task.store, int(shard), progress=task.progress)
        return shard


@dsl.component(base_image=PLACEHOLDER_IMAGE, install_kfp_package=False)
def brief_finish(
    clips: str,
    source: str,
    engine: str,
    published: str,
    config: str,
    store: str,
    captions: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
) -> str:
    """Publish the shards as one output; returns it as ``stage/key@hash``."""
    from share4video.config import BriefConfig, EngineSpec
    from share4video.dataset.manifest import StageRef
    from share4video.dataset.outputs import published_clips
    from share4video.stages.brief import BriefInputs, finish
    from share4video.stages.task import parse_stage_config, stage_task

    with stage_task("brief", store) as task:
        before = published_clips(task.store, published)
        inputs = BriefInputs(StageRef.parse(clips), source, parse_stage_config(EngineSpec, engine), before)
        result = finish(inputs, parse_stage_config(BriefConfig, config), task.store)
        return task.finish(result, output=captions, metrics=metrics, summary=summary)
