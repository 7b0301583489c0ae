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
from urllib.parse import urlsplit

from share4video.chat_visuals import GRID_FRAMES, MAX_INLINE_BYTES, PRE_QUERY, Visual
from share4video.decoding import GREEDY, Decoding
from share4video.errors import UserError
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
]

SYSTEM_PROMPT = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the "
    "user provides, and assist the user with a variety of tasks using natural language."
)
OWNER = "share4video"  # what a gateway of ours says of the model it lists


def grid_question(question: str) -> str:
    """Return the text that stands after the grid image: pre-query and question, with nothing in between."""
    return PRE_QUERY + question


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
        served, gateway = self._served_model(named=bool(model))
        self.model = model or served
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
        text = self._preface + question
        content: Any = text if self._part is None else [self._part, {"type": "text", "text": text}]
        turn = [*self.messages, {"role": "user", "content": content}]
        answer = ""
        with closing(self._pieces(turn, decoding)) as pieces:
            for piece in StopStrings(decoding.stop).cut(pieces):
                answer += piece
                yield piece
        self._part, self._preface = None, ""  # they stand in the first turn; later ones refer back to it
        self.messages = [*turn, {"role": "assistant", "content": answer}]

    def _pieces(self, turn: list[Any], decoding: Decoding) -> Generator[str]:
        """Yield the endpoint's answer; closing it ends the answer there, too."""
        import openai

        drawn: dict[str, Any] = {"temperature": decoding.temperature}
        if decoding.top_p < 1:
            drawn["top_p"] = decoding.top_p
        if decoding.seed is not None:
            drawn["seed"] = decoding.seed
        try:
            with self._client.chat.completions.create(
                model=self.model, messages=turn, max_tokens=decoding.max_tokens, stream=True, **drawn
            ) as stream:
                for chunk in stream:
                    text = chunk.choices[0].delta.content if chunk.choices else None
                    if text:
                        yield text
        except openai.APIError as error:
            raise self._complaint(error) from error

    def _served_model(self, *, named: bool) -> tuple[str, bool]:
        """Return the first model the address lists, and whether a gateway of ours lists it.

        Where the model is named, a server that cannot list any (transformers serve without a cache) will do.
        """
        import openai

        naming = "say with --name what it calls its model"
        try:
            listed = self._client.models.with_raw_response.list().http_response.json()
            served = [(str(entry["id"]), entry.get("owned_by") == OWNER) for entry in listed["data"]]
        except openai.APIConnectionError as error:
            raise self._complaint(error) from error
        except openai.InternalServerError as error:
            if named:
                return "", False
            what = f"the address does not list its models: it answers with status {error.status_code}"
            raise UserError(what, where=self.base_url, fix=naming) from error
        except (openai.NotFoundError, ValueError, LookupError, TypeError, AttributeError) as error:
            # a web server, perhaps
            fix = "give the address of a gateway"
            raise UserError("what answers is no model server", where=self.base_url, fix=fix) from error
        except openai.APIError as error:
            raise self._complaint(error) from error
        if not served and not named:
            raise UserError("the address names no model", where=self.base_url, fix=naming)
        return served[0] if served else ("", False)

    def _complaint(self, error: Exception) -> UserError:
        import openai

        if isinstance(error, openai.APIConnectionError):
            return UserError(
                "no model answers", where=self.base_url, fix="start one with share4video serve, or give --url"
            )
        body = getattr(error, "body", None)
        message = body.get("message") if isinstance(body, dict) else None
        status = error.status_code if isinstance(error, openai.APIStatusError) else 500
        if message and status < 500:
            return UserError(
                str(message).rstrip(".")
            )  # the caller's to mend: where and how is in the sentence
        return UserError(
            str(message or error).rstrip("."), where=self.base_url, fix="see the server's log for more"
        )


def model_address(url: str) -> str:
    """Return an OpenAI-compatible address with its ``/v1``. Raises UserError where it is no address."""
    trimmed = url.rstrip("/")
    try:
        parts = urlsplit(trimmed)
        whole = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # half a bracket, a port that is no number
        whole = None
    if not whole:
        raise UserError("this is no address", where=url, fix="write it as http://HOST:PORT")
    return trimmed if trimmed.endswith("/v1") else f"{trimmed}/v1"


def _client(base_url: str, timeout_s: float) -> OpenAI:
    from openai import OpenAI

    key = os.environ.get("SHARE4VIDEO_API_KEY") or "none"  # as for engines
    return OpenAI(base_url=base_url, api_key=key, timeout=timeout_s, max_retries=1)
