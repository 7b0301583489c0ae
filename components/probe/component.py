"""Probe: find, check and hash the clips below a source folder."""

from kfp import dsl

from components.image import PLACEHOLDER_IMAGE


@dsl.component(base_image=PLACEHOLDER_IMAGE, install_kfp_package=False)
def probe(
    source: str,
    config: str,
    store: str,
    clips: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
) -> str:
    """Probe every file below ``source``; returns the published clips as ``stage/key@hash``."""
    from share4video.config import ProbeConfig
    from share4video.stages.probe import ProbeInputs, run_stage
    from share4video.stages.task import parse_stage_config, stage_task

    with stage_task("probe", store) as task:
        settings = parse_stage_config(ProbeConfig, config)
        result = run_stage(ProbeInputs(source=source), settings, task.store, progress=task.progress)
        return task.finish(result, output=clips, metrics=metrics, summary=summary)
