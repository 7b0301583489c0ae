"""What a conversion writes, and what it refuses before it writes a weight."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from benchmarks.original_checkpoint import TOWER, write_tokenizer
from share4video.errors import UserError
from share4video.models.llava_next.convert import Report, convert
from share4video.models.llava_next.processor import load_processor
from share4video.models.transformers_server import check_tensor_names
from tests.models.llava_next.tiny import TINY, edit_config, pickle_weights, weights

# What vLLM's loader and those of transformers 4 and lmdeploy know: the names of llava-hf's repositories.
PER_LANGUAGE_LAYER = (
    "self_attn.q_proj.weight",
    "self_attn.k_proj.weight",
    "self_attn.v_proj.weight",
    "self_attn.o_proj.weight",
    "mlp.gate_proj.weight",
    "mlp.up_proj.weight",
    "mlp.down_proj.weight",
    "input_layernorm.weight",
    "post_attention_layernorm.weight",
)
PER_TOWER_LAYER = tuple(
    f"{part}.{kind}"
    for part in (
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.out_proj",
        "mlp.fc1",
        "mlp.fc2",
        "layer_norm1",
        "layer_norm2",
    )
    for kind in ("weight", "bias")
)
SERVED_NAMES = {
    "image_newline",
    "language_model.lm_head.weight",
    "language_model.model.embed_tokens.weight",
    "language_model.model.norm.weight",
    "multi_modal_projector.linear_1.bias",
    "multi_modal_projector.linear_1.weight",
    "multi_modal_projector.linear_2.bias",
    "multi_modal_projector.linear_2.weight",
    "vision_tower.vision_model.embeddings.class_embedding",
    "vision_tower.vision_model.embeddings.patch_embedding.weight",
    "vision_tower.vision_model.embeddings.position_embedding.weight",
    "vision_tower.vision_model.post_layernorm.bias",
    "vision_tower.vision_model.post_layernorm.weight",
    "vision_tower.vision_model.pre_layrnorm.bias",
    "vision_tower.vision_model.pre_layrnorm.weight",
    *(f"language_model.model.layers.{n}.{name}" for n in range(TINY.layers) for name in PER_LANGUAGE_LAYER),
    *(
        f"vision_tower.vision_model.encoder.layers.{n}.{name}"
        for n in range(TINY.tower_layers)
        for name in PER_TOWER_LAYER
    ),
}


def test_the_names_on_disk_are_those_servers_read(converted: Path) -> None:
    assert set(weights(converted)) == SERVED_NAMES
    check_tensor_names(str(converted))


def test_every_value_arrives_where_it_belongs(shared_original: Path, converted: Path) -> None:
    before, after = weights(shared_original), weights(converted)
    assert torch.equal(
        before["model.layers.1.mlp.up_proj.weight"], after["language_model.model.layers.1.mlp.up_proj.weight"]
    )
    assert torch.equal(before["model.mm_projector.2.bias"], after["multi_modal_projector.linear_2.bias"])
    tower = ".encoder.layers.2.mlp.fc2.weight"
    assert torch.equal(before[TOWER + tower], after["vision_tower.vision_model" + tower])
    for old, new in (
        ("model.embed_tokens.weight", "language_model.model.embed_tokens.weight"),
        ("lm_head.weight", "language_model.lm_head.weight"),
    ):
        assert torch.equal(before[old], after[new][: TINY.rows])
        assert after[new].shape[0] == 320
        torch.testing.assert_close(after[new][TINY.rows :], before[old].mean(0).expand(20, -1))


def test_the_image_token_comes_behind_rows_and_tokens(converted: Path) -> None:
    config = json.loads((converted / "config.json").read_text())
    processor = load_processor(converted)
    assert config["image_token_index"] == TINY.rows == processor.image_token_id
    assert processor.tokenizer.pad_token_id == TINY.rows - 1 == config["text_config"]["pad_token_id"]
    assert config["text_config"]["vocab_size"] == 320


@pytest.mark.parametrize("tokens", [TINY.rows - 1, TINY.rows - 8])
def test_rows_without_a_token_are_left_as_they_are(original: Path, tmp_path: Path, tokens: int) -> None:
    """The training code may add a row for padding that the tokenizer beside the weights does not know."""
    write_tokenizer(original, tokens, pad=False)
    edit_config(original, pad_token_id=TINY.rows - 1)
    report = convert(original, tmp_path / "out")
    tokenizer = load_processor(tmp_path / "out").tokenizer
    assert report.image_token_id == TINY.rows == tokenizer.convert_tokens_to_ids("<image>")
    assert tokenizer.pad_token_id == TINY.rows - 1
    assert tokenizer("ab").input_ids[1:] == tokenizer.convert_tokens_to_ids(["a", "b"])


def test_more_tokens_than_rows_need_more_rows(original: Path, tmp_path: Path) -> None:
    write_tokenizer(original, TINY.rows + 30)
    assert convert(original, tmp_path / "out").image_token_id == TINY.rows + 30
    check_tensor_names(str(tmp_path / "out"))


def test_shards_hold_no_more_than_asked_and_the_index_finds_all(original: Path, tmp_path: Path) -> None:
    report = convert(original, tmp_path / "out", max_shard_bytes=60_000)
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == SERVED_NAMES
    for file in set(index["weight_map"].values()):
        held = load_file(tmp_path / "out" / file)
        assert set(held) == {name for name, place in index["weight_map"].items() if place == file}
        assert sum(tensor.nbytes for tensor in held.values()) <= 60_000
    assert index["metadata"]["total_size"] == report.bytes
    assert report.shards == len(set(index["weight_map"].values())) > 3
    assert report.largest_shard_bytes <= 60_000
    check_tensor_names(str(tmp_path / "out"))


def test_the_same_source_gives_the_same_bytes(original: Path, converted: Path, tmp_path: Path) -> None:
    convert(original, tmp_path / "out")
    for file in converted.iterdir():
        assert file.read_bytes() == (tmp_path / "out" / file.name).read_bytes(), file.name


@pytest.mark.parametrize(("newer", "sharded"), [(True, True), (True, False), (False, True)])
def test_pickled_weights_give_the_same_checkpoint(
    original: Path, converted: Path, tmp_path: Path, newer: bool, sharded: bool
) -> None:
    if not sharded:
        save_file(weights(original), tmp_path / "whole")
        for file in (*original.glob("*.safetensors"), original / "model.safetensors.index.json"):
            file.unlink()
        (tmp_path / "whole").rename(original / "model.safetensors")
    pickle_weights(original, newer=newer)
    report = convert(original, tmp_path / "out")
    assert ("in memory whole" in " ".join(report.notes)) is not newer
    wanted, found = weights(converted), weights(tmp_path / "out")
    assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_bfloat16_stays_and_other_types_are_asked_for(original: Path, tmp_path: Path) -> None:
    for file in original.glob("*.safetensors"):
        save_file({name: value.bfloat16() for name, value in load_file(file).items()}, file)
    assert convert(original, tmp_path / "kept").dtype == "bfloat16"
    assert {value.dtype for value in weights(tmp_path / "kept").values()} == {torch.bfloat16}
    assert json.loads((tmp_path / "kept" / "config.json").read_text())["dtype"] == "bfloat16"
    assert convert(original, tmp_path / "cast", dtype="float32").dtype == "float32"
    assert {value.dtype for value in weights(tmp_path / "cast").values()} == {torch.float32}
    with pytest.raises(UserError, match="no such type: int8"):
        convert(original, tmp_path / "never", dtype="int8")


def test_a_weight_that_does_not_fit_the_type_is_named(original: Path, tmp_path: Path) -> None:
    change_tensor(original, "model.norm.weight", lambda value: value.fill_(1e6))
    with pytest.raises(UserError, match=r"language_model\.model\.norm\.weight does not fit float16"):
        convert(original, tmp_path / "out", dtype="float16")
    assert not (tmp_path / "out").exists()


def test_a_weight_that_is_no_number_is_named(original: Path, tmp_path: Path) -> None:
    change_tensor(original, "model.norm.weight", lambda value: value.fill_(math.nan))
    with pytest.raises(UserError, match=r"language_model\.model\.norm\.weight holds values that are no numb"):
        convert(original, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_missing_unexpected_and_misshapen_weights_are_all_listed(original: Path, tmp_path: Path) -> None:
    def spoil(held: dict[str, torch.Tensor]) -> None:
        held["model.layers.0.mlp.up_proj.weight_scale"] = held.pop("model.layers.0.mlp.up_proj.weight")
        held["model.image_newline"] = torch.zeros(7)

    everything = weights(original)
    for file in (*original.glob("*.safetensors"), original / "model.safetensors.index.json"):
        file.unlink()
    spoil(everything)
    save_file(everything, original / "model.safetensors")
    with pytest.raises(UserError) as caught:
        convert(original, tmp_path / "out")
    said = caught.value.sentence()
    assert "1 missing (language_model.model.layers.0.mlp.up_proj.weight)" in said
    assert "1 unexpected (language_model.model.layers.0.mlp.up_proj.weight_scale)" in said
    assert "1 of another shape (image_newline is (7,) and not (32,))" in said
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*"))


def test_buffers_of_older_versions_are_left_out_and_named(original: Path, tmp_path: Path) -> None:
    extra = {
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4),
        f"{TOWER}.embeddings.position_ids": torch.ones(1, 17),
    }
    add_tensors(original, extra)
    assert set(convert(original, tmp_path / "out").dropped) == set(extra)
    assert set(weights(tmp_path / "out")) == SERVED_NAMES


def test_a_tied_head_is_not_stored(original: Path, tmp_path: Path) -> None:
    edit_config(original, tie_word_embeddings=True)
    assert convert(original, tmp_path / "out").dropped == ("lm_head.weight",)
    check_tensor_names(str(tmp_path / "out"))


def test_a_towers_own_configuration_wins_over_its_shapes(original: Path, tmp_path: Path) -> None:
    report = convert(original, tmp_path / "derived")
    assert "heads of width 64" in " ".join(report.notes)
    derived = json.loads((tmp_path / "derived" / "config.json").read_text())["vision_config"]
    (original / "vision_tower").mkdir()
    told = {**derived, "num_attention_heads": 4, "hidden_act": "gelu", "model_type": "clip_vision_model"}
    (original / "vision_tower" / "config.json").write_text(json.dumps(told))
    (original / "vision_tower" / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 1]})
    )
    report = convert(original, tmp_path / "told")
    assert "heads" not in " ".join(report.notes)
    found = json.loads((tmp_path / "told" / "config.json").read_text())["vision_config"]
    assert (found["num_attention_heads"], found["hidden_act"]) == (4, "gelu")
    assert list(load_processor(tmp_path / "told").image_processor.image_mean) == [0.1, 0.2, 0.3]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"model_type": "llava_next"}, "in Hugging Face's layout already"),
        ({"model_type": "qwen2_vl"}, "of type 'qwen2_vl', not 'llava_llama'"),
        ({"mm_projector_type": "linear"}, "mm_projector_type is linear"),
        ({"mm_patch_merge_type": "flat"}, "mm_patch_merge_type is flat"),
        ({"image_aspect_ratio": "pad"}, "image_aspect_ratio is pad"),
        ({"mm_use_im_start_end": True}, "mm_use_im_start_end is True"),
        ({"image_grid_pinpoints": "__import__('os')"}, "image_grid_pinpoints is __import__"),
        ({"image_grid_pinpoints": None}, "image_grid_pinpoints is nothing"),
        ({"image_grid_pinpoints": [[10**9, 10**9]]}, "no grid of 28-pixel tiles"),
        ({"image_grid_pinpoints": [[28 * 13, 28 * 5]]}, "at most 64 of them"),
        ({"image_grid_pinpoints": [[56, 56], [56, 30]]}, "no grid of 28-pixel tiles"),
        ({"image_grid_pinpoints": [[56, 0]]}, "no grid of 28-pixel tiles"),
        ({"image_grid_pinpoints": [[-28, -28]]}, "no grid of 28-pixel tiles"),
        ({"num_hidden_layers": 10**7}, "num_hidden_layers is 10000000"),
        ({"num_attention_heads": "four"}, "the configuration makes no model"),
        ({"num_attention_heads": 7}, "the configuration makes no model"),
        ({"rope_scaling": {"type": "linear"}}, "the configuration makes no model"),
        ({"vocab_size": 299}, "embed_tokens.weight is .300, 32. and not .299, 32."),
    ],
)
def test_what_cannot_be_converted_is_said_in_a_sentence(
    original: Path, tmp_path: Path, values: dict[str, Any], sentence: str
) -> None:
    edit_config(original, **values)
    with pytest.raises(UserError, match=sentence):
        convert(original, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("held", "drawn"),
    [
        ({"temperature": 0.9, "top_p": 0.6}, {}),  # the file LLaVA leaves
        ({"do_sample": False, "temperature": 0.6}, {}),
        ({"do_sample": True, "temperature": 0.6, "top_p": 0.9}, {"temperature": 0.6, "top_p": 0.9}),
    ],
)
def test_numbers_for_drawing_stay_where_the_checkpoint_draws(
    original: Path, tmp_path: Path, held: dict[str, Any], drawn: dict[str, Any]
) -> None:
    (original / "generation_config.json").write_text(json.dumps(held))
    convert(original, tmp_path / "out")
    found = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert {key: found[key] for key in ("temperature", "top_p", "top_k") if key in found} == drawn
    assert bool(found.get("do_sample")) is bool(drawn)


def test_a_converted_folder_says_so(converted: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="in Hugging Face's layout already"):
        convert(converted, tmp_path / "out")


def test_a_folder_without_a_checkpoint_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no config\.json"):
        convert(tmp_path, tmp_path / "out")
    with pytest.raises(UserError, match="no such checkpoint folder"):
        convert(tmp_path / "nowhere", tmp_path / "out")


def test_a_tokenizer_of_another_conversation_is_refused(original: Path, tmp_path: Path) -> None:
    text = (original / "tokenizer.json").read_text().replace("<|eot_id|>", "<|im_end|>")
    (original / "tokenizer.json").write_text(text)
    with pytest.raises(UserError, match=r"the tokenizer has no <\|eot_id\|>"):
        convert(original, tmp_path / "out")


def test_the_towers_address_is_never_followed(original: Path, tmp_path: Path) -> None:
    (tmp_path / "trap").mkdir()
    (tmp_path / "trap" / "config.json").write_text("not JSON")
    edit_config(original, mm_vision_tower=str(tmp_path / "trap"))
    report = convert(original, tmp_path / "out")
    assert str(tmp_path) not in (tmp_path / "out" / "config.json").read_text()
    assert report.tensors == len(SERVED_NAMES)


def test_the_record_tells_source_and_counts_and_no_path(original: Path, tmp_path: Path) -> None:
    report = convert(original, tmp_path / "out")
    text = (tmp_path / "out" / "CONVERSION.json").read_text()
    record = json.loads(text)
    assert record["identity"]["source_revision"] == report.source_revision
    assert (record["tensors"], record["bytes"]) == (len(SERVED_NAMES), report.bytes)
    assert record["versions"]["transformers"] and str(tmp_path) not in text
    change_tensor(original, "model.norm.weight", lambda value: value.add_(1))
    assert convert(original, tmp_path / "other").source_revision != report.source_revision


def test_progress_ends_at_all_bytes(original: Path, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    report: Report = convert(original, tmp_path / "out", progress=lambda *told: seen.append(told))
    assert seen[-1] == ("converting", report.bytes, report.bytes)
    assert {label for label, _, _ in seen} == {"hashing", "converting"}


def first_choice(size: tuple[int, int], layouts: list[tuple[int, int]]) -> tuple[int, int]:
    """Return the layout LLaVA takes for a picture: most pixels kept, then least waste, then the first."""

    def judged(layout: tuple[int, int]) -> tuple[int, int]:
        scale = min(layout[0] / size[0], layout[1] / size[1])
        kept = min(int(size[0] * scale) * int(size[1] * scale), size[0] * size[1])
        return kept, kept - layout[0] * layout[1]

    return max(layouts, key=judged)  # of equals, the first


@given(st.integers(1, 90), st.integers(1, 90))
@settings(max_examples=200, deadline=None)
def test_small_and_large_pictures_get_the_layout_of_the_original_code(width: int, height: int) -> None:
    from transformers.image_processing_utils import select_best_resolution

    side = TINY.side
    original = [(side, 2 * side), (2 * side, side), (2 * side, 2 * side), (3 * side, side), (side, 3 * side)]
    config = tiny_config()
    chosen = select_best_resolution((height, width), config.image_grid_pinpoints)
    assert tuple(chosen[::-1]) == first_choice((width, height), original)


def test_visual_tokens_are_those_of_the_released_code(data_root: Path, converted: Path) -> None:
    processor = load_processor(converted)
    processor.patch_size = 14
    processor.image_processor.size = {"shortest_edge": 336}
    processor.image_processor.image_grid_pinpoints = [
        [side // 28 * 336 for side in pair] for pair in processor.image_processor.image_grid_pinpoints
    ]
    golden = json.loads((data_root / "golden" / "composition.json").read_text())["anyres_336"]
    sizes = [entry["image_wh"][::-1] for entry in golden]
    counted = processor._get_num_multimodal_tokens(image_sizes=sizes)["num_image_tokens"]
    assert counted == [entry["tokens"] for entry in golden]


@cache
def tiny_config() -> Any:
    from transformers import CLIPVisionConfig

    from benchmarks.original_checkpoint import config
    from share4video.models.llava_next.config import OriginalConfig, llava_next_config

    text = config(TINY, torch.float32)
    vision = CLIPVisionConfig(image_size=TINY.side, patch_size=TINY.patch)
    return llava_next_config(
        OriginalConfig.model_validate({**text, "text": text}), vision, vocab_size=320, image_token_id=300
    )


def change_tensor(folder: Path, name: str, change: Any) -> None:
    """Change one tensor where it lies."""
    for file in folder.glob("*.safetensors"):
        held = load_file(file)
        if name in held:
            change(held[name])
            save_file(held, file)


def add_tensors(folder: Path, extra: dict[str, torch.Tensor]) -> None:
    """Add tensors to the last shard and the index."""
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    file = max(index["weight_map"].values())
    save_file(load_file(folder / file) | extra, folder / file)
    index["weight_map"] |= dict.fromkeys(extra, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
