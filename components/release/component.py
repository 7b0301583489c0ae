"""Release: register the trained model, let the gate decide, move the alias ``champion`` if it passes."""

from kfp import dsl

from components.image import PLACEHOLDER_IMAGE


@dsl.component(base_image=PLACEHOLDER_IMAGE, install_kfp_package=False)
def release(
    model: str,
    base: str,
    candidate: str,
    champion: str,
    name: str,
    config: str,
    store: str,
    decision: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
) -> str:
    """Register ``model`` under ``name`` with its evidence; returns the decision as ``stage/key@hash``.

    ``champion`` is the evaluation of the model it would replace, empty where there is none.
    """
    from share4video.config import GateConfig
    from share4video.dataset.manifest import StageRef
    from share4video.stages.release import ReleaseInputs, run_stage
    from share4video.stages.task import parse_stage_config, stage_task

    with stage_task("release", store) as task:
        inputs = ReleaseInputs(
            model=StageRef.parse(model),
            base=StageRef.parse(base),
            candidate=StageRef.parse(candidate),
            champion=StageRef.parse(champion) if champion else None,
            name=name,
        )
        result = run_stage(inputs, parse_stage_config(GateConfig, config), task.store)
        details = {"outcome": result.outcome, "model": result.model_uri, "decision": result.sentence()}
        return task.finish(result, output=decision, metrics=metrics, summary=summary, details=details)
