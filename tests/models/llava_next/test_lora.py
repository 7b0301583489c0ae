"""LoRA folders of the released training script, merged as peft itself merges."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.original_checkpoint import TOWER, write_tokenizer
from share4video.errors import UserError
from share4video.models.llava_next.convert import convert
from share4video.models.llava_next.processor import load_processor
from share4video.models.transformers_server import check_tensor_names
from tests.models.llava_next.tiny import TINY, edit_config, pickle_weights, weights

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LANGUAGE = ("model.embed_tokens.", "model.layers.", "model.norm.", "lm_head.")


@pytest.fixture(scope="module", params=[False, True], ids=["alpha/r", "alpha/sqrt(r)"])
def trained(
    request: pytest.FixtureRequest, shared_original: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, torch.Tensor]]:
    """A LoRA folder made by peft on the base's language model, and what peft merges it to."""
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    text = json.loads((shared_original / "config.json").read_text())
    del text["model_type"], text["architectures"]
    base = LlamaForCausalLM(LlamaConfig(**text))
    held = {name: value for name, value in weights(shared_original).items() if name.startswith(LANGUAGE)}
    base.load_state_dict(held)
    settings = LoraConfig(r=4, lora_alpha=6, target_modules=TARGETS, use_rslora=request.param)
    wrapped = get_peft_model(base, settings)
    for name, value in wrapped.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(value, std=0.2)
    folder = tmp_path_factory.mktemp("lora") / "adapter"
    wrapped.save_pretrained(folder)
    shutil.copyfile(shared_original / "config.json", folder / "config.json")
    whole = {
        "base_model.model.model.mm_projector.0.bias": torch.full((32,), 0.5),
        f"base_model.model.{TOWER}.post_layernorm.bias": torch.full((64,), 0.25),
    }
    torch.save(whole, folder / "non_lora_trainables.bin")
    merged = wrapped.merge_and_unload().state_dict()
    return folder, {name: value.clone() for name, value in merged.items()}


@pytest.fixture
def adapter(trained: tuple[Path, Any], tmp_path: Path) -> Path:
    """A LoRA folder of the test's own."""
    return Path(shutil.copytree(trained[0], tmp_path / "adapter"))


def test_the_merge_is_pefts_own(
    trained: tuple[Path, dict[str, torch.Tensor]], shared_original: Path, tmp_path: Path
) -> None:
    folder, wanted = trained
    report = convert(folder, tmp_path / "out", base=shared_original)
    found, before = weights(tmp_path / "out"), weights(shared_original)
    for name, value in wanted.items():
        if name.startswith("model.layers."):
            torch.testing.assert_close(found[f"language_model.{name}"], value, rtol=1e-5, atol=1e-6)
    changed = "model.layers.0.mlp.up_proj.weight"
    assert not torch.allclose(found[f"language_model.{changed}"], before[changed], atol=0.01)
    assert torch.equal(found["multi_modal_projector.linear_1.bias"], torch.full((32,), 0.5))
    assert torch.equal(found["vision_tower.vision_model.post_layernorm.bias"], torch.full((64,), 0.25))
    assert torch.equal(found["multi_modal_projector.linear_2.bias"], before["model.mm_projector.2.bias"])
    assert "LoRA weights were merged into their base." in report.notes
    check_tensor_names(str(tmp_path / "out"))


