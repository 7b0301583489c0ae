"""Evaluate: ask a chat model multiple-choice questions about clips, by MVBench's protocol.

``evaluate_champion`` asks the model in service, where its answers to these questions are not on record.
"""

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


@dsl.component(base_image=PLACEHOLDER_IMAGE, install_kfp_package=False)
def evaluate_champion(
    name: str,
    trained: str,
    candidate: str,
    questions: str,
    clips: str,
    config: str,
    store: str,
    results: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
) -> str:
    """Return the evaluation of the champion of ``name`` as ``stage/key@hash``, empty where ``trained`` has no
    other champion to beat. ``candidate`` is the evaluation it is to be compared with."""
    from share4video.config import EvaluateConfig
    from share4video.dataset.manifest import StageRef
    from share4video.stages.champion import NONE, ChampionInputs, run_stage
    from share4video.stages.task import parse_stage_config, stage_task

    with stage_task("evaluate-champion", store) as task:
        inputs = ChampionInputs(
            name=name,
            model=StageRef.parse(trained),
            candidate=StageRef.parse(candidate),
            questions=questions,
            clips=clips,
        )
        settings = parse_stage_config(EvaluateConfig, config)
        result = run_stage(inputs, settings, task.store, progress=task.progress)
        if result is None:
            task.done(NONE)
            return ""
        return task.finish(result, output=results, metrics=metrics, summary=summary)
