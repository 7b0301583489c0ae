"""Chat with Video-LLaVA: the same prompt and the same numbers as transformers' own, whatever was kept."""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file

from share4video.errors import UserError
from share4video.media.frame_strip import spanning_frames
from share4video.media.sampling import spanning_indices
from share4video.models.chat_session import Decoding, Runtime, load_chat_model
from share4video.models.video_llava.processor import VICUNA_SYSTEM
from tests.models.video_llava.tiny import CONTEXT, FRAMES, PATCH, PUBLISHED_TEMPLATE, SIDE, write_checkpoint
from tests.stages.captioned import write_video

SHORT = Decoding(max_tokens=6)
QUESTIONS = ("What happens first?", "And then, ❄?", "Who is there?")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("tiny") / "model", template=PUBLISHED_TEMPLATE)


@pytest.fixture(scope="module")
def vicuna(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights without a chat template."""
    return write_checkpoint(tmp_path_factory.mktemp("vicuna") / "model")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_video(path, "red")
    return path


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "picture.png"
    pixels = np.random.default_rng(0).integers(0, 255, (60, 90, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def _native(folder: Path, text: str, **shown: Any) -> tuple[list[int], torch.Tensor, Any]:
    """Return the ids, the last logits and the inputs of transformers' own processor and model."""
    from transformers import VideoLlavaForConditionalGeneration, VideoLlavaProcessor

    processor = VideoLlavaProcessor.from_pretrained(folder)
    model = VideoLlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    inputs = processor(text=text, return_tensors="pt", **shown)
    with torch.inference_mode():
        logits = model(**inputs).logits[0, -1]
    return inputs["input_ids"][0].tolist(), logits, (model, inputs)


def _published_prompt(mark: str, turns: list[tuple[str, str]], question: str) -> str:
    said = [
        f"USER: {mark if not number else ''}{asked} ASSISTANT: {answer} "
        for number, (asked, answer) in enumerate(turns)
    ]
    return "".join(said) + f"USER: {mark if not turns else ''}{question} ASSISTANT:"


@pytest.mark.parametrize("kind", ["video", "image"])
def test_every_turn_has_the_prompt_and_the_logits_of_the_whole_conversation_at_once(
    folder: Path, clip: Path, picture: Path, kind: str
) -> None:
    chat = load_chat_model(folder)
    session: Any = chat.open(clip if kind == "video" else picture, kind)  # type: ignore[arg-type]
    if kind == "video":
        frames = [frame.rgb for frame in spanning_frames(clip, FRAMES)]
        shown: dict[str, Any] = {"videos": [np.stack(frames)]}
    else:
        shown = {"images": Image.open(picture)}
    turns: list[tuple[str, str]] = []
    for question in QUESTIONS:
        text = _published_prompt(f"<{kind}>\n", turns, question)
        ids, logits, _ = _native(folder, text, **shown)
        assert session.prompt_tokens(question) == ids
        torch.testing.assert_close(session.first_logits(question), logits, atol=2e-5, rtol=1e-4)
        turns.append((question, "".join(session.ask(question, SHORT))))
    patches = (SIDE // PATCH) ** 2
    assert ids.count(chat.model.config.video_token_id) == (FRAMES * (patches + 1) if kind == "video" else 0)  # type: ignore[attr-defined]
    assert ids.count(chat.model.config.image_token_id) == (patches if kind == "image" else 0)  # type: ignore[attr-defined]


def test_an_answer_is_that_of_generate(folder: Path, clip: Path) -> None:
    session = load_chat_model(folder).open(clip)
    answer = "".join(session.ask("What happens?", Decoding(max_tokens=12)))
    frames = np.stack([frame.rgb for frame in spanning_frames(clip, FRAMES)])
    _, _, (model, inputs) = _native(
        folder, _published_prompt("<video>\n", [], "What happens?"), videos=[frames]
    )
    with torch.inference_mode():
        made = model.generate(**inputs, do_sample=False, max_new_tokens=12)[0, inputs["input_ids"].shape[1] :]
    from transformers import AutoTokenizer

    expected = AutoTokenizer.from_pretrained(folder).decode(made, skip_special_tokens=True)
    assert answer == expected.rstrip("�")
    assert len(answer) > 3


def test_what_was_read_is_not_read_again(folder: Path, clip: Path) -> None:
    chat: Any = load_chat_model(folder)
    session = chat.open(clip)
    towers = []
    hook = chat.model.model.video_tower.register_forward_hook(lambda *_: towers.append(1))
    counts = [0]
    for question in QUESTIONS:
        "".join(session.ask(question, SHORT))
        counts.append(session.computed_tokens)
    hook.remove()
    assert not towers
    first, *later = [after - before for before, after in pairwise(counts)]
    assert first > FRAMES * ((SIDE // PATCH) ** 2 + 1)
    assert max(later) < first - FRAMES * (SIDE // PATCH) ** 2


def test_without_a_template_the_prompt_is_vicunas(vicuna: Path, clip: Path) -> None:
    chat: Any = load_chat_model(vicuna)
    session = chat.open(clip)
    first = "".join(session.ask("What is it?", SHORT))
    ids = session.prompt_tokens("More?")
    copies = FRAMES * ((SIDE // PATCH) ** 2 + 1)
    mark = "<video>" * copies
    expected = f"{VICUNA_SYSTEM} USER: {mark}\nWhat is it? ASSISTANT: {first}</s>USER: More? ASSISTANT:"
    assert ids == chat.processor.tokenizer(expected)["input_ids"]
    _, logits, _ = _native(
        vicuna,
        expected.replace(mark, "<video>"),
        videos=[np.stack([frame.rgb for frame in spanning_frames(clip, FRAMES)])],
    )
    torch.testing.assert_close(session.first_logits("More?"), logits, atol=2e-5, rtol=1e-4)


def test_a_seed_repeats_an_answer_and_a_stop_string_ends_it(folder: Path, clip: Path) -> None:
    chat = load_chat_model(folder)
    drawn = Decoding(max_tokens=20, temperature=1.5, seed=7)
    answers = ["".join(chat.open(clip).ask("Go on.", drawn)) for _ in range(2)]
    assert answers[0] == answers[1]
    other = Decoding(max_tokens=20, temperature=1.5, seed=8)
    assert answers[0] != "".join(chat.open(clip).ask("Go on.", other))
    greedy = "".join(chat.open(clip).ask("Go on.", Decoding(max_tokens=12)))
    cut = "".join(chat.open(clip).ask("Go on.", Decoding(max_tokens=12, stop=(greedy[2:4],))))
    assert cut == greedy[: greedy.index(greedy[2:4])]


def test_a_conversation_about_nothing_is_text_alone(folder: Path) -> None:
    session: Any = load_chat_model(folder).open(None)
    ids, logits, _ = _native(folder, _published_prompt("", [], "Hello?"))
    assert session.prompt_tokens("Hello?") == ids
    torch.testing.assert_close(session.first_logits("Hello?"), logits, atol=2e-5, rtol=1e-4)


def test_more_frames_than_the_familys_own_are_taken_where_asked(folder: Path, clip: Path) -> None:
    chat: Any = load_chat_model(folder, Runtime(frames=3))
    ids = chat.open(clip).prompt_tokens("?")
    assert ids.count(chat.model.config.video_token_id) == 3 * ((SIDE // PATCH) ** 2 + 1)


def test_a_question_with_a_mark_and_a_conversation_too_long_are_said(folder: Path, clip: Path) -> None:
    session = load_chat_model(folder).open(clip)
    with pytest.raises(UserError, match="<video>"):
        next(session.ask("What is <video>?"))
    with pytest.raises(UserError, match=f"the model holds {CONTEXT}"):
        next(session.ask("a" * CONTEXT))
    assert "".join(session.ask("And now?", SHORT)) == "".join(
        load_chat_model(folder).open(clip).ask("And now?", SHORT)
    )


@pytest.mark.parametrize("said", ["A <video> and an <image>.", "<image>\nis here"])
def test_a_mark_in_an_answer_is_text(folder: Path, clip: Path, said: str) -> None:
    chat: Any = load_chat_model(folder)
    session = chat.open(clip)
    marks = {chat.processor.image_token_id, chat.processor.video_token_id}
    shown = [token for token in session.prompt_tokens("?") if token in marks]
    session.turns = (("?", said),)
    ids = session.prompt_tokens("And?")
    assert [token for token in ids if token in marks] == shown
    assert said in chat.processor.tokenizer.decode([token for token in ids if token not in marks])
    assert "".join(session.ask("And?", SHORT)) is not None


def test_what_is_no_clip_and_no_picture_is_said(folder: Path, tmp_path: Path) -> None:
    chat = load_chat_model(folder)
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(UserError, match="cannot be used"):
        chat.open(tmp_path / "text.mp4")
    with pytest.raises(UserError, match="cannot be decoded"):
        chat.open(tmp_path / "text.mp4", "image")
    with pytest.raises(UserError, match="no such file"):
        chat.open(tmp_path / "none.mp4")


def test_a_checkpoint_that_lacks_weights_or_has_others_is_refused(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    weights = load_file(broken / "model.safetensors")
    name = next(name for name in weights if name.startswith("video_tower"))
    weights["strange"] = weights.pop(name)
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"1 missing .*1 unexpected"):
        load_chat_model(broken)


@given(frames=st.integers(1, 3000), wanted=st.integers(1, 64))
def test_frames_go_from_the_first_to_the_last_in_even_steps(frames: int, wanted: int) -> None:
    chosen = spanning_indices(frames, wanted)
    assert len(chosen) == wanted
    assert chosen[0] == 0
    assert wanted == 1 or chosen[-1] == frames - 1
    steps = [after - before for before, after in pairwise(chosen)]
    assert not steps or max(steps) - min(steps) <= 1
    assert all(step >= 0 for step in steps)


@pytest.mark.parametrize(
    ("frames", "chosen"),
    [  # numpy.linspace(0, frames - 1, 8, dtype=int), the released code's line
        (8, [0, 1, 2, 3, 4, 5, 6, 7]),
        (5, [0, 0, 1, 1, 2, 2, 3, 4]),
        (100, [0, 14, 28, 42, 56, 70, 84, 99]),
        (250, [0, 35, 71, 106, 142, 177, 213, 249]),
    ],
)
def test_eight_frames_are_those_of_the_released_code(frames: int, chosen: list[int]) -> None:
    assert spanning_indices(frames, 8) == chosen
