"""The compiled pipelines: what is committed is what the sources compile to, and fit for a cluster."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from components.image import PLACEHOLDER_IMAGE
from pipelines.catalogue import OPTIONAL_INPUTS, PIPELINES
from pipelines.compiler import COMPILED_FOLDER, compile_pipeline
from pipelines.local_child import for_local_runner
from pipelines.resources import load_resources

IMAGE = "registry.example/share4video@sha256:" + "0" * 64

pytestmark = pytest.mark.parametrize("name", list(PIPELINES))


def compiled(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    specification, platform = yaml.safe_load_all((COMPILED_FOLDER / f"{name}.yaml").read_text())
    return specification, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def tasks(specification: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Every task that runs a container, by its component's name."""
    dags = [specification["root"], *specification["components"].values()]
    found = {}
    for dag in dags:
        for task in dag.get("dag", {}).get("tasks", {}).values():
            component = specification["components"][task["componentRef"]["name"]]
            if "executorLabel" in component:
                found[component["executorLabel"].removeprefix("exec-")] = task
    return found


def test_the_committed_text_is_what_the_source_compiles_to(name: str) -> None:
    assert (COMPILED_FOLDER / f"{name}.yaml").read_text() == compile_pipeline(name), (
        "run: share4video pipeline compile --all --out pipelines/compiled"
    )


def test_the_catalogue_names_the_parameters(name: str) -> None:
    specification, _ = compiled(name)
    entry = PIPELINES[name]
    parameters = specification["root"]["inputDefinitions"]["parameters"]
    assert {*entry.inputs, *entry.engines, *(f"{s}_config" for s in entry.configs)} == set(parameters)
    assert (
        set(entry.inputs) & {key for key, p in parameters.items() if p.get("isOptional")} <= OPTIONAL_INPUTS
    )


def test_a_given_image_is_every_tasks_image(name: str) -> None:
    specification = next(yaml.safe_load_all(compile_pipeline(name, IMAGE)))
    executors = specification["deploymentSpec"]["executors"].values()
    assert {executor["container"]["image"] for executor in executors} == {IMAGE}
    assert PLACEHOLDER_IMAGE not in compile_pipeline(name, IMAGE)


def test_every_task_asks_for_what_the_resources_say(name: str) -> None:
    specification, platform = compiled(name)
    for executor, deployment in specification["deploymentSpec"]["executors"].items():
        stage = executor.removeprefix("exec-").removesuffix("-2")
        asked = load_resources()[stage]
        resources = deployment["container"]["resources"]
        assert resources["resourceCpuLimit"] == asked.cpu
        assert resources["resourceMemoryLimit"] == asked.memory
        assert bool(asked.gpu) == ("accelerator" in resources)
        assert platform[executor]["activeDeadlineSeconds"] == str(asked.timeout_s)
        labels = platform[executor].get("nodeSelector", {}).get("labels", {})
        assert labels == asked.pool
        assert len(platform[executor].get("tolerations", [])) == len(asked.tolerations)


def test_nothing_is_installed_when_a_task_starts(name: str) -> None:
    assert "pip install" not in (COMPILED_FOLDER / f"{name}.yaml").read_text()


def test_nothing_is_taken_from_a_cache_that_compares_names(name: str) -> None:
    """A folder and ``models:/NAME@champion`` keep their name when what they name changes."""
    specification, _ = compiled(name)
    assert not [c for c, task in tasks(specification).items() if task["cachingOptions"].get("enableCache")]


def test_a_local_run_has_no_retries(name: str) -> None:
    text = (COMPILED_FOLDER / f"{name}.yaml").read_text()
    assert "retryPolicy" in text
    assert "retryPolicy" not in for_local_runner(text)


def test_a_local_run_takes_the_pipelines_parameters_not_those_of_a_component_called_alike(name: str) -> None:
    from kfp import components

    entry = PIPELINES[name]
    loaded = components.load_component_from_text(for_local_runner(compile_pipeline(name)))
    assert {*entry.inputs, *entry.engines, *(f"{s}_config" for s in entry.configs)} == set(
        loaded.component_spec.inputs
    )
