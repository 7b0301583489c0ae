"""Conversations about videos and pictures: the released prompts, one look at the video, a kept cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from share4video.errors import UserError
from share4video.media.decode import uniform_frames
from share4video.models.chat_session import Decoding, Runtime, load_chat_model
from share4video.models.videochat.chat import VideoChat
from share4video.models.videochat.config import VISUAL_TOKEN
from share4video.models.videochat.processor import VideoChatProcessor, build_image_processor
from share4video.models.videochat.prompts import chat_prompt, sampled_sentence
from tests.media.clips import write_clip
from tests.models.videochat.tiny import SIDE, tiny_tokenizer, write_tiny

SHORT = Decoding(max_tokens=12)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("videochat"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4")


@pytest.fixture(scope="module")
def chat(folder: Path) -> VideoChat:
    found = load_chat_model(folder, Runtime())
    assert isinstance(found, VideoChat)
    return found


def _text(chat: VideoChat, ids: list[int]) -> str:
    text: str = chat.processor.tokenizer.decode([token for token in ids if token != VISUAL_TOKEN])
    return text


def test_the_prompt_is_the_released_demos() -> None:
    times = [0.25, 1.0, 12.34]
    assert sampled_sentence(times) == "The video contains 3 frames sampled at 0.2, 1.0, 12.3 seconds."
    before, after = chat_prompt("video", times, [("Who is it?", "A man.")], "Why?")
    assert f"{before}<VideoHere>{after}" == (
        "###Human: <Video><VideoHere></Video> The video contains 3 frames sampled at 0.2, 1.0, 12.3 seconds."
        "\n"
        "###Human: Who is it?\n###Assistant: A man.###Human: Why?\n###Assistant:"
    )
    before, after = chat_prompt("image", [], [], "What?")
    assert f"{before}<ImageHere>{after}" == (
        "###Human: <Image><ImageHere></Image>\n###Human: What?\n###Assistant:"
    )
    assert chat_prompt(None, [], [], "Hello?") == ("###Human: Hello?\n###Assistant:", "")


def test_a_video_is_told_with_its_frames_true_times(chat: VideoChat, clip: Path) -> None:
    session = chat.open(clip)
    ids = session.prompt_tokens("What is bright?")
    times = ", ".join(f"{frame.timestamp_s:.1f}" for frame in uniform_frames(clip, 8))
    assert _text(chat, ids) == (
        f"<s>###Human: <Video></Video> The video contains 8 frames sampled at {times} seconds.\n"
        "###Human: What is bright?\n###Assistant:"
    )
    assert ids.count(VISUAL_TOKEN) == chat.model.config.visual_tokens
    assert len(set(times.split(", "))) == 8


def test_the_third_turn_is_answered_as_if_all_were_said_at_once(chat: VideoChat, clip: Path) -> None:
    session = chat.open(clip)
    for question in ("What is bright?", "What is dark?"):
        list(session.ask(question, SHORT))
    before = session.computed_tokens
    afresh = chat.open(clip)
    afresh.turns = session.turns
    torch.testing.assert_close(
        session.first_logits("Why?"), afresh.first_logits("Why?"), rtol=1e-4, atol=1e-4
    )
    assert session.computed_tokens - before < afresh.computed_tokens / 2


def test_the_tower_sees_a_video_once(chat: VideoChat, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    look = chat.model.visual_features

    def counted(frames: torch.Tensor) -> torch.Tensor:
        calls.append(frames.shape[1])
        return look(frames)

    monkeypatch.setattr(chat.model, "visual_features", counted)
    session = chat.open(clip)
    for _ in range(3):
        list(session.ask("What is bright?", SHORT))
    assert calls == [8]


def test_the_number_of_frames_is_the_runtimes(folder: Path, clip: Path) -> None:
    chat = load_chat_model(folder, Runtime(frames=3))
    assert isinstance(chat, VideoChat)
    session = chat.open(clip)
    assert "contains 3 frames" in _text(chat, session.prompt_tokens("What?"))


class _Speaker(torch.nn.Module):
    """A language model that says a text, whatever it is told, as a tokenizer writes it."""

    def __init__(self, ids: list[int], vocabulary: int) -> None:
        super().__init__()
        self._ids, self._vocabulary = list(ids), vocabulary
        self.device = torch.device("cpu")

    def forward(self, **_: object) -> object:
        logits = torch.zeros(1, 1, self._vocabulary)
        logits[0, 0, self._ids.pop(0)] = 1
        return type("Output", (), {"logits": logits})()


@pytest.mark.parametrize("pieces", [["###"], ["#", "##"], ["##", "#"], ["#", "#", "#"]])
def test_an_answer_ends_at_the_stop_string_however_it_is_tokenized(
    chat: VideoChat, monkeypatch: pytest.MonkeyPatch, pieces: list[str]
) -> None:
    tokenizer = chat.processor.tokenizer
    said = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in [" A red square. ", *pieces]]
    after = tokenizer("Human: more", add_special_tokens=False)["input_ids"]
    session = chat.open(None)
    speaker = _Speaker([*(token for ids in said for token in ids), *after], len(tokenizer))
    monkeypatch.setattr(session._context, "_model", speaker)
    assert "".join(session.ask("What?", Decoding(max_tokens=40))) == "A red square."
    assert session.turns == (("What?", "A red square."),)


def test_a_picture_is_talked_about(chat: VideoChat, tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    Image.fromarray(np.full((40, 80, 3), 120, np.uint8)).save(picture)
    session = chat.open(picture, "image")
    list(session.ask("What is it?", SHORT))
    text = _text(chat, session.prompt_tokens("Why?"))
    assert "<Image>" in text and "</Image>\n###Human: What is it?" in text and "contains" not in text


def test_drawn_answers_are_repeated_by_their_seed(chat: VideoChat, clip: Path) -> None:
    drawn = Decoding(max_tokens=12, temperature=1.0, top_p=0.9, seed=3)
    assert [*chat.open(clip).ask("What?", drawn)] == [*chat.open(clip).ask("What?", drawn)]


def test_pictures_are_squashed_and_frames_cut_to_their_middle() -> None:
    processor = VideoChatProcessor(tiny_tokenizer(), build_image_processor(SIDE), 12)
    wide = np.zeros((SIDE, 3 * SIDE, 3), np.uint8)
    wide[:, SIDE : 2 * SIDE] = 255
    image = Image.fromarray(wide)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])  # CLIP's
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])
    white = ((1 - mean) / std)[:, None, None].expand(3, SIDE, SIDE)
    (frame,) = processor.pixels([image], "video")
    torch.testing.assert_close(frame, white, rtol=1e-4, atol=1e-4)
    (picture,) = processor.pixels([image], "image")
    assert picture.shape == (3, SIDE, SIDE)
    assert not torch.allclose(picture[:, :, 2], white[:, :, 2])


@pytest.mark.parametrize("kind", ["video", "image"])
def test_a_file_that_is_neither_is_the_users_mistake(chat: VideoChat, tmp_path: Path, kind: str) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"nothing")
    for path, sentence in ((broken, "cannot be (used|decoded)"), (tmp_path / "none.mp4", "no such file")):
        with pytest.raises(UserError, match=sentence) as caught:
            chat.open(path, kind)  # type: ignore[arg-type]
        assert caught.value.where == str(path) and caught.value.fix


def test_a_folder_with_gaps_is_refused(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "model")
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"gmhra_layers": 2', '"gmhra_layers": 3'))
    with pytest.raises(UserError, match="missing"):
        load_chat_model(folder, Runtime())
