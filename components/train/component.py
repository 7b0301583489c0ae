"""Train: fine-tune the chat model on a mixture, tracked in MLflow."""

from kfp import dsl

from components.image import PLACEHOLDER_IMAGE


@dsl.component(base_image=PLACEHOLDER_IMAGE, install_kfp_package=False)
def train(
    mixture: str,
    config: str,
    store: str,
    model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
) -> str:
    """Fine-tune and publish the checkpoint; returns it as ``stage/key@hash``."""
    from share4video.config import TrainConfig
    from share4video.dataset.manifest import StageRef
    from share4video.stages.task import parse_stage_config, stage_task
    from share4video.stages.train import TrainInputs, run_stage

    with stage_task("train", store) as task:
        inputs = TrainInputs(mixture=StageRef.parse(mixture))
        settings = parse_stage_config(TrainConfig, config)
        result = run_stage(inputs, settings, task.store, progress=task.progress)
        return task.finish(result, output=model, metrics=metrics, summary=summary)
