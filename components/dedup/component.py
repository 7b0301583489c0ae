"""Dedup: keep one clip of every group of near-duplicates."""

from kfp import dsl

from components.image import PLACEHOLDER_IMAGE


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

    ``published`` is an earlier output of this component that the clips are added to, or empty.
    """
    from share4video.config import DedupConfig
    from share4video.dataset.manifest import StageRef
    from share4video.stages.dedup import DedupInputs, run_stage
    from share4video.stages.task import parse_stage_config, stage_task

    with stage_task("dedup", store) as task:
        before = StageRef.parse(published) if published else None
        inputs = DedupInputs(StageRef.parse(clips), StageRef.parse(brief), source, before)
        settings = parse_stage_config(DedupConfig, config)
        result = run_stage(inputs, settings, task.store, progress=task.progress)
        return task.finish(result, output=kept, metrics=metrics, summary=summary)
