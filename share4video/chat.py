"""Chat about a clip: the prompt the chat model was trained with, and a conversation with a served one.

A conversation sends the clip as ``video_url``; the gateway in front of the model samples its frames, lays
them out as one grid and puts the pre-query in front of the question, so that layout, prompt and weights
belong together. Code that composes the grid itself (training, evaluation) takes the prompt from here. An
endpoint that takes no clips is sent the grid; see `share4video.chat_visuals`.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

from share4video.chat_visuals import GRID_FRAMES, MAX_INLINE_BYTES, PRE_QUERY, Visual
from share4video.decoding import GREEDY, Decoding
from share4video.served_models import (
    API_KEY_VARIABLE,
    NO_KEY,
    OWNER,
    connection_options,
    list_models,
    model_address,
    plain_errors,
)
from share4video.stop_strings import StopStrings

if TYPE_CHECKING:
    from openai import OpenAI

__all__ = [
    "GRID_FRAMES",
    "MAX_INLINE_BYTES",
    "PRE_QUERY",
    "SYSTEM_PROMPT",
    "Conversation",
    "Visual",
    "grid_question",
    "user_turn",
]

SYSTEM_PROMPT = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the "
    "user provides, and assist the user with a variety of tasks using natural language."
)
_NAMING = "say with --name what it calls its model"


def grid_question(question: str) -> str:
    """Return the text that stands after the grid image: pre-query and question, with nothing in between."""
    return PRE_QUERY + question


def user_turn(question: str, part: dict[str, Any] | None = None, preface: str = "") -> dict[str, Any]:
    """Return a person's turn as a message.

    Args:
        part: the picture or clip the conversation is about, in its first turn.
        preface: what stands in front of the question, with nothing in between.
    """
    text = preface + question
    return {"role": "user", "content": text if part is None else [part, {"type": "text", "text": text}]}


class Conversation:
    """A chat about one clip or picture, or about none, with the model behind an OpenAI-compatible address.

    Args:
        base_url: where the endpoint answers; ``/v1`` is added where it is missing.
        visual: a clip's address, or more about what is shown; None for a conversation in words alone.
        model: the served model's name; empty asks the address for the one it serves.
        system: what is said before the first turn; empty leaves it to the checkpoint's chat template.

    Raises:
        UserError: it is no address, or no model server answers there; or the endpoint cannot be sent this.
    """

    def __init__(
        self,
        base_url: str,
        visual: Visual | str | None,
        *,
        model: str = "",
        system: str = "",
        timeout_s: float = 600.0,
    ) -> None:
        self.base_url = model_address(base_url)
        self._client = _client(self.base_url, timeout_s)
        self._timeout_s = timeout_s
        listed = list_models(
            self.base_url, naming=_NAMING, named=bool(model), api_key=_key(), timeout_s=timeout_s
        )
        self.model = model or listed[0].name
        gateway = bool(listed) and listed[0].owner == OWNER
        self._part: dict[str, Any] | None = None
        self._preface = ""
        if visual is not None:
            shown = Visual(visual) if isinstance(visual, str) else visual
            self._part, self._preface = shown.part(gateway=gateway)
        self.messages: list[Any] = [{"role": "system", "content": system}] if system else []

    def ask(self, question: str, decoding: Decoding = GREEDY) -> Iterator[str]:
        """Send the next question and yield the answer as it comes; the turn counts once its last piece came.

        Stop strings are cut here: not every server takes them.

        Raises:
            UserError: the endpoint refused the question (in its own words) or went away.
        """
        turn = [*self.messages, user_turn(question, self._part, self._preface)]
        answer = ""
        with closing(self._pieces(turn, decoding)) as pieces:
            for piece in StopStrings(decoding.stop).cut(pieces):
                answer += piece
                yield piece
        self._part, self._preface = None, ""  # they stand in the first turn; later ones refer back to it
        self.messages = [*turn, {"role": "assistant", "content": answer}]

    def _pieces(self, turn: list[Any], decoding: Decoding) -> Generator[str]:
        """Yield the endpoint's answer; closing it ends the answer there, too."""
        drawn: dict[str, Any] = {"temperature": decoding.temperature}
        if decoding.top_p < 1:
            drawn["top_p"] = decoding.top_p
        if decoding.seed is not None:
            drawn["seed"] = decoding.seed
        with (
            plain_errors(self.base_url, timeout_s=self._timeout_s),
            self._client.chat.completions.create(
                model=self.model, messages=turn, max_tokens=decoding.max_tokens, stream=True, **drawn
            ) as stream,
        ):
            for chunk in stream:
                text = chunk.choices[0].delta.content if chunk.choices else None
                if text:
                    yield text


def _key() -> str:
    return os.environ.get(API_KEY_VARIABLE) or NO_KEY  # as for engines


def _client(base_url: str, timeout_s: float) -> OpenAI:
    import openai

    return openai.OpenAI(
        base_url=base_url,
        api_key=_key(),
        timeout=timeout_s,
        max_retries=1,
        http_client=openai.DefaultHttpxClient(**connection_options(base_url)),
    )
