"""release: evaluate base and candidate -> register, gate, promote."""

from typing import NamedTuple

from kfp import dsl

from components.evaluate.component import evaluate
from components.release.component import release as decide
from pipelines.resources import place

ReleasedOutputs = NamedTuple("ReleasedOutputs", [("base", str), ("candidate", str), ("decision", str)])


@dsl.pipeline(name="release", description="Evaluate, register, gate and promote a fine-tuned model.")
def release(
    trained: str,
    base_model: str,
    questions: str,
    question_clips: str,
    store: str,
    registered_model: str = "share4video-chat",
    evaluate_config: str = "{}",
    gate_config: str = "{}",
) -> ReleasedOutputs:
    """Release the checkpoint ``trained`` where it beats the champion; returns the decision's stage output.

    The questions and their clips are folders whose content is not in KFP's cache key, and the last step
    moves an alias: nothing here is taken from KFP's cache. The stages reuse what they have published.
    """
    asked = {"questions": questions, "clips": question_clips, "config": evaluate_config, "store": store}
    base = place(evaluate(role="base", model=base_model, **asked), "evaluate")
    candidate = place(evaluate(role="candidate", model=trained, **asked), "evaluate")
    decision = place(
        decide(
            model=trained,
            base=base.outputs["Output"],
            candidate=candidate.outputs["Output"],
            name=registered_model,
            config=gate_config,
            store=store,
        ),
        "release",
    )
    for task in (base, candidate, decision):
        task.set_caching_options(enable_caching=False)
    return ReleasedOutputs(
        base=base.outputs["Output"],
        candidate=candidate.outputs["Output"],
        decision=decision.outputs["Output"],
    )
