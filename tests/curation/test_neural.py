from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from share4video.curation.encoders import FRAMES_PER_BATCH, Rgb, frame_encoder, text_encoder
from share4video.curation.neural import OpenClipEncoder, SentenceEncoder
from share4video.errors import UserError

if TYPE_CHECKING:
    import torch
    import transformers

pytestmark = pytest.mark.timeout(600)  # importing torch and open_clip alone can take minutes on busy cores


def pictures() -> list[Rgb]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, size, dtype=np.uint8) for size in ((40, 60, 3), (32, 32, 3), (90, 31, 3))]


def test_openai_weights_without_quickgelu_are_refused() -> None:
    with pytest.raises(UserError, match="quickgelu"):
        frame_encoder("open_clip:ViT-L-14-336")
    with pytest.raises(UserError, match="safetensors"):
        frame_encoder("open_clip:ViT-L-14-336-quickgelu//weights/model.pt")


TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 3, "width": 64, "patch_size": 8, "head_width": 32},
    "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1},
    "quick_gelu": True,
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> OpenClipEncoder:
    """A small tower in the shape of OpenAI's, weights random."""
    open_clip = pytest.importorskip("open_clip")
    folder = tmp_path_factory.mktemp("architectures")
    (folder / "tiny-test-quickgelu.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(folder)
    encoder = frame_encoder("open_clip:tiny-test-quickgelu/random")
    assert isinstance(encoder, OpenClipEncoder)
    return encoder


def hugging_face_twin(tower: torch.nn.Module, heads: int) -> transformers.CLIPVisionModel:
    """Return Hugging Face's model of an open_clip vision tower, with its weights."""
    import torch
    from transformers import CLIPVisionConfig, CLIPVisionModel

    own = tower.state_dict()
    width, _, patch, _ = own["conv1.weight"].shape
    blocks = 1 + max(int(name.split(".")[2]) for name in own if name.startswith("transformer.resblocks."))
    side = round((len(own["positional_embedding"]) - 1) ** 0.5) * patch
    config = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=len(own["transformer.resblocks.0.mlp.c_fc.bias"]),
        num_hidden_layers=blocks,
        num_attention_heads=heads,
        image_size=side,
        patch_size=patch,
        hidden_act="quick_gelu",
    )
    with torch.device("meta"):
        twin = CLIPVisionModel(config)
    names = {
        "embeddings.class_embedding": own["class_embedding"],
        "embeddings.patch_embedding.weight": own["conv1.weight"],
        "embeddings.position_embedding.weight": own["positional_embedding"],
    }
    pairs = {"pre_layrnorm": "ln_pre", "post_layernorm": "ln_post"}
    for block in range(blocks):
        there, here = f"encoder.layers.{block}", f"transformer.resblocks.{block}"
        pairs |= {f"{there}.layer_norm1": f"{here}.ln_1", f"{there}.layer_norm2": f"{here}.ln_2"}
        pairs |= {f"{there}.mlp.fc1": f"{here}.mlp.c_fc", f"{there}.mlp.fc2": f"{here}.mlp.c_proj"}
        pairs[f"{there}.self_attn.out_proj"] = f"{here}.attn.out_proj"
        for kind in ("weight", "bias"):
            parts = own[f"{here}.attn.in_proj_{kind}"].chunk(3)
            for name, part in zip(("q_proj", "k_proj", "v_proj"), parts, strict=True):
                names[f"{there}.self_attn.{name}.{kind}"] = part
    for there, here in pairs.items():
        names |= {f"{there}.{kind}": own[f"{here}.{kind}"] for kind in ("weight", "bias")}
    prefix = "vision_model." if any(name.startswith("vision_model.") for name in twin.state_dict()) else ""
    twin.to_empty(device=own["class_embedding"].device)
    rows = torch.arange(len(own["positional_embedding"]))[None]
    twin.get_submodule(f"{prefix}embeddings".rstrip(".")).position_ids = rows.to(twin.device)
    twin.load_state_dict({prefix + name: weight for name, weight in names.items()}, strict=True)
    return twin.eval()


