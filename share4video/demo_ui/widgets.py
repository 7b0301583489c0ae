"""Gradio's components, narrowed to what an app may do with files it does not trust.

They are narrowed one by one: for a class of our own Gradio would write a stub file beside this one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import FileData


def clip_upload(**options: Any) -> gr.File:
    """Return a place for a file. Gradio's own would also fetch an address that is named in a file's place."""
    upload = gr.File(**options)
    keep = upload.async_move_resource_to_block_cache

    async def keep_uploads(given: str | Path | None) -> str | None:
        if given is not None and "://" in str(given):
            raise gr.Error("Upload a file: this app fetches no addresses.")
        return await keep(given)

    def path_of(given: Any) -> str | None:  # Gradio's makes an empty file each time and never removes it
        return None if given is None else str(given.path)

    upload.async_move_resource_to_block_cache = keep_uploads  # type: ignore[method-assign, assignment]
    upload.preprocess = path_of  # type: ignore[method-assign, assignment]
    return upload


def clip_player(**options: Any) -> gr.Video:
    """Return a player of files as they are. Gradio's own lets ffmpeg, if any, read them unguarded."""
    player = gr.Video(interactive=False, **options)

    def as_it_is(value: str | Path | None) -> FileData | None:
        return None if value is None else FileData(path=str(value))

    player.postprocess = as_it_is
    return player
