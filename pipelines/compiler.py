"""Compile a pipeline to the intermediate representation (IR) that Kubeflow Pipelines runs.

Equal sources give equal bytes, so the IR is committed below ``pipelines/compiled`` and checked for drift.
"""

import tempfile
from pathlib import Path

from components.image import PLACEHOLDER_IMAGE
from pipelines.catalogue import find_pipeline

COMPILED_FOLDER = Path(__file__).with_name("compiled")


def compile_pipeline(name: str, image: str = PLACEHOLDER_IMAGE) -> str:
    """Return the IR of pipeline ``name`` as YAML; every task runs in ``image``.

    Raises:
        UserError: there is no such pipeline.
    """
    from kfp import compiler

    pipeline = find_pipeline(name).load()
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / f"{name}.yaml"
        compiler.Compiler().compile(pipeline, str(target))
        text = target.read_text(encoding="utf-8")
    placeholder = f"image: {PLACEHOLDER_IMAGE}\n"
    assert placeholder in text, f"{name}: no task runs in the placeholder image"
    return text.replace(placeholder, f"image: {image}\n")
