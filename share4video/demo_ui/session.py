"""What the app keeps of one visitor."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from share4video.demo_ui.captions import CaptionedClip
from share4video.demo_ui.pictures import Picture
from share4video.demo_ui.talk import Talk


@dataclass
class Session:
    """A clip, the conversation about it and its captions; a new clip begins all of it anew.

    Attributes:
        choice: counts what was chosen, a clip or a grid. What takes its time compares it before and after,
            and shows nothing of a choice that another has followed.
    """

    path: Path | None = None
    choice: int = 0
    talk: Talk = field(default_factory=Talk)
    captioned: CaptionedClip = field(default_factory=CaptionedClip)

    def about(self, path: Path | None, picture: Picture | None) -> None:
        """Begin anew, about another clip."""
        self.choose()
        self.path = path
        self.talk = Talk(picture)
        self.captioned = CaptionedClip()

    def choose(self) -> int:
        """Note that something was chosen, and return its number."""
        self.choice += 1
        return self.choice
