"""One instance of a ``:predict`` request, for each kind of model the gateway stands in front of."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from kserve.errors import InvalidInput

from serving.gateway.caption_requests import CaptionRequest
from serving.gateway.captioner import CaptionService
from serving.gateway.chat_routes import ChatService

AnswerInstance = Callable[[int, dict[str, Any]], Awaitable[dict[str, Any]]]


def of_chat(service: ChatService) -> AnswerInstance:
    """Answer ``{"question", "video_url" | "image_url"?, "max_tokens"?}`` with ``{"answer"}``."""

    async def answer(number: int, instance: dict[str, Any]) -> dict[str, Any]:
        unknown = set(instance) - {"question", "video_url", "image_url", "max_tokens"}
        if unknown or not isinstance(instance.get("question"), str):
            raise InvalidInput(f"instance {number} needs a question, and a video_url or an image_url")
        parts = [{"type": key, key: instance[key]} for key in ("video_url", "image_url") if key in instance]
        content = [*parts, {"type": "text", "text": instance["question"]}]
        body: dict[str, Any] = {"messages": [{"role": "user", "content": content}], "temperature": 0.0}
        if "max_tokens" in instance:
            body["max_tokens"] = instance["max_tokens"]
        completion = await service.answer(body)
        return {"answer": completion["choices"][0]["message"].get("content") or ""}

    return answer


def of_captioner(service: CaptionService) -> AnswerInstance:
    """Answer what ``/v1/captions`` takes with what it answers; nothing streams."""

    async def answer(number: int, instance: dict[str, Any]) -> dict[str, Any]:
        request = CaptionRequest.parse(instance, place=f"instance {number}")
        return await service.answer(request)

    return answer
