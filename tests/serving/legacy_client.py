"""A client of the legacy captioner's server."""

from __future__ import annotations

from typing import Any

import openai

MODEL = "Lin-Chen/ShareCaptioner-Video"


def ask(client: openai.OpenAI, *content: Any, **fields: Any) -> Any:
    given: Any = {"model": MODEL, "messages": [{"role": "user", "content": list(content)}], **fields}
    return client.chat.completions.create(**given)
