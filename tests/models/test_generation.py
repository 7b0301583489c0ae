"""Answers token by token are those of transformers' generate; what was read before is not read again."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from share4video.errors import UserError
from share4video.models.chat_session import Decoding
from share4video.models.generation import Chooser, Context, TextStream, stream_answer
from tests.models.tiny_language_model import END, POSITIONS, byte_tokenizer, language_model

TOKENIZER = byte_tokenizer()
MODEL = language_model()
BROKEN = "\N{REPLACEMENT CHARACTER}"
PROMPT = TOKENIZER.encode("what is this?")


def answer(prompt: list[int], decoding: Decoding, context: Context | None = None, **more: Any) -> str:
    context = context or Context(MODEL, POSITIONS)
    return "".join(stream_answer(context, TOKENIZER, prompt, decoding, end={END}, **more))


def reference(prompt: list[int], count: int) -> list[int]:
    """Greedy tokens of transformers' own loop."""
    found = MODEL.generate(
        torch.tensor([prompt]), max_new_tokens=count, do_sample=False, eos_token_id=END, pad_token_id=END
    )
    return found[0, len(prompt) :].tolist()


def test_a_greedy_answer_is_the_one_generate_gives() -> None:
    tokens = reference(PROMPT, 24)
    whole = TOKENIZER.decode(tokens, skip_special_tokens=True).rstrip(BROKEN)
    assert len(whole) > 3
    assert answer(PROMPT, Decoding(max_tokens=24)) == whole


def test_embeddings_in_the_place_of_tokens_give_the_same_answer() -> None:
    embeddings = MODEL.get_input_embeddings()(torch.tensor([PROMPT])).detach()
    given_ids = answer(PROMPT, Decoding(max_tokens=12))
    assert answer(PROMPT, Decoding(max_tokens=12), inputs_embeds=embeddings) == given_ids


def test_a_prompt_read_in_turns_has_the_logits_of_one_read_at_once() -> None:
    more = [*PROMPT, *TOKENIZER.encode("no.<end>and now?")]
    turns = Context(MODEL, POSITIONS)
    turns.read(PROMPT)
    assert turns.computed_tokens == len(PROMPT)
    kept = turns.read(more)
    assert turns.computed_tokens == len(more)
    assert torch.allclose(kept, Context(MODEL, POSITIONS).read(more), atol=1e-4)


def test_a_prompt_that_differs_is_read_from_the_first_difference() -> None:
    context = Context(MODEL, POSITIONS)
    context.read(PROMPT)
    for token in (7, 8, 9):
        context.append(token)
    other = [*PROMPT, 7, 20, 21]
    found = context.read(other)
    assert context.computed_tokens == len(PROMPT) + 2
    assert torch.allclose(found, Context(MODEL, POSITIONS).read(other), atol=1e-4)
    again = context.read(other)  # nothing is new; the last token is read for its logits
    assert context.computed_tokens == len(PROMPT) + 3
    assert torch.allclose(again, found, atol=1e-4)


def test_a_pass_that_was_broken_off_leaves_nothing_half_read() -> None:
    context = Context(MODEL, POSITIONS)
    context.read(PROMPT)
    more = [*PROMPT, 1, 2, 3]

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    hook = MODEL.model.layers[1].register_forward_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        context.read(more)
    hook.remove()
    assert torch.allclose(context.read(more), Context(MODEL, POSITIONS).read(more), atol=1e-4)


def test_the_end_token_ends_the_answer_and_is_not_shown() -> None:
    tokens = reference(PROMPT, 6)
    context = Context(MODEL, POSITIONS)
    shown = "".join(stream_answer(context, TOKENIZER, PROMPT, Decoding(max_tokens=24), end={tokens[3]}))
    first = tokens.index(tokens[3])
    assert shown == TOKENIZER.decode(tokens[:first]).rstrip(BROKEN)


def test_a_stop_string_cuts_the_answer_before_it() -> None:
    whole = answer(PROMPT, Decoding(max_tokens=24))
    stop = whole[2:5]  # three characters, so at least two tokens
    cut = answer(PROMPT, Decoding(max_tokens=24, stop=(stop,)))
    assert cut == whole[: whole.index(stop)]


def test_a_seed_repeats_a_drawn_answer() -> None:
    drawn = [answer(PROMPT, Decoding(max_tokens=16, temperature=1.0, seed=seed)) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_small_top_p_draws_what_is_likeliest() -> None:
    greedy = answer(PROMPT, Decoding(max_tokens=16))
    assert answer(PROMPT, Decoding(max_tokens=16, temperature=1.5, top_p=1e-6, seed=3)) == greedy


@pytest.mark.parametrize("temperature", [1e-40, 1e-9, 0.009])
def test_a_temperature_near_0_is_0(temperature: float) -> None:
    cold = Decoding(max_tokens=16, temperature=temperature, seed=3)
    assert cold.temperature == 0
    assert answer(PROMPT, cold) == answer(PROMPT, Decoding(max_tokens=16))


def test_tokens_are_drawn_as_often_as_the_model_says() -> None:
    """Of one prompt's next token, 400 draws at temperature 0.5 fit the softmax of twice the logits."""
    logits = Context(MODEL, POSITIONS).read(PROMPT)
    choose = Chooser(Decoding(temperature=0.5, seed=0))
    draws = torch.tensor([choose(logits) for _ in range(400)])
    share = (logits * 2).softmax(dim=-1)
    likeliest = int(share.argmax())
    assert (draws == likeliest).float().mean().item() == pytest.approx(float(share[likeliest]), abs=0.1)


def test_a_conversation_too_long_for_the_model_is_refused_before_the_answer() -> None:
    with pytest.raises(UserError, match=f"has {POSITIONS} tokens, and the model holds {POSITIONS}"):
        answer([1] * POSITIONS, Decoding())


def test_an_answer_that_fills_the_model_says_that_it_was_cut() -> None:
    prompt = [1] * (POSITIONS - 4)
    whole = TOKENIZER.decode(reference(prompt, 4))
    stream = stream_answer(Context(MODEL, POSITIONS), TOKENIZER, prompt, Decoding(max_tokens=9), end=())
    pieces: list[str] = []
    with pytest.raises(UserError, match="the answer was cut"):
        pieces.extend(stream)
    assert whole.startswith("".join(pieces))
    assert whole.startswith(answer(prompt, Decoding(max_tokens=4)))  # what fits is no mistake


@settings(max_examples=200)
@given(st.text(max_size=12))
def test_text_comes_whole_and_without_broken_characters(text: str) -> None:
    stream = TextStream(TOKENIZER)
    pieces = [stream.push(token) for token in TOKENIZER.encode(text)]
    assert "".join(pieces) == text.rstrip(BROKEN)
    assert all(BROKEN not in piece for piece in pieces) or BROKEN in text


def test_a_character_cut_in_half_is_not_shown() -> None:
    stream = TextStream(TOKENIZER)
    tokens = TOKENIZER.encode("a\N{SNOWMAN}")
    assert [stream.push(token) for token in tokens[:-1]] == ["a", "", ""]


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"temperature": -1.0}, "temperature is -1"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_p": 0.0}, "top_p is 0"),
        ({"stop": ("",)}, "no empty string"),
    ],
)
def test_a_decoding_out_of_bounds_is_refused(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        Decoding(**wrong)
