"""The child of `pipelines.local`, ``python -m pipelines.local_child REQUEST``: runs a pipeline with KFP."""

import json
import sys
from pathlib import Path

import yaml

from pipelines.compiler import compile_pipeline


def for_local_runner(compiled: str) -> str:
    """Return a compiled pipeline as the local runner takes it: without retries, and under another name.

    Retries are for pods that are evicted. On one machine a task that failed fails again, half a minute later.
    The name must be none of a component's: KFP would load that component alone in the pipeline's place.
    """
    specification, *platform = yaml.safe_load_all(compiled)
    specification["pipelineInfo"]["name"] += "-pipeline"
    for dag in [specification["root"], *specification["components"].values()]:
        for task in dag.get("dag", {}).get("tasks", {}).values():
            task.pop("retryPolicy", None)
    return yaml.safe_dump_all([specification, *platform])


def main() -> None:
    """Compile the pipeline of the request, or read it where it is a ``.yaml`` file, and run it to its end."""
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    asked = Path(request["pipeline"])
    compiled = asked.read_text(encoding="utf-8") if asked.suffix == ".yaml" else compile_pipeline(str(asked))

    from kfp import components, local

    pipeline = components.load_component_from_text(for_local_runner(compiled))
    local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=request["root"])
    pipeline(**request["arguments"])


if __name__ == "__main__":
    main()
