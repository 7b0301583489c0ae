"""A conversation turn by turn is the whole conversation at once; the picture is in it once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from share4video.chat import PRE_QUERY
from share4video.errors import UserError
from share4video.models.chat_session import Decoding, Runtime, VisualPath, load_chat_model
from share4video.synthetic.clips import sample_clip
from share4video.synthetic.clips import write_clip as write_synthetic
from tests.serving.clips import write_noise

QUESTIONS = ("What happens in the video?", "What colour is it?", "Where does it move?")
SHORT = Decoding(max_tokens=24)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("chat")


@pytest.fixture(scope="module")
def clip(folder: Path) -> Path:
    path = folder / "clip.mp4"
    write_synthetic(path, sample_clip(5, duration_s=(10.0, 10.0)))
    return path


@pytest.fixture(scope="module")
def nano(folder: Path) -> Path:
    """The shipped chat model: it ends its answers by itself and writes as its tokenizer would."""
    import share4video

    return Path(share4video.__file__).parent / "synthetic" / "weights" / "nano-base"


@pytest.fixture(scope="module")
def random_model(folder: Path) -> Path:
    """A checkpoint of random weights: its answers are no text its tokenizer would write that way."""
    from share4video.synthetic.nano import write_checkpoint

    target = write_checkpoint(folder / "random", "chat", seed=3)
    (target / "share4video.json").unlink()  # knows any clip
    return target


@pytest.fixture(scope="module")
def chat(nano: Path) -> Any:
    return load_chat_model(nano)


def at_once(chat: Any, session: Any, clip: Path | None, question: str) -> Any:
    """A session that is told the earlier turns as they were said and has read nothing."""
    fresh = chat.open(clip)
    fresh.turns = session.turns
    return fresh.first_logits(question)


@pytest.mark.parametrize("path", ["anyres", "thumbnail"])
@pytest.mark.parametrize("model", ["nano", "random_model"])
def test_the_third_turn_has_the_logits_of_the_whole_conversation_at_once(
    request: pytest.FixtureRequest, clip: Path, model: str, path: VisualPath
) -> None:
    chat: Any = load_chat_model(request.getfixturevalue(model), Runtime(visual_path=path))
    session = chat.open(clip)
    drawn = Decoding(max_tokens=24, temperature=1.0, seed=7)  # words no tokenizer would split that way
    for question in QUESTIONS[:2]:
        assert "".join(session.ask(question, drawn))
    whole = at_once(chat, session, clip, QUESTIONS[2])
    assert torch.allclose(session.first_logits(QUESTIONS[2]), whole, atol=1e-4)
    fresh = chat.open(clip)
    fresh.turns = session.turns
    answers = ["".join(one.ask(QUESTIONS[2], SHORT)) for one in (session, fresh)]
    assert answers[0] == answers[1]


def test_a_turn_computes_its_own_new_tokens_alone(chat: Any, clip: Path) -> None:
    session = chat.open(clip)
    first = session.prompt_tokens(QUESTIONS[0])
    answer = "".join(session.ask(QUESTIONS[0], SHORT))
    assert session.computed_tokens == len(first)
    said = chat.processor.tokenizer.encode(answer, add_special_tokens=False)
    second = session.prompt_tokens(QUESTIONS[1])
    assert second[: len(first) + len(said)] == [*first, *said]  # the model wrote as the tokenizer would
    "".join(session.ask(QUESTIONS[1], SHORT))
    # The answer was read as it was written; what is new is its end, the question and the header.
    assert session.computed_tokens == len(first) + len(second) - len(first) - len(said)


@pytest.mark.parametrize(
    "decoding", [Decoding(max_tokens=3), Decoding(max_tokens=24, stop=("triangle",)), Decoding(max_tokens=1)]
)
def test_an_answer_that_was_cut_is_closed_before_the_next_turn(
    chat: Any, clip: Path, decoding: Decoding
) -> None:
    session = chat.open(clip)
    whole = "".join(chat.open(clip).ask(QUESTIONS[0], SHORT))
    cut = "".join(session.ask(QUESTIONS[0], decoding))
    assert whole.startswith(cut)
    assert len(cut) < len(whole)
    end = chat.processor.tokenizer.eos_token_id
    opening = chat.open(clip).prompt_tokens(QUESTIONS[0])
    said = chat.processor.tokenizer.encode(cut, add_special_tokens=False)
    second = session.prompt_tokens(QUESTIONS[1])
    assert second[: len(opening) + len(said) + 1] == [*opening, *said, end]
    before = session.computed_tokens
    found = session.first_logits(QUESTIONS[1])
    assert session.computed_tokens - before <= len(second) - len(opening)  # the picture is not read again
    assert torch.allclose(found, at_once(chat, session, clip, QUESTIONS[1]), atol=1e-4)


def test_the_picture_is_in_the_first_turn_and_nowhere_else(chat: Any, clip: Path) -> None:
    session = chat.open(clip)
    mark = chat.processor.image_token_id
    counts = []
    for question in QUESTIONS:
        counts.append(session.prompt_tokens(question).count(mark))
        "".join(session.ask(question, SHORT))
    assert counts[0] > 1
    assert counts == [counts[0]] * 3
    assert [asked for asked, _ in session.turns] == list(QUESTIONS)
    ids = session.prompt_tokens("?")
    text = chat.processor.tokenizer.decode(ids[ids.index(mark) + counts[0] :])
    assert text.startswith(f"\n{PRE_QUERY}{QUESTIONS[0]}")
    assert text.count(PRE_QUERY) == 1


def test_the_thumbnail_is_the_overview_alone(nano: Path, clip: Path) -> None:
    counts = {}
    for path in ("anyres", "thumbnail"):
        chat: Any = load_chat_model(nano, Runtime(visual_path=path))  # type: ignore[arg-type]
        counts[path] = chat.open(clip).prompt_tokens("?").count(chat.processor.image_token_id)
    assert counts["thumbnail"] == (96 // 16) ** 2
    assert counts["anyres"] > 4 * counts["thumbnail"]


def test_the_overview_of_both_paths_is_the_same(random_model: Path, clip: Path) -> None:
    picture = Image.effect_noise((300, 200), 90).convert("RGB")
    features = {}
    for path in ("anyres", "thumbnail"):
        chat: Any = load_chat_model(random_model, Runtime(visual_path=path))  # type: ignore[arg-type]
        features[path] = chat.picture_features(picture)
    overview = features["anyres"][: len(features["thumbnail"])]
    assert torch.allclose(overview, features["thumbnail"], atol=1e-5)


def test_an_answer_that_was_left_early_is_not_remembered(chat: Any, clip: Path) -> None:
    session = chat.open(clip)
    left = session.ask(QUESTIONS[0], SHORT)
    next(left)
    left.close()
    assert session.turns == ()
    assert "".join(session.ask(QUESTIONS[1], SHORT)) == "".join(chat.open(clip).ask(QUESTIONS[1], SHORT))


def test_a_picture_is_asked_about_without_the_sentence_on_grids(random_model: Path, folder: Path) -> None:
    picture = folder / "picture.png"
    Image.effect_noise((120, 80), 90).save(picture)
    session: Any = load_chat_model(random_model).open(picture, "image")
    assert "".join(session.ask("What is it?", SHORT))
    assert PRE_QUERY not in session._tokenizer.decode(session.prompt_tokens("?"))


def test_a_conversation_in_words_alone(random_model: Path) -> None:
    session: Any = load_chat_model(random_model).open(None)
    prompt = session.prompt_tokens("Who are you?")
    assert "".join(session.ask("Who are you?", SHORT))
    assert session.turns[0][0] == "Who are you?"
    assert session.computed_tokens == len(prompt)


def test_frames_can_be_fewer(random_model: Path, clip: Path) -> None:
    chat: Any = load_chat_model(random_model, Runtime(frames=4))
    many: Any = load_chat_model(random_model)
    assert not torch.equal(chat.open(clip).first_logits("?"), many.open(clip).first_logits("?"))


def test_a_conversation_over_the_models_length_is_one_sentence(random_model: Path) -> None:
    session: Any = load_chat_model(random_model).open(None)
    with pytest.raises(UserError, match="the model holds 2048"):
        list(session.ask("why " * 3000))
    assert session.turns == ()


def test_half_precision_answers(nano: Path, clip: Path) -> None:
    chat: Any = load_chat_model(nano, Runtime(dtype="bfloat16"))
    assert chat.model.dtype is torch.bfloat16
    assert "".join(chat.open(clip).ask(QUESTIONS[0], SHORT))


def test_a_clip_the_nano_model_does_not_know_is_refused(chat: Any, folder: Path) -> None:
    noise = write_noise(folder / "noise.mp4")
    with pytest.raises(UserError, match="nano-base knows only the synthetic clips"):
        chat.open(noise)
    picture = folder / "noise.png"
    Image.effect_noise((120, 80), 90).save(picture)
    with pytest.raises(UserError, match="this image is of none"):
        chat.open(picture, "image")


def test_what_is_no_video_and_no_picture_is_one_sentence(chat: Any, folder: Path) -> None:
    text = folder / "text.mp4"
    text.write_text("not a video")
    with pytest.raises(UserError, match="the clip cannot be used"):
        chat.open(text)
    with pytest.raises(UserError, match="the picture cannot be decoded"):
        chat.open(text, "image")
    with pytest.raises(UserError, match="no such file"):
        chat.open(folder / "none.mp4")


def test_a_question_may_not_hold_the_mark_of_a_picture(chat: Any) -> None:
    with pytest.raises(UserError, match="may not hold <image>"):
        list(chat.open(None).ask("what is <image>?"))


@pytest.mark.parametrize("said", ["The tag is <image>.", "<image>\nis what I see", "<image>"])
def test_a_mark_in_an_answer_is_text(chat: Any, clip: Path, said: str) -> None:
    """The model is not shown anything by what it wrote."""
    tokenizer, mark = chat.processor.tokenizer, chat.processor.image_token_id
    for opened in (chat.open(clip), chat.open(None)):
        pictures = opened.prompt_tokens("?").count(mark)
        opened.turns = ((QUESTIONS[0], said),)
        ids = opened.prompt_tokens(QUESTIONS[1])
        assert ids.count(mark) == pictures
        assert said in tokenizer.decode([token for token in ids if token != mark])
        assert "".join(opened.ask(QUESTIONS[1], SHORT))


def test_weights_that_do_not_fit_are_refused(random_model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(random_model, broken)
    weights = load_file(broken / "model.safetensors")
    name = next(name for name in weights if name.startswith("vision_tower."))
    weights["strange.weight"] = weights.pop(name)
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"1 missing .*; 1 unexpected \(strange"):
        load_chat_model(broken)


def test_an_original_checkpoint_is_to_be_converted(random_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "original"
    folder.mkdir()
    config = {"model_type": "llava_llama", "mm_vision_tower": "clip"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="convert it with share4video convert"):
        load_chat_model(folder)


@pytest.mark.parametrize(
    ("runtime", "sentence"),
    [
        (Runtime(dtype="int3"), "no such number format"),
        (Runtime(device="cuda:99"), "cannot be put on the device"),
        (Runtime(device="nowhere"), "cannot be put on the device"),
        (Runtime(device="meta"), "cannot be put on the device"),  # torch has it, and it computes nothing
    ],
)
def test_a_device_this_machine_has_not_is_one_sentence(nano: Path, runtime: Runtime, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        load_chat_model(nano, runtime)


def test_a_template_without_marks_of_answers_will_do(random_model: Path, tmp_path: Path) -> None:
    """Checkpoints from elsewhere have none; only training needs them."""
    plain = tmp_path / "plain"
    shutil.copytree(random_model, plain)
    template = plain / "chat_template.jinja"
    text = template.read_text()
    template.write_text(text.replace("{%- generation -%}", "").replace("{%- endgeneration -%}", ""))
    found = "".join(load_chat_model(plain).open(None).ask("Who?", SHORT))
    assert found == "".join(load_chat_model(random_model).open(None).ask("Who?", SHORT))
