"""Key frames: plan the shards, work them out side by side, publish them as one."""

from typing import List

from kfp import dsl

from components.image import PLACEHOLDER_IMAGE


@dsl.component(base_image=PLACEHOLDER_IMAGE, install_kfp_package=False)
def keyframes_plan(clips: str, source: str, config: str, store: str) -> List[str]:
    """Return the indices of the shards, as the strings ParallelFor iterates over; never none."""
    from share4video.config import KeyframeConfig
    from share4video.dataset.manifest import StageRef
    from share4video.stages.keyframes import KeyframesInputs, plan
    from share4video.stages.task import parse_stage_config, stage_task

    with stage_task("keyframes", store) as task:
        inputs = KeyframesInputs(clips=StageRef.parse(clips), source=source)
        return task.planned(plan(inputs, parse_stage_config(KeyframeConfig, config), task.store))


@dsl.component(base_image=PLACEHOLDER_IMAGE, install_kfp_package=False)
def keyframes_shard(shard: str, clips: str, source: str, config: str, store: str) -> str:
    """Work out one shard; a shard that is committed already is left as it is."""
    from share4video.config import KeyframeConfig
    from share4video.dataset.manifest import StageRef
    from share4video.stages.keyframes import KeyframesInputs, run_shard
    from share4video.stages.task import parse_stage_config, stage_task

    with stage_task("keyframes", store, shard=int(shard)) as task:
        inputs = KeyframesInputs(clips=StageRef.parse(clips), source=source)
        settings = parse_stage_config(KeyframeConfig, config)
        run_shard(inputs, settings, task.store, int(shard), progress=task.progress)
        return shard


@dsl.component(base_image=PLACEHOLDER_IMAGE, install_kfp_package=False)
def keyframes_finish(
    clips: str,
    source: str,
    config: str,
    store: str,
    keyframes: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
) -> str:
    """Publish the shards as one output; returns it as ``stage/key@hash``."""
    from share4video.config import KeyframeConfig
    from share4video.dataset.manifest import StageRef
    from share4video.stages.keyframes import KeyframesInputs, finish
    from share4video.stages.task import parse_stage_config, stage_task

    with stage_task("keyframes", store) as task:
        inputs = KeyframesInputs(clips=StageRef.parse(clips), source=source)
        result = finish(inputs, parse_stage_config(KeyframeConfig, config), task.store)
        return task.finish(result, output=keyframes, metrics=metrics, summary=summary)
