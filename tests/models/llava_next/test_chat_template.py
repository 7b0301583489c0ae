"""What the converted checkpoint's chat template renders, as text and as tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.original_checkpoint import write_tokenizer
from share4video.chat import SYSTEM_PROMPT
from share4video.dataset.messages import Message
from share4video.models.llava_next.convert import convert
from share4video.models.llava_next.processor import encode_text, load_processor
from tests.models.llava_next.tiny import TINY

BOS, EOT = "<|begin_of_text|>", "<|eot_id|>"


@pytest.fixture(scope="module")
def processor(converted: Path) -> Any:
    return load_processor(converted)


def turn(role: str, text: str) -> str:
    return f"<|start_header_id|>{role}<|end_header_id|>\n\n{text}{EOT}"


HEADER = "<|start_header_id|>assistant<|end_header_id|>\n\n"
OPENING = BOS + BOS + turn("system", SYSTEM_PROMPT)


def test_a_conversation_is_rendered_as_the_original_code_writes_it(processor: Any) -> None:
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "What?"}, {"type": "image"}]},
        {"role": "assistant", "content": "A dog."},
        {"role": "user", "content": "And then?"},
    ]
    wanted = (
        OPENING + turn("user", "<image>\nWhat?") + turn("assistant", "A dog.") + turn("user", "And then?")
    )
    assert processor.apply_chat_template(messages) == wanted
    assert processor.apply_chat_template(messages, add_generation_prompt=True) == wanted + HEADER


def test_a_system_text_of_the_callers_own_takes_the_place_of_the_models(processor: Any) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    wanted = BOS + BOS + turn("system", "Be brief.") + turn("user", "Hi")
    assert processor.apply_chat_template(messages) == wanted


def test_an_assistant_message_at_the_end_is_begun_and_not_ended(processor: Any) -> None:
    messages = [
        {"role": "user", "content": "Which?"},
        {"role": "assistant", "content": [{"type": "text", "text": "Best option:("}]},
    ]
    asked = OPENING + turn("user", "Which?")
    begun = processor.apply_chat_template(messages, add_generation_prompt=True)
    assert begun == asked + HEADER + "Best option:("
    assert processor.apply_chat_template(messages) == asked + turn("assistant", "Best option:(")


def test_tokenizer_and_processor_give_the_same_ids_and_both_bos(processor: Any) -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
    options: dict[str, Any] = {"tokenize": True, "return_dict": True, "add_generation_prompt": True}
    by_processor = processor.apply_chat_template(messages, **options)["input_ids"]
    by_tokenizer = processor.tokenizer.apply_chat_template(
        messages, chat_template=processor.chat_template, **options
    )["input_ids"]
    assert by_processor[0] == by_tokenizer
    bos = processor.tokenizer.bos_token_id
    assert by_tokenizer[:3] == [bos, bos, processor.tokenizer.convert_tokens_to_ids("<|start_header_id|>")]


def test_a_tokenizer_that_adds_no_bos_gets_one_and_no_line_break_behind_the_picture(
    original: Path, tmp_path: Path
) -> None:
    write_tokenizer(original, TINY.rows, adds_bos=False)
    report = convert(original, tmp_path / "out")
    assert "Prompts begin with one BOS." in report.notes
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}]
    rendered = load_processor(tmp_path / "out").apply_chat_template(messages)
    assert rendered == BOS + turn("system", SYSTEM_PROMPT) + turn("user", "<image>What?")


def test_answers_and_their_end_of_turn_are_what_is_learnt(processor: Any) -> None:
    messages = [Message("user", "<image>\nWhat?"), Message("assistant", "A dog."), Message("user", "And?")]
    encoded = encode_text(processor, [*messages, Message("assistant", "No.")], (40, 60))
    learnt = processor.tokenizer.decode(encoded.input_ids[encoded.supervised])
    assert learnt == f"A dog.{EOT}No.{EOT}"


@given(st.text(max_size=40).filter(lambda text: "<" not in text))
@settings(max_examples=25, deadline=None)
def test_what_people_write_is_rendered_as_it_is(processor: Any, text: str) -> None:
    rendered = processor.apply_chat_template([{"role": "user", "content": [{"type": "text", "text": text}]}])
    assert rendered == OPENING + turn("user", text)


def test_the_picture_backend_is_pinned_to_pil(converted: Path, processor: Any) -> None:
    from transformers import LlavaNextImageProcessorPil

    assert isinstance(processor.image_processor, LlavaNextImageProcessorPil)
    written = json.loads((converted / "processor_config.json").read_text())
    assert written["image_processor"]["image_processor_type"] == "LlavaNextImageProcessorPil"


def test_answers_end_at_the_turn_whatever_else_ends_them(converted: Path, processor: Any) -> None:
    ends = json.loads((converted / "generation_config.json").read_text())["eos_token_id"]
    assert ends == [processor.tokenizer.eos_token_id, processor.tokenizer.convert_tokens_to_ids(EOT)]
