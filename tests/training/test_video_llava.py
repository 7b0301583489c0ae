"""Fine-tuning Video-LLaVA by the same trainer: clips, pictures and text, and the result answers in chat."""

from __future__ import annotations

import io
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from share4video.captioning.checkpoints import checkpoint_folder
from share4video.config import TrainConfig
from share4video.dataset.messages import Message
from share4video.errors import UserError
from share4video.media.frame_strip import frame_strip, spanning_frames, split_strip, strip_frames
from share4video.models.chat_session import Decoding, load_chat_model
from share4video.models.family import family_of
from share4video.models.llava_next.processor import load_processor as load_llava_next
from share4video.models.video_llava.processor import VICUNA_TEMPLATE, encode_frames, encode_text
from share4video.store import LocalStore
from share4video.training import sft
from share4video.training.checkpoint import Interrupted, TrainingStates
from share4video.training.packing import Collator, pack
from share4video.training.samples import Pictures, Sample, tokenize
from tests.models.video_llava.tiny import FRAMES, PATCH, PUBLISHED_TEMPLATE, SIDE, write_checkpoint
from tests.stages.captioned import write_video
from tests.training.conftest import SMALL

CONFIG = SMALL.model_copy(
    update={"lr_tower": 0.0, "lora_dropout": 0.0, "lr_language": 2e-2, "batch_size": 4, "micro_batch_size": 4}
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with the published chat template, which teaches no end of answers."""
    return write_checkpoint(tmp_path_factory.mktemp("base") / "model", template=PUBLISHED_TEMPLATE)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """Two clips, two pictures and two conversations about nothing."""
    folder = tmp_path_factory.mktemp("shown")
    made = []
    for number in range(2):
        random = np.random.default_rng(number)
        strip, picture = folder / f"{number}.jpg", folder / f"{number}.png"
        Image.fromarray(random.integers(0, 255, (FRAMES * SIDE, SIDE, 3), np.uint8)).save(strip)
        Image.fromarray(random.integers(0, 255, (40, 60, 3), np.uint8)).save(picture)
        for name, file, video in (("clip", strip, True), ("picture", picture, False), ("text", None, False)):
            mark = "" if file is None else "<image>\n"
            turns = (
                Message("user", f"{mark}Describe {name} {number}."),
                Message("assistant", f"A {name}."),
                Message("user", "Go on."),
                Message("assistant", "That is all."),
            )
            made.append(Sample(f"{name}-{number}", file, turns, video))
    return made


def _train(samples: list[Sample], base: Path, target: Path, config: TrainConfig, **more: Any) -> Any:
    return sft.train(samples, base, target, config, work=target.with_name(f"{target.name}-work"), **more)


def test_the_loss_falls_frozen_parts_stay_and_the_result_answers_in_chat(
    base: Path, samples: list[Sample], tmp_path: Path
) -> None:
    config = CONFIG.model_copy(update={"max_steps": 12, "batch_size": 6, "micro_batch_size": 6})
    report = _train(samples, base, tmp_path / "tuned", config)
    assert (report.trained_samples, report.rejected, report.steps) == (6, (), 12)
    assert report.loss_last < 0.7 * report.loss_first

    before, after = _disk_weights(base), load_file(tmp_path / "tuned" / "model.safetensors")
    assert before.keys() == after.keys()
    trained = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name.split(".")[0] for name in trained} == {"language_model", "multi_modal_projector"}
    frozen = [name for name in before if name not in trained]
    assert sum(name.startswith(("image_tower.", "video_tower.")) for name in frozen) == sum(
        name.startswith(("image_tower.", "video_tower.")) for name in before
    )
    assert {"language_model.model.embed_tokens.weight", "language_model.lm_head.weight"} <= set(frozen)

    chat: Any = load_chat_model(tmp_path / "tuned")
    assert (tmp_path / "tuned" / "chat_template.jinja").read_text() == VICUNA_TEMPLATE
    assert samples[0].image is not None
    session = chat.open_frames(split_strip(Image.open(samples[0].image)))
    answer = "".join(session.ask("Describe clip 0.", Decoding(max_tokens=30)))
    assert session.turns == (("Describe clip 0.", answer),)


def _disk_weights(base: Path) -> dict[str, torch.Tensor]:
    from transformers import VideoLlavaForConditionalGeneration

    model = VideoLlavaForConditionalGeneration.from_pretrained(base, dtype=torch.float32)
    return {family_of(base).disk_name(name): tensor for name, tensor in model.state_dict().items()}


def test_only_answers_and_their_ends_are_learnt(base: Path, samples: list[Sample]) -> None:
    processor = family_of(base).load_processor(base)
    patches = (SIDE // PATCH) ** 2
    for sample, tokens in zip(samples, tokenize(processor, samples, 512)[0], strict=True):
        learnt = processor.tokenizer.decode(tokens.input_ids[tokens.supervised])
        said = [message.content for message in sample.messages if message.role == "assistant"]
        assert learnt == "".join(f" {answer}</s>" for answer in said)
        shown = {"clip": FRAMES * (patches + 1), "picture": patches, "text": 0}[
            sample.sample_id.split("-")[0]
        ]
        marks = torch.isin(
            tokens.input_ids, torch.tensor([processor.image_token_id, processor.video_token_id])
        )
        assert int(marks.sum()) == shown


@pytest.mark.parametrize("per_pack", [1, 2])
def test_a_mixed_batch_gives_the_logits_of_its_samples_alone(
    base: Path, samples: list[Sample], per_pack: int
) -> None:
    family = family_of(base)
    processor = family.load_processor(base)
    twins = [replace(s, messages=(s.messages[0], Message("assistant", "Else."))) for s in samples]
    tokens, _ = tokenize(processor, [*samples, *twins], 512)
    packs = pack(
        tokens,
        image_token_id=processor.image_token_id,
        video_token_id=processor.video_token_id,
        per_pack=per_pack,
        max_length=512,
        weighting="token",
    )
    assert len(packs) == (12 if per_pack == 1 else 8)  # text is never packed
    pictures = Pictures(processor, 1 << 30, [s.image for s in samples if s.video and s.image])
    batch = Collator(0, pictures, family=family)(packs)
    assert batch["pixel_values_videos"].shape[1:] == (FRAMES, 3, SIDE, SIDE)
    model = sft.load_base(base, CONFIG).eval()
    inputs = {name: value for name, value in batch.items() if name not in ("labels", "weights")}
    with torch.no_grad():
        together = model(**inputs).logits
    for row, pack_ in enumerate(packs):
        if pack_.samples > 1:
            continue
        alone = Collator(0, pictures, family=family)([pack_])
        inputs = {name: value for name, value in alone.items() if name not in ("labels", "weights")}
        with torch.no_grad():
            expected = model(**inputs).logits[0]
        torch.testing.assert_close(together[row, : pack_.length], expected, atol=2e-5, rtol=1e-4)
    learnt = [int((pack_.labels != -100).sum()) for pack_ in packs]
    assert sum(learnt) == sum(int(sample.supervised.sum()) for sample in tokens)


def test_a_training_that_is_stopped_goes_on_to_the_same_weights(
    base: Path, samples: list[Sample], tmp_path: Path
) -> None:
    config = CONFIG.model_copy(update={"max_steps": 4, "log_every_steps": 1})
    states = TrainingStates(LocalStore(tmp_path / "store"), "key")

    def stop_at_two(metrics: dict[str, float], step: int) -> None:
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        _train(samples, base, tmp_path / "a", config, states=states, log=stop_at_two)
    resumed = sft.train(samples, base, tmp_path / "a", config, work=tmp_path / "w", states=states)
    undisturbed = _train(samples, base, tmp_path / "b", config)
    assert resumed == undisturbed
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("a", "b")]
    assert weights[0] == weights[1]


def test_a_strip_holds_the_frames_the_chat_sees(tmp_path: Path, base: Path) -> None:
    clip = tmp_path / "clip.mp4"
    write_video(clip, "red")
    strip = Image.open(io.BytesIO(frame_strip(clip, 0.0, 60.0, frames=FRAMES, side=224)))
    assert strip_frames((strip.height, strip.width)) == FRAMES
    processor = family_of(base).load_processor(base)
    kept = encode_frames(processor, split_strip(strip))
    seen = encode_frames(processor, [frame.image for frame in spanning_frames(clip, FRAMES)])
    assert kept.shape == seen.shape == (FRAMES, 3, SIDE, SIDE)
    assert float((kept - seen).abs().mean()) < 0.1  # JPEG and two scalings in the place of one
    with pytest.raises(ValueError, match="squares"):
        strip_frames((100, 60))


def test_frames_are_refused_where_the_base_sees_pictures_and_where_their_numbers_differ(
    base: Path, samples: list[Sample], tmp_path: Path
) -> None:
    pictures_alone = load_llava_next(checkpoint_folder("builtin:nano-base"))
    kept, (rejected,) = tokenize(pictures_alone, samples[:1], 4096)
    assert not kept
    assert rejected.reason == "bad_image"
    assert "looks at pictures" in rejected.sentence
    short = tmp_path / "short.png"
    Image.new("RGB", (SIDE, 2 * SIDE)).save(short)
    other = replace(samples[0], sample_id="short", image=short)
    with pytest.raises(UserError, match="2 and 8 frames"):
        _train([samples[0], other], base, tmp_path / "b", CONFIG)


def test_a_template_that_teaches_the_end_is_kept(tmp_path: Path) -> None:
    own = VICUNA_TEMPLATE.replace("USER: ", "HUMAN: ")
    folder = write_checkpoint(tmp_path / "own", template=own)
    processor = family_of(folder).load_processor(folder)
    assert processor.chat_template == own
    assert family_of(folder).other_template(processor, folder) is None
    turns = [Message("user", "Hi"), Message("assistant", "Yes")]
    assert "HUMAN: Hi" in processor.tokenizer.decode(encode_text(processor, turns, visual=False).input_ids)
