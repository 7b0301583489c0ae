"""Models behind the OpenAI protocol."""

from __future__ import annotations

from pydantic import Field, model_validator

from share4video.config.base import Config
from share4video.prompt_set import Base, PromptSet
from share4video.wording import Adapted, TileBudgets, Wording


class EngineSpec(Config):
    """A model behind the OpenAI chat-completions protocol.

    Exactly one of ``url``, ``model_path`` and ``inference_service`` says where it is: an endpoint that is
    running, a local checkpoint to serve for the time of the stage, or the name of a KServe InferenceService.
    Outputs depend on ``model`` and ``revision`` only, never on where the model ran. A relative
    ``model_path`` or ``builtin:<name>`` (weights shipped with the package) is resolved when it is served, and
    an empty revision of a local checkpoint becomes the hash of its files. ``prompts`` are a person's own,
    over the ``dialect``. ``json_schema``: the engine takes a schema for its answer (``response_format``).
    ``tiles``: a picture is sent as whole tiles, as many as its role's budget allows, which is for the dialect
    that shows one picture. ``system_message``: its chat template takes one.
    ``request_timeout_s`` bounds an attempt at a call, ``call_timeout_s`` all of them. Prices are per million
    tokens, in any one currency.
    """

    url: str | None = None
    model_path: str | None = None
    inference_service: str | None = None
    model: str = ""
    revision: str = ""
    dialect: Base = "sharecaptioner"
    prompts: PromptSet | None = None
    tiles: TileBudgets | None = None
    system_message: bool = True
    json_schema: bool = False
    max_in_flight: int = Field(4, ge=1, le=4096)
    request_timeout_s: float = Field(120.0, gt=0)
    call_timeout_s: float = Field(900.0, gt=0)
    retries: int = Field(4, ge=0, le=20)
    prompt_price: float = Field(0.0, ge=0)
    completion_price: float = Field(0.0, ge=0)

    @model_validator(mode="after")
    def _one_place(self) -> EngineSpec:
        places = [self.url, self.model_path, self.inference_service]
        if sum(place is not None for place in places) != 1:
            raise ValueError("give exactly one of url, model_path and inference_service")
        if self.prompts is not None and self.prompts.base != self.dialect:
            raise ValueError(f"its prompts are over the dialect {self.prompts.base}, not {self.dialect}")
        if self.tiles is not None and self.dialect != "sharecaptioner":
            raise ValueError(f"tiles are for the dialect that shows one picture, not for {self.dialect}")
        return self

    @property
    def wording(self) -> Wording:
        """How it is asked: in its own prompts where there are some, else in its dialect; in its form."""
        words = self.prompts or self.dialect
        system_message = self.system_message or words == "sharecaptioner"  # which has none to begin with
        if self.tiles is None and system_message:
            return words
        return Adapted(words=words, tiles=self.tiles, system_message=system_message)


class EnginesConfig(Config):
    """Which model does what. ``summarizer`` is the captioner where it is None."""

    captioner: EngineSpec = EngineSpec(model_path="builtin:nano-captioner")
    summarizer: EngineSpec | None = EngineSpec(model_path="builtin:nano-summarizer")
