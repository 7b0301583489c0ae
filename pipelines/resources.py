"""What a task asks of the cluster: `resources.yaml`, checked and applied to KFP tasks."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field

RESOURCES_FILE = Path(__file__).with_name("resources.yaml")
_CPU = r"^([0-9]*\.)?[0-9]+m?$"  # what KFP takes
_MEMORY = r"^[0-9]+([EPTGMK]i?)?$"


class Toleration(BaseModel):
    """A toleration as Kubernetes writes it: nodes that carry this taint may run the task."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    key: str
    operator: str = "Equal"
    value: str | None = None
    effect: str | None = None


class Accelerator(BaseModel):
    """Which accelerator a task takes, as the cluster names its kind, and how many of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    type: str
    count: int = Field(ge=1)


class TaskResources(BaseModel):
    """One entry of the file, overlaid on ``default``."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    cpu: str = Field(pattern=_CPU)
    memory: str = Field(pattern=_MEMORY)
    gpu: Accelerator | None = None
    pool: dict[str, str] = {}
    tolerations: tuple[Toleration, ...] = ()
    spot: bool = False
    retries: int = Field(ge=0)
    retry_pause: str
    timeout_s: int = Field(gt=0)


@cache
def load_resources(path: Path = RESOURCES_FILE) -> dict[str, TaskResources]:
    """Read the file: every stage with its resources.

    Raises:
        pydantic.ValidationError: an entry has an unknown key or a wrong value.
    """
    tree: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    default, spot = tree["default"], tree["spot"]
    found = {}
    for stage, own in tree["stages"].items():
        entry = {**default, **own}
        if entry.get("spot"):
            entry["pool"] = {**entry.get("pool", {}), **spot["pool"]}
            entry["tolerations"] = [*entry.get("tolerations", []), *spot["tolerations"]]
        found[stage] = TaskResources.model_validate(entry)
    return found


def place(task: Any, stage: str) -> Any:
    """Give a KFP task its resources, node pool, retries and deadline, and no caching by KFP; return the task.

    KFP's cache compares arguments, and many of them name what moves while the name stays: a folder of videos,
    ``models:/NAME@champion``. A stage finds its own output by content instead. The local runner ignores all
    but the retries (see `pipelines.local_child`).
    """
    from kfp import kubernetes
    from kfp.dsl.structures import ResourceSpec

    asked = load_resources().get(stage)
    assert asked is not None, f"resources.yaml does not name the stage {stage!r}"
    task.set_caching_options(enable_caching=False)
    # Not by KFP's setters: each reads the whole call stack, seconds over a pipeline.
    task.container_spec.resources = ResourceSpec(
        cpu_request=asked.cpu, cpu_limit=asked.cpu, memory_request=asked.memory, memory_limit=asked.memory
    )
    if asked.gpu:
        task.set_accelerator_type(asked.gpu.type).set_accelerator_limit(asked.gpu.count)
    for label, value in asked.pool.items():
        kubernetes.add_node_selector(task, label_key=label, label_value=value)
    for toleration in asked.tolerations:
        kubernetes.add_toleration(task, **toleration.model_dump(exclude_none=True))
    kubernetes.set_timeout(task, asked.timeout_s)
    if asked.retries:
        task.set_retry(
            num_retries=asked.retries,
            backoff_duration=asked.retry_pause,
            backoff_factor=2.0,
            backoff_max_duration="600s",
        )
    return task
