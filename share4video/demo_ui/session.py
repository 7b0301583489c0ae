"""What the app keeps of one visitor."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from share4video.demo_ui.captions import CaptionedClip
from share4video.demo_ui.pictures import Picture
from share4video.demo_ui.talk import Talk


@dataclass
class Session:
    """A clip, the conversation about it and its captions; a new clip begins all of it anew."""

    path: Path | None = None
    talk: Talk = field(default_factory=Talk)
    captioned: CaptionedClip = field(default_factory=CaptionedClip)

    def about(self, path: Path | None, picture: Picture | None) -> None:
        """Begin anew, about another clip."""
        self.path = path
        self.talk = Talk(picture)
        self.captioned = CaptionedClip()
