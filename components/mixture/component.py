"""Mixture: training samples for the chat model from the published dataset."""

from kfp import dsl

from components.image import PLACEHOLDER_IMAGE


@dsl.component(base_image=PLACEHOLDER_IMAGE, install_kfp_package=False)
def mixture(
    dataset: str,
    source: str,
    config: str,
    store: str,
    samples: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
) -> str:
    """Publish the training mixture and its rendered images; returns it as ``stage/key@hash``."""
    from share4video.config import MixtureConfig
    from share4video.dataset.manifest import StageRef
    from share4video.stages.mixture import MixtureInputs, run_stage
    from share4video.stages.task import parse_stage_config, stage_task

    with stage_task("mixture", store) as task:
        inputs = MixtureInputs(dataset=StageRef.parse(dataset), source=source)
        settings = parse_stage_config(MixtureConfig, config)
        result = run_stage(inputs, settings, task.store, progress=task.progress)
        return task.finish(result, output=samples, metrics=metrics, summary=summary)