def assert_equal_to_hugging_face(encoder: OpenClipEncoder, frames: list[Rgb], heads: int) -> None:
    import torch
    from transformers import CLIPImageProcessorPil

    tower, prepare = encoder._model
    twin = hugging_face_twin(tower, heads)
    side = twin.config.image_size
    processor = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    theirs = processor(images=[Image.fromarray(f) for f in frames], return_tensors="pt")["pixel_values"]
    ours = torch.stack([prepare(Image.fromarray(frame)) for frame in frames])
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    with torch.inference_mode():
        states = twin(theirs.to(twin.device), output_hidden_states=True).hidden_states[-1][:, 0]
    expected = torch.nn.functional.normalize(states, dim=1).cpu().numpy()
    np.testing.assert_allclose(encoder.encode(frames), expected, atol=1e-4)
    lengths = torch.linalg.vector_norm(states, dim=1)
    assert float(lengths.min()) > 0.1  # so that 1e-4 is little


def test_clip_vector_is_the_class_token_of_hugging_faces_last_hidden_state(tiny: OpenClipEncoder) -> None:
    assert_equal_to_hugging_face(tiny, pictures(), heads=2)


@pytest.mark.slow
def test_clip_vector_of_the_papers_architecture() -> None:
    pytest.importorskip("open_clip")
    encoder = OpenClipEncoder("ViT-L-14-336-quickgelu", None, batch=1)  # a frame takes seconds
    rng = np.random.default_rng(1)
    frames = [rng.integers(0, 255, (360, 640, 3), dtype=np.uint8)]
    assert_equal_to_hugging_face(encoder, frames, heads=16)


def test_a_frame_has_one_vector_in_whatever_company(tiny: OpenClipEncoder) -> None:
    rng = np.random.default_rng(2)
    frames = [rng.integers(0, 255, (40, 60, 3), dtype=np.uint8) for _ in range(2 * FRAMES_PER_BATCH + 3)]
    together = tiny.encode(frames)
    assert together.shape == (len(frames), 64) and together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    assert np.array_equal(together, np.concatenate([tiny.encode([frame]) for frame in frames]))
    assert np.array_equal(together[::-1], tiny.encode(frames[::-1]))
    assert not np.allclose(together[0], together[1], atol=1e-3)


def tiny_bert(folder: Path) -> Any:
    """Save a small BERT with random weights and its tokenizer; return both."""
    transformers = pytest.importorskip("transformers")
    import torch

    folder.mkdir(exist_ok=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "circle", "moves"]
    (folder / "vocab.txt").write_text("\n".join(words))
    tokenizer = transformers.BertTokenizerFast(vocab=str(folder / "vocab.txt"))
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
    )
    torch.manual_seed(0)
    model = transformers.BertModel(config).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model, tokenizer


def test_bert_vector_is_the_class_token(tmp_path: Path) -> None:
    import torch

    from share4video.curation.neural import BertEncoder

    model, tokenizer = tiny_bert(tmp_path)
    texts = ["a red circle moves", "a circle", "red"]
    encoder = BertEncoder(str(tmp_path))
    vectors = encoder.encode(texts)
    assert len(encoder.revision) == 64
    for text, vector in zip(texts, vectors, strict=True):
        with torch.inference_mode():
            state = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0, 0]
        np.testing.assert_allclose(vector, torch.nn.functional.normalize(state, dim=0).numpy(), atol=1e-5)


def test_missing_weights_are_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot load the encoder"):
        _ = frame_encoder(f"open_clip:ViT-B-32/{tmp_path}/none.safetensors").revision
    with pytest.raises(UserError, match="cannot load the encoder"):
        text_encoder(f"bert:{tmp_path}").encode(["a"])


