"""How a model is asked: in which prompts, and in the form that this one takes.

Prompts are a dialect or a person's own (`share4video.prompt_set`). A model may want them in another form:
pictures of whole tiles, or no system message. What changes the words or the pixels a model is sent is part of
the version that captions are published under.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from share4video.prompt_set import Base, PromptSet

TILE_SIDE = 336  # pixels, of the CLIP tower of the reference and of LLaVA-NeXT


class TileBudgets(BaseModel):
    """How many tiles a picture of a role may fill; it is sent as that many whole ones (the HD transform).

    ShareCaptioner-Video's own: 55 and 25 in training (paper, appendix), 16 and 9 in the released demo.

    Attributes:
        fast: of pictures with any number of frames (roles fast, window and brief).
        sliding: of pictures with one frame or a pair (roles first and difference).
        side: of a tile, in pixels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    fast: int = Field(16, ge=1, le=64)
    sliding: int = Field(9, ge=1, le=64)
    side: int = Field(TILE_SIDE, ge=16, le=1024)

    @property
    def version(self) -> str:
        """What captions' prompts are called where pictures are sent so."""
        side = "" if self.side == TILE_SIDE else f"-side{self.side}"
        return f"+tiles-fast{self.fast}-sliding{self.sliding}{side}"


class Adapted(BaseModel):
    """Prompts in the form a model takes.

    Attributes:
        words: the prompts.
        tiles: for prompts that show one picture; None sends it as it was composed.
        system_message: without, what would be one opens the first message of the user.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    words: Base | PromptSet
    tiles: TileBudgets | None = None
    system_message: bool = True

    @property
    def version(self) -> str:
        """What the form adds to the version of the prompts."""
        tiles = self.tiles.version if self.tiles else ""
        if self.tiles and isinstance(self.words, PromptSet) and self.words.shows_pictures:
            tiles += "-examples"  # once they were sent as they came
        return tiles + ("" if self.system_message else "+nosystem")


Wording = Base | PromptSet | Adapted
