"""A conversation through a processor's chat template and tokenizer, whatever the architecture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from share4video.dataset.messages import IMAGE_MARK, Message
from share4video.models.chat_session import VisualKind

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class EncodedText:
    """One conversation as token ids.

    Attributes:
        input_ids: (length,) with the mark of a picture or video repeated once per feature.
        supervised: (length,) true on the answers, their end-of-turn token included.
    """

    input_ids: torch.Tensor
    supervised: torch.Tensor


def as_parts(messages: Sequence[Message], kind: VisualKind) -> list[dict[str, Any]]:
    """Return the conversation in the form chat templates take.

    Args:
        kind: of the part that stands where the mark stood, at the head of the first user turn.
    """
    turns: list[dict[str, Any]] = []
    first = next((place for place, message in enumerate(messages) if message.role == "user"), None)
    for place, message in enumerate(messages):
        mark, _, text = message.content.partition("\n")
        content: list[dict[str, Any]] = [{"type": "text", "text": message.content}]
        if place == first and mark == IMAGE_MARK:
            content = [{"type": kind}, {"type": "text", "text": text}]
        turns.append({"role": message.role, "content": content})
    return turns


def encode_text(
    processor: Any, messages: Sequence[Message], *, kind: VisualKind | None, copies: int = 0
) -> EncodedText:
    """Put a conversation through chat template and tokenizer.

    Which tokens are answers comes from the chat template's generation marks; nothing here counts characters.

    Args:
        kind: what the mark stands for; None where nothing is shown.
        copies: how often its token stands for it.
    """
    import torch

    batch = _templated(processor, messages, kind, return_assistant_tokens_mask=True)
    input_ids = torch.as_tensor(batch["input_ids"][0])
    supervised = torch.as_tensor(batch["assistant_masks"][0]).bool()
    if kind is None:
        return EncodedText(input_ids, supervised)
    repeats = torch.where(input_ids == _mark_id(processor, kind), copies, 1)
    return EncodedText(input_ids.repeat_interleave(repeats), supervised.repeat_interleave(repeats))


def encode_prompt(
    processor: Any, messages: Sequence[Message], *, kind: VisualKind | None, copies: int = 0
) -> list[int]:
    """Put a conversation that waits for an answer through chat template and tokenizer; see `encode_text`.

    A mark that a model wrote into an answer is text: it shows nothing.
    """
    import torch

    batch = _templated(processor, messages, kind, add_generation_prompt=True)
    marks = {
        getattr(processor, f"{name}_token_id"): getattr(processor, f"{name}_token")
        for name in ("image", "video")
        if hasattr(processor, f"{name}_token_id")
    }
    due = None if kind is None else _mark_id(processor, kind)
    ids: list[int] = []
    for token in torch.as_tensor(batch["input_ids"][0]).tolist():
        if token == due:
            ids += [token] * copies
            due = None
        elif token in marks:
            ids += _letters(processor.tokenizer, marks[token])
        else:
            ids.append(token)
    return ids


def _templated(processor: Any, messages: Sequence[Message], kind: VisualKind | None, **options: bool) -> Any:
    """Return the chat template's tokens, ``input_ids`` and what ``options`` ask for, each a batch of one."""
    return processor.apply_chat_template(
        as_parts(messages, kind or "image"),
        tokenize=True,
        return_dict=True,
        processor_kwargs={"padding": False},
        **options,
    )


def _mark_id(processor: Any, kind: VisualKind) -> int:
    found: int = getattr(processor, f"{kind}_token_id")
    return found


def _letters(tokenizer: Any, mark: str) -> list[int]:
    """Return a mark as the tokens of its letters; in two, as the tokenizer would make it the mark again."""
    parts = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in (mark[:1], mark[1:]))
    return [token for part in parts for token in part]
