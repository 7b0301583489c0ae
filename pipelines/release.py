"""release: evaluate base, candidate and champion -> register, gate, promote."""

from typing import NamedTuple

from kfp import dsl

from components.evaluate.component import evaluate, evaluate_champion
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
    """Release the checkpoint ``trained`` where it beats the champion; returns the decision's stage output."""
    asked = {"questions": questions, "clips": question_clips, "config": evaluate_config, "store": store}
    base = place(evaluate(role="base", model=base_model, **asked), "evaluate")
    candidate = place(evaluate(role="candidate", model=trained, **asked), "evaluate")
    champion = place(
        evaluate_champion(
            name=registered_model, trained=trained, candidate=candidate.outputs["Output"], **asked
        ),
        "evaluate-champion",
    )
    decision = place(
        decide(
            model=trained,
            base=base.outputs["Output"],
            candidate=candidate.outputs["Output"],
            champion=champion.outputs["Output"],
            name=registered_model,
            config=gate_config,
            store=store,
        ),
        "release",
    )
    return ReleasedOutputs(
        base=base.outputs["Output"],
        candidate=candidate.outputs["Output"],
        decision=decision.outputs["Output"],
    )
