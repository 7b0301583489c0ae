"""Caption: plan the shards, caption them side by side, publish them as one."""

from typing import List

from kfp import dsl

from components.image import PLACEHOLDER_IMAGE


@dsl.component(base_image=PLACEHOLDER_IMAGE, install_kfp_package=False)
def caption_plan(
    clips: str, keyframes: str, captioner: str, summarizer: str, published: str, config: str, store: str
) -> List[str]:
    """Return the indices of the shards, as the strings ParallelFor iterates over; never none."""
    from share4video.config import CaptionConfig, EngineSpec
    from share4video.dataset.manifest import StageRef
    from share4video.dataset.outputs import published_dataset
    from share4video.stages.caption import CaptionInputs, plan
    from share4video.stages.task import parse_stage_config, stage_task

    with stage_task("caption", store) as task:
        inputs = CaptionInputs(
            clips=StageRef.parse(clips),
            keyframes=StageRef.parse(keyframes),
            captioner=parse_stage_config(EngineSpec, captioner),
            summarizer=parse_stage_config(EngineSpec, summarizer) if summarizer else None,
            published=published_dataset(published),
        )
        return task.planned(plan(inputs, parse_stage_config(CaptionConfig, config), task.store))


@dsl.component(base_image=PLACEHOLDER_IMAGE, install_kfp_package=False)
def caption_shard(
    shard: str,
    clips: str,
    keyframes: str,
    captioner: str,
    summarizer: str,
    published: str,
    config: str,
    store: str,
) -> str:
    """Caption one shard; a shard that is committed already is left as it is."""
    from share4video.config import CaptionConfig, EngineSpec
    from share4video.dataset.manifest import StageRef
    from share4video.dataset.outputs import published_dataset
    from share4video.stages.caption import CaptionInputs, run_shard
    from share4video.stages.task import parse_stage_config, stage_task

    with stage_task("caption", store, shard=int(shard)) as task:
        inputs = CaptionInputs(
            clips=StageRef.parse(clips),
            keyframes=StageRef.parse(keyframes),
            captioner=parse_stage_config(EngineSpec, captioner),
            summarizer=parse_stage_config(EngineSpec, summarizer) if summarizer else None,
            published=published_dataset(published),
        )
        settings = parse_stage_config(CaptionConfig, config)
        run_shard(inputs, settings, task.store, int(shard), progress=task.progress)
        return shard


@dsl.component(base_image=PLACEHOLDER_IMAGE, install_kfp_package=False)
def caption_finish(
    clips: str,
    keyframes: str,
    captioner: str,
    summarizer: str,
    published: str,
    config: str,
    store: str,
    captions: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
    suspicious: dsl.Output[dsl.HTML],
) -> str:
    """Publish the shards as one output; returns it as ``stage/key@hash``. Shows the captions to look at."""
    from share4video.config import CaptionConfig, EngineSpec
    from share4video.dataset.manifest import StageRef
    from share4video.dataset.outputs import published_dataset
    from share4video.report import write_suspicious
    from share4video.stages.caption import CaptionInputs, finish
    from share4video.stages.task import parse_stage_config, stage_task

    with stage_task("caption", store) as task:
        inputs = CaptionInputs(
            clips=StageRef.parse(clips),
            keyframes=StageRef.parse(keyframes),
            captioner=parse_stage_config(EngineSpec, captioner),
            summarizer=parse_stage_config(EngineSpec, summarizer) if summarizer else None,
            published=published_dataset(published),
        )
        result = finish(inputs, parse_stage_config(CaptionConfig, config), task.store)
        shown = {"dedup": inputs.clips, "keyframes": inputs.keyframes, "caption": result.ref}
        write_suspicious(task.store, shown, suspicious.path)
        return task.finish(result, output=captions, metrics=metrics, summary=summary)
