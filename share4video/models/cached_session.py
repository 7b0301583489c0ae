"""A conversation whose keys and values are kept: the session of every family's reference chat runtime."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from share4video.dataset.messages import Message
from share4video.errors import UserError
from share4video.models.chat_session import GREEDY, Decoding
from share4video.models.generation import Context, stream_answer

Turns = tuple[tuple[str, str], ...]  # questions and their answers
Prompt = tuple[list[int], torch.Tensor | None]  # as `Context.read` takes it


class CachedSession:
    """A conversation; see `share4video.models.chat_session.ChatSession`.

    Args:
        prompt: makes the prompt of the turns so far and the next question. What is shown stands in it once;
            equal turns must give equal tokens. Raises UserError where the question cannot be asked.
        end: the tokens that end an answer.
        stop: a text that ends every answer, however the tokenizer writes it; such answers have no white space
            around them. Empty where there is none.

    Attributes:
        turns: questions and their answers so far, as they were asked and said.
    """

    def __init__(
        self,
        context: Context,
        tokenizer: Any,
        prompt: Callable[[Turns, str], Prompt],
        *,
        end: Collection[int],
        stop: str = "",
    ) -> None:
        self.turns: Turns = ()
        self._context, self._tokenizer, self._prompt = context, tokenizer, prompt
        self._end, self._stop = end, stop

    @property
    def computed_tokens(self) -> int:
        """Tokens of prompts the model ran over so far; what its cache held is not counted again."""
        return self._context.computed_tokens

    def ask(self, question: str, decoding: Decoding = GREEDY) -> Iterator[str]:
        """Yield the answer as it comes; the turn counts once its last piece was taken.

        Raises:
            UserError: the question cannot be asked, or the conversation is longer than the model holds.
        """
        turns, answer = self.turns, ""
        prompt, embeddings = self._prompt(turns, question)
        if self._stop:
            decoding = replace(decoding, stop=(*decoding.stop, self._stop))
        pieces = stream_answer(
            self._context, self._tokenizer, prompt, decoding, end=self._end, inputs_embeds=embeddings
        )
        for piece in _trimmed(pieces) if self._stop else pieces:
            answer += piece
            yield piece
        self.turns = (*turns, (question, answer))

    def prompt_tokens(self, question: str) -> list[int]:
        """Return the whole conversation up to the answer as token ids, a placeholder per visual feature.

        This and `first_logits` are for comparing the runtime with another one.
        """
        return self._prompt(self.turns, question)[0]

    def first_logits(self, question: str) -> torch.Tensor:
        """Return (vocabulary,) float32 logits of the answer's first token; the question is not kept."""
        return self._context.read(*self._prompt(self.turns, question))


def as_messages(turns: Turns, question: str, head: str = "") -> tuple[Message, ...]:
    """Return the conversation up to the next answer, with ``head`` in front of its first question."""
    messages = []
    for asked, answer in turns:
        messages += [Message("user", asked), Message("assistant", answer)]
    messages.append(Message("user", question))
    return (Message("user", head + messages[0].content), *messages[1:])


def refuse_marks(question: str, marks: Iterable[str]) -> None:
    """Raise UserError where a question holds what stands for something shown."""
    for mark in marks:
        if mark in question:
            fix = "write the question without it"
            raise UserError(f"a question may not hold {mark}, which stands for what is shown", fix=fix)


@torch.inference_mode()
def embed_features(model: Any, ids: Sequence[int], mark: int, features_ND: torch.Tensor) -> torch.Tensor:
    """Return (1, length, hidden) embeddings of ``ids``, the features in the places of their ``mark``."""
    ids_1L = torch.tensor([list(ids)], device=model.device)
    embeddings_1LD = model.get_input_embeddings()(ids_1L)
    places_1LD = (ids_1L == mark)[..., None].expand_as(embeddings_1LD)
    found: torch.Tensor = embeddings_1LD.masked_scatter(places_1LD, features_ND.to(embeddings_1LD.dtype))
    return found


def _trimmed(pieces: Iterable[str]) -> Iterator[str]:
    """Yield pieces of text without the white space before the first and after the last character."""
    held, begun = "", False
    for piece in pieces:
        text = held + piece if begun else (held + piece).lstrip()
        shown = text.rstrip()
        held = text[len(shown) :]
        if shown:
            begun = True
            yield shown
