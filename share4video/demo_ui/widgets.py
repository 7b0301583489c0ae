"""Gradio's components, narrowed to what an app may do with files it does not trust."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import FileData


class ClipUpload(gr.File):
    """A file a visitor gives. Gradio's own would also fetch an address that is named in its place."""

    is_template = True  # shown by the parent's front end

    async def async_move_resource_to_block_cache(self, url_or_file_path: str | Path | None) -> str | None:
        """Return the path of an upload. Raises gr.Error where it is an address."""
        if url_or_file_path is not None and "://" in str(url_or_file_path):
            raise gr.Error("Upload a file: this app fetches no addresses.")
        return await super().async_move_resource_to_block_cache(url_or_file_path)

    def preprocess(self, payload: Any) -> str | None:
        """Return the path. Gradio's own makes an empty file beside it each time, and never removes it."""
        return None if payload is None else str(payload.path)


class ClipPlayer(gr.Video):
    """Plays a file as it is. Gradio's own has ffmpeg, where there is one, read it outside of any guard."""

    is_template = True

    def postprocess(self, value: str | Path | None) -> FileData | None:
        """Return what the page plays."""
        return None if value is None else FileData(path=str(value))
