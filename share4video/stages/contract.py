"""What every stage is: ``run_stage(inputs, config, store) -> StageResult``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from share4video.dataset.shards import Manifest, StageRef

# Called with what is counted, how many are done, and how many there are.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class StageResult:
    """What a stage did. ``rows_in == rows_out + sum(rejects.values())``, checked on construction.

    Attributes:
        ref: the published output.
        rows_in: rows the stage had to answer for.
        rows_out: rows it kept.
        rejects: rows it did not keep, by reason code.
        computed_shards: shards this run worked out; the others were there. None where it published them and
            cannot know which: other tasks worked them out, in this run or in one before it.
        metrics: finite numbers for the summary, MLflow and KFP's Metrics artifact.
    """

    ref: StageRef
    rows_in: int
    rows_out: int
    rejects: dict[str, int] = field(default_factory=dict)
    computed_shards: int | None = 0
    total_shards: int = 1
    metrics: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        answered = self.rows_out + sum(self.rejects.values())
        if self.rows_in != answered:
            raise RuntimeError(f"{self.ref.stage}: {self.rows_in} rows in, {answered} answered for")

    @property
    def unchanged(self) -> bool:
        """Whether the whole output was already published."""
        return self.computed_shards == 0

    @classmethod
    def from_manifest(
        cls, manifest: Manifest, *, computed_shards: int | None, total_shards: int
    ) -> StageResult:
        """Rebuild the result from what was published, so that a second run reports the same rows.

        The stage's shards commit the counts ``rows_in``, ``rows_out``, ``reject:<reason>`` and
        ``metric:<name>``.
        """
        counts = manifest.counts
        return cls(
            ref=manifest.ref,
            rows_in=int(counts.get("rows_in", 0)),
            rows_out=int(counts.get("rows_out", 0)),
            rejects={k.removeprefix("reject:"): int(v) for k, v in counts.items() if k.startswith("reject:")},
            computed_shards=computed_shards,
            total_shards=total_shards,
            metrics={k.removeprefix("metric:"): v for k, v in counts.items() if k.startswith("metric:")},
        )