def test_a_sentence_model_is_pooled_as_its_folder_asks(tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers")
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    model, tokenizer = tiny_bert(tmp_path / "bert")
    words = Transformer(str(tmp_path / "bert"))
    SentenceTransformer(modules=[words, Pooling(32, "mean")], device="cpu").save(str(tmp_path / "mean"))
    texts = ["a red circle moves", "a circle", "red"]
    encoder = SentenceEncoder(str(tmp_path / "mean"))
    vectors = encoder.encode(texts)
    assert vectors.dtype == np.float32 and vectors.shape == (3, 32)
    for text, vector in zip(texts, vectors, strict=True):
        with torch.inference_mode():
            state = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(dim=0)
        np.testing.assert_allclose(vector, torch.nn.functional.normalize(state, dim=0).numpy(), atol=1e-5)
    before = encoder.revision
    pooling = next((tmp_path / "mean").glob("*Pooling*/config.json"))
    pooling.write_text(pooling.read_text() + "\n")
    assert SentenceEncoder(str(tmp_path / "mean")).revision != before


def save_sentence_model(folder: Path) -> None:
    """Save a model whose vectors go through a layer of their own, which has a file of weights."""
    pytest.importorskip("sentence_transformers")
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Pooling, Transformer

    words = folder.with_name(f"{folder.name}-words")
    words.mkdir(parents=True)
    tiny_bert(words)
    modules = [Transformer(str(words)), Pooling(32, "mean"), Dense(32, 8)]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder))


def pickle_weights(module: Path) -> None:
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(module / "model.safetensors"), module / "pytorch_model.bin")
    (module / "model.safetensors").unlink()


@pytest.mark.parametrize("module", ["", "2_Dense"])
def test_no_module_of_a_sentence_model_is_unpickled(tmp_path: Path, module: str) -> None:
    folder = tmp_path / "model"
    save_sentence_model(folder)
    assert SentenceEncoder(str(folder)).encode(["a red circle"]).shape == (1, 8)
    (folder / "openvino").mkdir()
    (folder / "openvino" / "openvino_model.bin").write_bytes(b"never read")
    assert SentenceEncoder(str(folder)).encode(["a red circle"]).shape == (1, 8)
    pickle_weights(folder / module)
    with pytest.raises(UserError, match=r"cannot load the encoder: .*pytorch_model\.bin is not safetensors"):
        SentenceEncoder(str(folder)).encode(["a red circle"])


def test_a_sentence_models_modules_lie_within_it(tmp_path: Path) -> None:
    save_sentence_model(tmp_path / "model")
    (tmp_path / "model" / "2_Dense").rename(tmp_path / "2_Dense")
    pickle_weights(tmp_path / "2_Dense")
    modules = tmp_path / "model" / "modules.json"
    modules.write_text(modules.read_text().replace("2_Dense", "../2_Dense"))
    with pytest.raises(UserError, match=r"its module \.\./2_Dense lies outside of it"):
        SentenceEncoder(str(tmp_path / "model")).encode(["a red circle"])


def test_nothing_of_a_sentence_model_on_the_hub_is_unpickled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    kept = tmp_path / "models--somebody--model"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text("a" * 40)
    save_sentence_model(kept / "snapshots" / ("a" * 40))
    encoder = SentenceEncoder("somebody/model")
    assert (encoder.name, encoder.encode(["a red circle"]).shape) == ("sentence:somebody/model", (1, 8))
    pickle_weights(kept / "snapshots" / ("a" * 40) / "2_Dense")
    with pytest.raises(UserError, match=r"2_Dense/pytorch_model\.bin is not safetensors"):
        SentenceEncoder("somebody/model").encode(["a red circle"])
    with pytest.raises(UserError, match="cannot load the encoder"):
        SentenceEncoder("somebody/other").encode(["a red circle"])


@pytest.mark.parametrize("kind", ["open_clip", "bert", "sentence"])
def test_local_weights_are_known_by_their_content(tmp_path: Path, kind: str) -> None:
    places = [tmp_path / name for name in ("here", "there", "changed")]
    for place in places:
        (place / ".cache").mkdir(parents=True)
        (place / ".cache" / "fetched").write_text(place.name)
        (place / "model.safetensors").write_bytes(b"changed" if place.name == "changed" else b"weights")
    if kind == "open_clip":
        asked = [f"open_clip:ViT-B-32-quickgelu/{place}/model.safetensors" for place in places]
        here, there, changed = map(frame_encoder, asked)
    else:
        here, there, changed = (text_encoder(f"{kind}:{place}") for place in places)
    assert (here.name, here.revision) == (there.name, there.revision)
    assert str(tmp_path) not in here.name
    assert changed.name != here.name and changed.revision != here.revision
