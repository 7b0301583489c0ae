"""The gate: what passes, what is refused, and what the refusal says."""

from __future__ import annotations

import pytest

from share4video.config import GateConfig
from share4video.errors import UserError
from share4video.evaluation.gate import decide
from share4video.evaluation.results import PROTOCOL, Answer, Failure, Results

CONFIG = GateConfig(bootstrap_samples=500)


def results(
    right: dict[str, list[bool]], model: str = "m@1", per_clip: int = 1, **changes: object
) -> Results:
    """Results in which question i of a task was answered right or wrong as the lists say.

    So many questions in a row are about one clip; all tasks ask about the same clips.
    """
    answers = tuple(
        Answer(
            question_id=f"{task}-{i:04d}",
            task=task,
            video=f"{i // per_clip:04d}.mp4",
            group=None,
            options=2,
            text="(A)",
            letter="A",
            answer="A" if good else "B",
            right=good,
        )
        for task in sorted(right)
        for i, good in enumerate(right[task])
    )
    fields = {"protocol": PROTOCOL, "questions": "q", "clips": "c", "frames": 16, "image": True}
    return Results.model_validate({**fields, "answers": answers, "model": model, **changes})


def share(right: int, of: int) -> list[bool]:
    return [i < right for i in range(of)]


def test_a_surely_better_candidate_passes() -> None:
    decision = decide(
        results({"order": share(80, 100)}, "new@2"), results({"order": share(50, 100)}, "old@1"), CONFIG
    )
    assert decision.passed
    assert (decision.candidate, decision.reference) == ("new@2", "old@1")
    assert decision.overall.questions == 100
    assert decision.overall.difference.estimate == pytest.approx(0.3)
    assert decision.overall.difference.low > 0
    assert len(decision.reasons) == 1
    assert "+30.0 points" in decision.sentence()


def test_a_candidate_that_may_be_no_better_is_refused() -> None:
    alternating = [i % 2 == 0 for i in range(100)]
    shifted = [i % 2 == 1 for i in range(98)] + [True, True]
    decision = decide(results({"order": shifted}), results({"order": alternating}), CONFIG)
    assert not decision.passed
    assert "not surely above zero" in decision.sentence()


def test_the_same_answers_are_refused() -> None:
    same = results({"order": share(60, 100)})
    assert not decide(same, same, CONFIG).passed


def test_a_task_that_is_surely_worse_refuses_whatever_the_rest_gains() -> None:
    candidate = results({"colour": share(60, 100), "order": share(200, 200)})
    reference = results({"colour": share(95, 100), "order": share(40, 200)})
    decision = decide(candidate, reference, CONFIG)
    assert decision.overall.difference.low > 0
    assert not decision.passed
    assert len(decision.reasons) == 1
    assert "task colour" in decision.reasons[0]
    assert "60.0% against 95.0%" in decision.reasons[0]


def test_a_task_within_the_tolerance_or_of_few_questions_does_not_refuse() -> None:
    candidate = results({"colour": share(97, 100), "count": share(2, 4), "order": share(200, 200)})
    reference = results({"colour": share(100, 100), "count": share(3, 4), "order": share(40, 200)})
    assert decide(candidate, reference, CONFIG).passed


def test_more_questions_about_the_same_clips_make_nothing_surer() -> None:
    """Each clip is asked about four times, with one outcome: the evidence is that of one question each."""
    ours, theirs = share(40, 60), share(28, 60)
    once = decide(results({"order": ours}), results({"order": theirs}), CONFIG)
    often = decide(
        results({"order": [good for good in ours for _ in range(4)]}, per_clip=4),
        results({"order": [good for good in theirs for _ in range(4)]}, per_clip=4),
        CONFIG,
    )
    assert (once.overall.questions, often.overall.questions) == (60, 240)
    assert often.overall.difference == once.overall.difference
    assert often.tasks["order"].difference == once.tasks["order"].difference


def test_tasks_about_the_same_clips_are_resampled_together() -> None:
    """The overall interval of two tasks that ask the same of every clip is that of one of them."""
    ours, theirs = share(40, 60), share(28, 60)
    both = decide(results({"a": ours, "b": ours}), results({"a": theirs, "b": theirs}), CONFIG)
    assert both.overall.questions == 120
    assert both.overall.difference == both.tasks["a"].difference == both.tasks["b"].difference


def test_a_handful_of_clips_proves_nothing() -> None:
    right, wrong = [True] * 50, [False] * 50
    better = decide(results({"order": right}, per_clip=10), results({"order": wrong}, per_clip=10), CONFIG)
    assert not better.passed
    assert "not surely above zero" in better.sentence()
    worse = decide(
        results({"order": share(200, 200), "rare": wrong}, per_clip=10),
        results({"order": share(40, 200), "rare": right}, per_clip=10),
        CONFIG,
    )
    assert worse.tasks["rare"].difference.low == -1.0
    assert worse.passed


def test_every_broken_rule_is_named() -> None:
    candidate = results({"colour": share(2, 10)})
    reference = results({"colour": share(10, 10)})
    decision = decide(candidate, reference, CONFIG)
    assert len(decision.reasons) == 3
    assert "Only 10 questions" in decision.reasons[0]


def test_questions_one_of_them_did_not_answer_are_left_out() -> None:
    candidate = results({"order": share(40, 60)})
    reference = results({"order": share(20, 50)})  # the last ten got no answer
    reference = reference.model_copy(
        update={
            "failures": tuple(
                Failure(question_id=f"order-{i:04d}", task="order", reason="engine_error")
                for i in range(50, 60)
            )
        }
    )
    decision = decide(candidate, reference, CONFIG)
    assert decision.overall.questions == 50
    assert decision.overall.candidate == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("field", "other"), [("protocol", "p"), ("questions", "r"), ("clips", "d"), ("frames", 8)]
)
def test_evaluations_of_other_things_do_not_compare(field: str, other: object) -> None:
    one = results({"order": share(5, 30)})
    two = results({"order": share(5, 30)}, **{field: other})
    assert one.benchmark != two.benchmark
    with pytest.raises(UserError, match=f"differ in their {field}"):
        decide(one, two, CONFIG)


def test_a_control_is_no_evaluation() -> None:
    one = results({"order": share(5, 30)})
    with pytest.raises(UserError, match="text-only"):
        decide(results({"order": share(5, 30)}, image=False), one, CONFIG)


def test_two_evaluations_without_a_common_answer_do_not_compare() -> None:
    with pytest.raises(UserError, match="no question was answered by both"):
        decide(results({"order": [True]}), results({"colour": [True]}), CONFIG)


def test_the_decision_survives_being_written() -> None:
    decision = decide(results({"order": share(80, 100)}), results({"order": share(50, 100)}), CONFIG)
    assert type(decision).model_validate_json(decision.model_dump_json()) == decision
