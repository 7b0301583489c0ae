"""A converted original checkpoint answers as the released code does, on both visual paths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from share4video.chat import PRE_QUERY
from share4video.media.compose import frame_grid
from share4video.models.chat_session import Decoding, Runtime, VisualPath, load_chat_model
from share4video.models.llava_next.convert import convert

CASES = range(4)
QUESTION = "Describe this video in detail."
IMAGE = -200  # the released code's mark of a picture


@pytest.fixture(scope="module")
def golden(data_root: Path) -> Path:
    return data_root / "golden" / "llava_llama_tiny"


@pytest.fixture(scope="module")
def checkpoint(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("golden") / "converted"
    convert(str(golden), str(folder))
    return folder


@pytest.fixture(scope="module")
def chats(checkpoint: Path) -> dict[VisualPath, Any]:
    paths: tuple[VisualPath, ...] = ("anyres", "thumbnail")
    return {path: load_chat_model(checkpoint, Runtime(visual_path=path)) for path in paths}


def open_case(chat: Any, case: Any) -> Any:
    grid = frame_grid([Image.fromarray(frame) for frame in case["frames"]])
    assert grid.size == tuple(case["grid_size"])
    return chat.open_picture(grid, preface=PRE_QUERY)


@pytest.mark.parametrize("number", CASES)
@pytest.mark.parametrize("path", ["anyres", "thumbnail"])
def test_the_logits_after_the_prompt_are_the_released_codes(
    golden: Path, chats: dict[VisualPath, Any], path: VisualPath, number: int
) -> None:
    case = np.load(golden / f"case{number}.npz")
    session = open_case(chats[path], case)
    expected = case[f"last_logits_{path}"]
    found = session.first_logits(QUESTION).numpy()[: len(expected)]  # the picture's mark is a new last token
    assert np.abs(found - expected).max() < 1e-4
    assert session.computed_tokens == case[f"seq_len_{path}"]


@pytest.mark.parametrize("number", CASES)
def test_the_prompt_is_the_released_codes_token_by_token(
    golden: Path, chats: dict[VisualPath, Any], number: int
) -> None:
    case = np.load(golden / f"case{number}.npz")
    chat = chats["anyres"]
    tokens = open_case(chat, case).prompt_tokens(QUESTION)
    assert tokens[:2] == [0, 0]  # two BOS, as in training
    mark = chat.processor.image_token_id
    first, count = tokens.index(mark), tokens.count(mark)
    assert tokens[first : first + count] == [mark] * count
    assert [*tokens[:first], IMAGE, *tokens[first + count :]] == case["input_ids"][0].tolist()


@pytest.mark.parametrize("number", CASES)
def test_a_greedy_answer_has_the_released_codes_tokens(
    golden: Path, chats: dict[VisualPath, Any], number: int
) -> None:
    case = np.load(golden / f"case{number}.npz")
    chat = chats["anyres"]
    read: list[int] = []

    def record(_module: Any, _arguments: Any, options: dict[str, Any]) -> None:
        if "input_ids" in options:  # the answer's tokens; the prompt goes in as embeddings
            read.extend(options["input_ids"][0].tolist())

    hook = chat.model.register_forward_pre_hook(record, with_kwargs=True)
    try:
        text = "".join(open_case(chat, case).ask(QUESTION, Decoding(max_tokens=13)))
    finally:
        hook.remove()
    expected = case["generated"][0].tolist()[1:]  # the first is what the released code's loop starts from
    assert read == expected
    shown = chat.processor.tokenizer.decode(expected, skip_special_tokens=True)
    assert text.startswith(shown.rstrip("\N{REPLACEMENT CHARACTER}"))
