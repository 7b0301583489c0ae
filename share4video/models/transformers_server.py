"""The process of a local model server: ``transformers serve``, with checkpoints checked before they load.

Started by `share4video.captioning.model_server` under its supervisor:
``python -m share4video.models.transformers_server --port 0 --device cpu --dtype float32``. Models are named
by folders below the working directory and loaded on request (``POST /load_model``); none is pinned, so that
one process, and one import of torch, serves a run's captioner, summariser and chat model.

A chat template that refuses a conversation is answered with 400 and the reason, not with 500: asking again
would not help.

stdout carries one JSON line: ``{"port": N}`` once requests are answered, or ``{"error": sentence}``.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import transformers
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from jinja2 import TemplateError
from transformers.cli.serve import Serve
from transformers.cli.serving import model_manager
from transformers.cli.serving import server as transformers_app

from share4video.models.llava_next.processor import keep_backend
from share4video.models.loading import misfits

HOST = "127.0.0.1"
START_TIMEOUT_S = 60.0


class IncompleteCheckpointError(Exception):
    """The weights do not fill the architecture; transformers would go on with random numbers in the gaps."""


def check_tensor_names(folder: str) -> None:
    """Compare a checkpoint's tensors with its architecture, on the meta device: no weight is read.

    Raises:
        IncompleteCheckpointError: tensors are missing, unexpected or of another shape.
    """
    config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    architecture = getattr(transformers, (config.architectures or [""])[0], None)
    if architecture is None:
        raise IncompleteCheckpointError(f"unknown architecture {config.architectures}")
    _, info = architecture.from_pretrained(
        folder, device_map="meta", use_safetensors=True, trust_remote_code=False, output_loading_info=True
    )
    if problems := misfits(info):
        raise IncompleteCheckpointError(f"the weights do not fit the architecture: {problems}")


class CheckedModelManager(model_manager.ModelManager):
    """Refuses a checkpoint with gaps, which transformers itself only warns of.

    Models are loaded one at a time: two requests load in two threads, and transformers builds models under
    settings of the whole process, so that one load finds its weights missing where another interferes.
    """

    _loading = threading.Lock()

    def _load_model(self, model_id_and_revision: str, *args: Any, **kwargs: Any) -> Any:
        with self._loading:
            check_tensor_names(model_id_and_revision.split("@", 1)[0])
            return super()._load_model(model_id_and_revision, *args, **kwargs)

    def _load_processor(self, model_id_and_revision: str, gguf_file: str | None = None) -> Any:
        """Take the picture backend that the checkpoint was converted for, where it names one."""
        spell_no_numbers()
        processor = super()._load_processor(model_id_and_revision, gguf_file=gguf_file)
        return keep_backend(processor, Path(model_id_and_revision.split("@", 1)[0]))


def spell_no_numbers() -> None:
    """Let SmolVLM's processor load where the package it spells a video's number of frames with is missing.

    It wants the package for whatever it is given; pictures, which are all that is sent here, need none.
    """
    from transformers.models.smolvlm import processing_smolvlm

    def refuse(number: int) -> str:
        raise ValueError("videos need the package num2words; send their frames as pictures")

    processing_smolvlm.num2words = processing_smolvlm.num2words or refuse  # type: ignore[attr-defined]


def refuse_plainly(app: FastAPI) -> FastAPI:
    """Let ``app`` answer 400 with the reason where a chat template refuses a conversation."""

    @app.exception_handler(TemplateError)
    async def refused(_request: Request, error: TemplateError) -> JSONResponse:
        said = f"the model's chat template refuses the conversation: {error}"
        return JSONResponse({"error": {"message": said, "type": "invalid_request_error"}}, 400)

    return app


def serve(*, port: int, device: str, dtype: str) -> None:
    """Serve until stdin closes, which is how the supervisor's death is noticed."""
    report = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints goes to the log, not between the lines of the report
    model_manager.ModelManager = CheckedModelManager  # type: ignore[misc] # Serve looks it up when constructed
    build = transformers_app.build_server
    transformers_app.build_server = functools.wraps(build)(lambda *a, **k: refuse_plainly(build(*a, **k)))
    # In the background thread no signal handlers are installed: SIGTERM ends the process at once, also while
    # a request hangs; and port 0 can be asked back, which leaves no gap between choosing and taking a port.
    serving = Serve(
        host=HOST,
        port=port,
        device=device,
        dtype=dtype,
        model_timeout=-1,
        log_level="warning",
        non_blocking=True,
    )
    deadline = time.monotonic() + START_TIMEOUT_S
    while not serving.server.started:
        if not serving._thread.is_alive() or time.monotonic() > deadline:
            report.write(json.dumps({"error": f"the server could not listen on port {port}"}) + "\n")
            report.flush()
            os._exit(1)
        time.sleep(0.02)
    bound = serving.server.servers[0].sockets[0].getsockname()[1]
    report.write(json.dumps({"port": bound}) + "\n")
    report.close()
    sys.stdin.buffer.read()
    os._exit(0)  # the uvicorn thread is not a daemon


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A supervised transformers serve.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    options = parser.parse_args()
    serve(port=options.port, device=options.device, dtype=options.dtype)
