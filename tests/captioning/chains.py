"""Chains carried through with answers that name their step."""

from __future__ import annotations

from share4video.captioning.differential import (
    Caption,
    Chain,
    ChainRules,
    Failure,
    Step,
)
from share4video.captioning.steps import without_digest

REFERENCE = ChainRules()
TOLERANT = ChainRules(max_fallback_share=1.0)


def said(step: Step) -> Caption:
    return Caption(f"<{without_digest(step.key)}>", tokens=3)


def carry(chain: Chain, answers: dict[str, Caption | Failure] | None = None) -> list[Step]:
    """Carry the chain through; ``answers`` are those of steps that go wrong."""
    steps = []
    while (step := chain.next()) is not None:
        steps.append(step)
        chain.take(step, (answers or {}).get(without_digest(step.key)) or said(step))
    return steps


def asked(steps: list[Step]) -> list[str]:
    return [without_digest(step.key) for step in steps]
