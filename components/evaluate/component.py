"""Evaluate: ask a chat model multiple-choice questions about clips, by MVBench's protocol."""

from kfp import dsl

from components.image import PLACEHOLDER_IMAGE


@dsl.component(base_image=PLACEHOLDER_IMAGE, install_kfp_package=False)
def evaluate(
    role: str,
    model: str,
    questions: str,
    clips: str,
    config: str,
    store: str,
    results: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
) -> str:
    """Evaluate ``model``, which the run calls ``role``; returns the results as ``stage/key@hash``."""
    from share4video.config import EvaluateConfig
    from share4video.stages.evaluate import EvaluateInputs, parse_model, run_stage
    from share4video.stages.task import parse_stage_config, stage_task

    with stage_task(f"evaluate-{role}", store) as task:
        parsed = parse_model(model, task.store)
        inputs = EvaluateInputs(model=parsed, questions=questions, clips=clips)
        settings = parse_stage_config(EvaluateConfig, config)
        result = run_stage(inputs, settings, task.store, progress=task.progress)
        return task.finish(result, output=results, metrics=metrics, summary=summary)
