"""What a client may ask of the chat routes: checked where a wrong value would be the upstream's 500."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, ValidationError
from pydantic_core import from_json

from serving.gateway.refusal import Refusal

MAX_CHOICES = 8
# What model servers take beyond OpenAI's protocol that is not a client's to set: bounds on length, the chat
# template, how images are read, other hosts.
NOT_TAKEN = (
    "generation_config",
    "chat_template",
    "mm_processor_kwargs",
    "media_io_kwargs",
    "kv_transfer_params",
    "extra_args",
    "vllm_xargs",
)
_SHOWN = 100  # characters of what a client sent
Tokens = StrictInt | None


class ChatFields(BaseModel):
    """The fields of a chat request that are checked here; all others are passed on as they are.

    ``messages`` are checked where their clip is looked for, and ``model`` where the served one is known.
    """

    model_config = ConfigDict(extra="allow")

    stream: StrictBool | None = None
    max_tokens: Tokens = Field(None, ge=1)
    max_completion_tokens: Tokens = Field(None, ge=1)
    n: StrictInt | None = Field(None, ge=1, le=MAX_CHOICES)
    seed: StrictInt | None = None
    temperature: StrictFloat | None = Field(None, ge=0, le=2)
    top_p: StrictFloat | None = Field(None, ge=0, le=1)
    frequency_penalty: StrictFloat | None = Field(None, ge=-2, le=2)
    presence_penalty: StrictFloat | None = Field(None, ge=-2, le=2)
    chat_template_kwargs: dict[str, StrictBool] | None = None  # switches, such as enable_thinking


def check_fields(body: dict[str, Any], max_tokens: int) -> None:
    """Check everything of a chat request but its messages and its model.

    Raises:
        Refusal: (400) a field is not of its type or out of its bounds, is not a client's to set, or the
            answer may be longer than ``max_tokens``.
    """
    for name in NOT_TAKEN:
        if body.get(name) is not None:
            raise Refusal(400, "bad_request", f"{name}: this is the model's, and not taken from clients")
    try:
        fields = ChatFields.model_validate(body)
    except ValidationError as error:
        first = error.errors()[0]
        raise Refusal(400, "bad_request", f"{first['loc'][0]}: {first['msg']}") from None
    for name in ("max_tokens", "max_completion_tokens"):
        if (getattr(fields, name) or 0) > max_tokens:
            raise Refusal(400, "bad_request", f"{name}: this gateway's answers have at most {max_tokens}")


def check_model(body: dict[str, Any], served: str) -> None:
    """Raise Refusal (404) where ``body`` asks for a model that is not the one served; none named is fine."""
    asked = body.get("model") or served
    if asked != served:
        raise Refusal(
            404,
            "model_not_found",
            f"there is no model {str(asked)[:_SHOWN]!r} here; this gateway serves {served!r}",
        )


async def read_object(request: Request) -> dict[str, Any]:
    """Return the request's JSON object. Raises Refusal (400) where it holds something else."""
    try:
        # strict: Python's own parser takes NaN and half characters, which no JSON can be written with
        body = from_json(await request.body(), allow_inf_nan=False)
    except ValueError:
        raise Refusal(400, "bad_json", "the request is not JSON") from None
    if not isinstance(body, dict):
        raise Refusal(400, "bad_json", "the request is not a JSON object")
    return body
