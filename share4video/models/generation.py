"""Answers of a language model, token by token, with the keys and values of a conversation kept.

What every family's reference chat runtime (`models/*/chat.py`) shares. The caller brings the whole
conversation as token ids each turn; what the model has read of it before is found by comparing ids and not
computed again. So an answer is that to the whole conversation sent at once, whatever happened before: where
an answer's text has other tokens than those the model wrote (it was cut, or written in an unusual way), the
model reads again from the first token that differs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import takewhile
from typing import Any

import torch
from transformers import DynamicCache, LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

from share4video.errors import UserError
from share4video.models.chat_session import Decoding
from share4video.stop_strings import StopStrings

_BROKEN = "\N{REPLACEMENT CHARACTER}"  # what tokenizers decode half a character to


class Context:
    """What a language model has read of one conversation, with its keys and values.

    Args:
        model: a transformers model with a language head; it is called with ``input_ids`` or
            ``inputs_embeds``, ``past_key_values``, ``use_cache`` and ``logits_to_keep``.
        limit: how many tokens the model's positions reach.

    Attributes:
        computed_tokens: tokens of prompts the model ran over so far.
    """

    def __init__(self, model: Any, limit: int) -> None:
        self.computed_tokens = 0
        self.limit = limit
        self._model = model
        self._cache = DynamicCache()
        self._read: list[int] = []  # the tokens whose keys and values the cache holds

    def read(self, prompt: Sequence[int], inputs_embeds: torch.Tensor | None = None) -> torch.Tensor:
        """Read a prompt, which begins with the whole conversation so far.

        Args:
            prompt: all its tokens. Equal ids must mean equal inputs: a placeholder stands for one picture.
            inputs_embeds: (1, length, hidden) what the model takes in their place; None looks them up.

        Returns:
            (vocabulary,) float32 logits of the token after the last one.

        Raises:
            UserError: the prompt leaves no room for an answer.
        """
        if len(prompt) >= self.limit:
            raise self._full(f"the conversation has {len(prompt)} tokens, and the model holds {self.limit}")
        pairs = zip(self._read, prompt, strict=False)
        known = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        known = min(known, len(prompt) - 1)  # the last token is always read: its logits are what is asked for
        if known < len(self._read):
            self._cache.crop(known - len(self._read))
            del self._read[known:]
        rest = None if inputs_embeds is None else inputs_embeds[:, known:]
        logits = self._forward(prompt[known:], rest)
        self.computed_tokens += len(prompt) - known
        return logits

    def append(self, token: int) -> torch.Tensor:
        """Read the answer's next token; returns as `read` does. Raises UserError where there is no room."""
        if len(self._read) + 1 >= self.limit:
            raise self._full(
                f"the answer was cut: the conversation fills the {self.limit} tokens the model holds"
            )
        return self._forward([token], None)

    @torch.inference_mode()
    def _forward(self, ids: Sequence[int], inputs_embeds: torch.Tensor | None) -> torch.Tensor:
        read, self._read = self._read, []
        if not read:  # nothing yet, or a pass that was broken off and left layers of different lengths
            self._cache = DynamicCache()
        inputs: dict[str, torch.Tensor] = (
            {"input_ids": torch.tensor([list(ids)], device=self._model.device)}
            if inputs_embeds is None
            else {"inputs_embeds": inputs_embeds}
        )
        output = self._model(**inputs, past_key_values=self._cache, use_cache=True, logits_to_keep=1)
        self._read = [*read, *ids]
        logits: torch.Tensor = output.logits[0, -1].float()
        return logits

    def _full(self, what: str) -> UserError:
        return UserError(what, fix="begin a new conversation, with shorter questions or fewer of them")


def stream_answer(
    context: Context,
    tokenizer: Any,
    prompt: Sequence[int],
    decoding: Decoding,
    *,
    end: Collection[int],
    inputs_embeds: torch.Tensor | None = None,
) -> Iterator[str]:
    """Yield the answer to ``prompt`` as text, in pieces that end between characters.

    Args:
        prompt, inputs_embeds: see `Context.read`.
        end: the tokens that end an answer.

    Raises:
        UserError: the conversation is longer than the model holds; before the first piece where the prompt
            is, or after the last one there was room for.
    """
    choose = Chooser(decoding)
    text, stop = TextStream(tokenizer), StopStrings(decoding.stop)
    logits = context.read(prompt, inputs_embeds)
    for room in range(decoding.max_tokens - 1, -1, -1):
        token = choose(logits)
        if token in end:
            break
        shown = stop.push(text.push(token))
        if shown:
            yield shown
        if stop.found:
            return
        if room:
            logits = context.append(token)
    shown = stop.flush()
    if shown:
        yield shown


def answer_ends(tokenizer: Any, *configs: Any) -> frozenset[int]:
    """Return the tokens that end an answer: the tokenizer's end of the text, and what configurations name."""
    named: set[int | None] = {tokenizer.eos_token_id}
    for config in configs:
        ends = getattr(config, "eos_token_id", None)
        named.update(ends if isinstance(ends, list) else [ends])
    return frozenset(token for token in named if token is not None)


class Chooser:
    """Chooses the next token: the likeliest at temperature 0, else one drawn, repeatably with a seed."""

    def __init__(self, decoding: Decoding) -> None:
        self._greedy = decoding.temperature == 0
        if self._greedy:
            return
        self._processors: Any = LogitsProcessorList(  # its types ask for kinds of tensor that no call makes
            [TemperatureLogitsWarper(float(decoding.temperature))]
        )
        if decoding.top_p < 1:
            self._processors.append(TopPLogitsWarper(float(decoding.top_p)))
        self._random = torch.Generator()  # on the CPU: one seed, one answer, whatever the device
        if decoding.seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(decoding.seed)

    def __call__(self, logits_V: torch.Tensor) -> int:
        if self._greedy:
            return int(logits_V.argmax())
        scores_1V = self._processors(torch.empty(1, 0, dtype=torch.long), logits_V.cpu()[None])
        return int(torch.multinomial(scores_1V.softmax(dim=-1), 1, generator=self._random))


class TextStream:
    """Text of tokens that come one by one; half a character waits for its other half."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._shown = 0

    def push(self, token: int) -> str:
        """Return the text that ``token`` completes, without special tokens; it may be empty."""
        self._ids.append(token)
        # All of them: a token's text depends on those before it, and how far back is the tokenizer's affair.
        # It takes a thousandth of the time in which the model makes the token.
        whole = self._tokenizer.decode(
            self._ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        ).rstrip(_BROKEN)
        new: str = whole[self._shown :]
        self._shown = max(self._shown, len(whole))
        return new