def test_pickled_pairs_and_names_of_other_versions_merge_the_same(
    adapter: Path, shared_original: Path, tmp_path: Path
) -> None:
    convert(adapter, tmp_path / "one", base=shared_original)
    pairs = load_file(adapter / "adapter_model.safetensors")
    renamed = {
        name.replace("lora_A.", "lora_A.default.").replace("lora_B.", "lora_B.default."): value
        for name, value in pairs.items()
    }
    torch.save(renamed, adapter / "adapter_model.bin")
    (adapter / "adapter_model.safetensors").unlink()
    convert(adapter, tmp_path / "other", base=shared_original)
    one, other = weights(tmp_path / "one"), weights(tmp_path / "other")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_old_pickled_files_of_adapter_and_base_are_read_once_each(
    adapter: Path, shared_original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = Path(shutil.copytree(shared_original, tmp_path / "base"))
    convert(adapter, tmp_path / "one", base=base)
    pickle_weights(base, newer=False)
    pairs = load_file(adapter / "adapter_model.safetensors")
    torch.save(pairs, adapter / "adapter_model.bin", _use_new_zipfile_serialization=False)
    (adapter / "adapter_model.safetensors").unlink()
    read: list[str] = []
    load = torch.load

    def counted(file: Path, **options: Any) -> Any:
        if not options.get("mmap"):
            read.append(file.name)
        return load(file, **options)

    monkeypatch.setattr(torch, "load", counted)
    convert(adapter, tmp_path / "other", base=base)
    one, other = weights(tmp_path / "one"), weights(tmp_path / "other")
    assert all(torch.equal(one[name], other[name]) for name in one)
    shards = len(list(base.glob("*.bin")))
    assert len(read) <= 2 * (shards + 1)  # for the headers, and for the values


def test_a_tower_with_low_rank_changes_merges_too(
    adapter: Path, shared_original: Path, tmp_path: Path
) -> None:
    """The released script's target list hits the tower as well where the base had it unfrozen."""
    module = f"{TOWER}.encoder.layers.0.self_attn.q_proj"
    a, b = torch.randn(4, 64), torch.randn(64, 4)
    pairs = load_file(adapter / "adapter_model.safetensors")
    pairs |= {f"base_model.model.{module}.lora_A.weight": a, f"base_model.model.{module}.lora_B.weight": b}
    save_file(pairs, adapter / "adapter_model.safetensors")
    trained_whole = torch.randn(64, 64)
    torch.save(
        {f"base_model.model.{module}.base_layer.weight": trained_whole}, adapter / "non_lora_trainables.bin"
    )
    convert(adapter, tmp_path / "out", base=shared_original)
    found = weights(tmp_path / "out")["vision_tower.vision_model.encoder.layers.0.self_attn.q_proj.weight"]
    settings = json.loads((adapter / "adapter_config.json").read_text())
    scaling = 6 / (4**0.5 if settings["use_rslora"] else 4)
    torch.testing.assert_close(found, trained_whole + scaling * (b @ a))


def test_all_of_it_has_the_bases_type(adapter: Path, shared_original: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(shared_original, tmp_path / "base"))
    for file in base.glob("*.safetensors"):
        save_file({name: value.bfloat16() for name, value in load_file(file).items()}, file)
    assert convert(adapter, tmp_path / "out", base=base).dtype == "bfloat16"
    assert {value.dtype for value in weights(tmp_path / "out").values()} == {torch.bfloat16}


def test_an_adapter_without_its_base_is_refused(adapter: Path, original: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"these are LoRA weights.*--base"):
        convert(adapter, tmp_path / "out")
    with pytest.raises(UserError, match="a whole model needs no base"):
        convert(original, tmp_path / "out", base=original)


def test_changes_that_do_not_fit_the_base_are_listed(
    adapter: Path, shared_original: Path, tmp_path: Path
) -> None:
    pairs = load_file(adapter / "adapter_model.safetensors")
    stem = "base_model.model.model.layers.{}.mlp.up_proj.lora_{}.weight"
    pairs[stem.format(9, "A")] = pairs.pop(stem.format(0, "A"))  # a layer the base has not
    pairs[stem.format(1, "B")] = torch.zeros(7, 4)
    save_file(pairs, adapter / "adapter_model.safetensors")
    with pytest.raises(UserError) as caught:
        convert(adapter, tmp_path / "out", base=shared_original)
    said = caught.value.sentence()
    assert "3 low-rank changes do not fit the base" in said
    assert all(f"model.layers.{layer}.mlp.up_proj" in said for layer in (0, 1, 9))


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"use_dora": True}, "the adapter sets use_dora"),
        ({"alpha_pattern": {"q_proj": 2}}, "the adapter sets alpha_pattern"),
        ({"peft_type": "IA3"}, "the adapter's peft_type is missing or not LoRA's"),
        ({"r": 0}, "the adapter's r is missing or not LoRA's"),
    ],
)
def test_other_kinds_of_adapters_are_refused(
    adapter: Path, shared_original: Path, tmp_path: Path, values: dict[str, Any], sentence: str
) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    with pytest.raises(UserError, match=sentence):
        convert(adapter, tmp_path / "out", base=shared_original)


def test_a_base_of_its_own_tower_and_projector_may_be_the_bare_language_model(
    adapter: Path, shared_original: Path, tmp_path: Path
) -> None:
    """Everything that was trained whole is in the LoRA folder; the base then is plain Llama."""
    everything = weights(shared_original)
    base = tmp_path / "base"
    base.mkdir()
    language = {name: value for name, value in everything.items() if name.startswith(LANGUAGE)}
    save_file(language, base / "model.safetensors")
    shutil.copyfile(shared_original / "tokenizer.json", base / "tokenizer.json")
    shutil.copyfile(shared_original / "tokenizer_config.json", base / "tokenizer_config.json")
    rest = {f"base_model.model.{name}": everything[name] for name in everything.keys() - language.keys()}
    torch.save(rest, adapter / "non_lora_trainables.bin")
    convert(adapter, tmp_path / "out", base=base)
    convert(adapter, tmp_path / "other", base=shared_original)
    one, other = weights(tmp_path / "out"), weights(tmp_path / "other")
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_rows_that_the_training_added_and_did_not_save_are_the_mean(
    trained: tuple[Path, Any], adapter: Path, shared_original: Path, tmp_path: Path
) -> None:
    """The released script adds ``<pad>`` to a tokenizer without one; the embedding it grows is frozen."""
    base = Path(shutil.copytree(shared_original, tmp_path / "base"))
    rows = TINY.rows - 1
    before = weights(base)
    grown = ("model.embed_tokens.weight", "lm_head.weight")
    for file in base.glob("*.safetensors"):
        held = load_file(file)
        for name in grown:
            if name in held:
                held[name] = held[name][:rows].clone()
        save_file(held, file)
    for folder in (base, adapter):
        edit_config(folder, vocab_size=rows if folder == base else TINY.rows, pad_token_id=TINY.rows - 1)
    write_tokenizer(base, rows, pad=False)
    report = convert(adapter, tmp_path / "out", base=base)
    found = weights(tmp_path / "out")
    for name in grown:
        values = found[f"language_model.{name}"]
        assert torch.equal(values[:rows], before[name][:rows])
        torch.testing.assert_close(values[rows:], before[name][:rows].mean(0).expand(len(values) - rows, -1))
    assert report.image_token_id == TINY.rows
    assert "The base has 299 rows for the 300 of the training" in " ".join(report.notes)
    tokenizer = load_processor(tmp_path / "out").tokenizer
    assert tokenizer.pad_token_id == rows
    check_tensor_names(str(tmp_path / "out"))
