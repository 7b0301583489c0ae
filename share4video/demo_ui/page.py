"""What the tabs work with: the models, the uploads, and how long to wait."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from share4video.captioning.roles import Dialect
from share4video.demo_ui.captions import Captioner
from share4video.demo_ui.pictures import Picture, Shown, Uploads
from share4video.demo_ui.served import ServedModel
from share4video.demo_ui.settings import Bounds
from share4video.errors import UserError


@dataclass(frozen=True)
class Page:
    """One app's models and files.

    Attributes:
        chat: None where the app has no chat model.
        captioner: None where the app has none.
        summarizer: the captioner where it is None.
        folder: where uploads are; no other file of this machine is read for a visitor, but for examples.
        dialect: the captioners' prompts, unless the visitor chooses others.
        patience_s: how long a model may say nothing.
    """

    chat: ServedModel | None
    captioner: ServedModel | None
    summarizer: ServedModel | None
    uploads: Uploads
    folder: Path
    dialect: Dialect = "sharecaptioner"
    patience_s: float = 120.0

    @property
    def bounds(self) -> Bounds:
        return self.uploads.bounds

    def uploaded(self, given: str | None) -> Path | None:
        """Return the path of an upload; None where it is none, wherever else it may lead."""
        if not given:
            return None
        path = Path(given).resolve()
        return path if path.is_file() and path.is_relative_to(self.folder.resolve()) else None

    async def picture(self, path: Path, frames: int) -> Picture:
        """Return what the chat model is shown of a file. Raises UserError where that cannot be."""
        domain = self.chat.domain if self.chat else "any"
        return await self.uploads.picture(path, frames, domain=domain, model=_name(self.chat))

    async def key_frames(self, path: Path | None, interval_s: float, most: int) -> Shown:
        """Return the key frames the captioner is shown. Raises UserError where there are none."""
        if path is None:
            raise UserError("there is no clip to caption", fix="upload a video, or take an example")
        domain = self.captioner.domain if self.captioner else "any"
        return await self.uploads.key_frames(
            path, interval_s=interval_s, most=most, domain=domain, model=_name(self.captioner)
        )

    async def greeting(self) -> list[str]:
        """Return a line for each model: which one answers, or why none does."""
        lines = []
        for role, model in (("Chat", self.chat), ("Captions", self.captioner)):
            try:
                told = "no model" if model is None else await model.greeting()
            except UserError as error:
                told = error.sentence()
            lines.append(f"{role}: {told}")
        return lines

    def chat_model(self) -> ServedModel:
        """Return the chat model. Raises UserError where the app has none."""
        if self.chat is None:
            raise UserError("this app has no chat model", fix="start it with --model or --chat-url")
        return self.chat

    async def captioning(self, dialect: str) -> Captioner:
        """Return the models that caption, asked in ``dialect``.

        Raises:
            UserError: the app has none, or nothing answers at their addresses.
        """
        if self.captioner is None:
            raise UserError("this app has no captioner", fix="start it with --captioner or --caption-url")
        captioner = await self.captioner.endpoint()
        summarizer = captioner if self.summarizer is None else await self.summarizer.endpoint()
        return Captioner.of(
            captioner,
            summarizer,
            dialect="teacher" if dialect == "teacher" else "sharecaptioner",
            domain=self.captioner.domain,
        )


def _name(model: ServedModel | None) -> str:
    if model is None:
        return ""
    return model.running.spec.model if model.running else model.model
