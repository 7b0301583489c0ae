"""Dataset: join clips and captions of every role, export the released form, write the data card."""

from kfp import dsl

from components.image import PLACEHOLDER_IMAGE


@dsl.component(base_image=PLACEHOLDER_IMAGE, install_kfp_package=False)
def dataset(
    clips: str,
    brief: str,
    keyframes: str,
    caption: str,
    earlier: str,
    config: str,
    store: str,
    published: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
) -> str:
    """Publish the captioned dataset; returns it as ``stage/key@hash``.

    ``earlier`` is a dataset that the clips are added to, or empty.
    """
    from share4video.config import DatasetConfig
    from share4video.dataset.manifest import StageRef
    from share4video.dataset.outputs import published_dataset
    from share4video.stages.dataset import DatasetInputs, run_stage
    from share4video.stages.task import parse_stage_config, stage_task

    with stage_task("dataset", store) as task:
        inputs = DatasetInputs(
            clips=StageRef.parse(clips),
            brief=StageRef.parse(brief),
            keyframes=StageRef.parse(keyframes),
            caption=StageRef.parse(caption),
            earlier=published_dataset(earlier),
        )
        settings = parse_stage_config(DatasetConfig, config)
        result = run_stage(inputs, settings, task.store, progress=task.progress)
        return task.finish(result, output=published, metrics=metrics, summary=summary)
