"""Brief: one-sentence captions of the clips, and their embeddings."""

from kfp import dsl

from components.image import PLACEHOLDER_IMAGE


@dsl.component(base_image=PLACEHOLDER_IMAGE, install_kfp_package=False)
def brief(
    clips: str,
    source: str,
    engine: str,
    config: str,
    store: str,
    captions: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
) -> str:
    """Caption every clip of ``clips`` in one sentence; returns the captions as ``stage/key@hash``."""
    from share4video.config import BriefConfig, EngineSpec
    from share4video.dataset.manifest import StageRef
    from share4video.stages.brief import BriefInputs, run_stage
    from share4video.stages.task import parse_stage_config, stage_task

    with stage_task("brief", store) as task:
        inputs = BriefInputs(
            clips=StageRef.parse(clips), source=source, engine=parse_stage_config(EngineSpec, engine)
        )
        settings = parse_stage_config(BriefConfig, config)
        result = run_stage(inputs, settings, task.store, progress=task.progress)
        return task.finish(result, output=captions, metrics=metrics, summary=summary)
