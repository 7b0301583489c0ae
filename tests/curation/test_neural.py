from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from share4video.curation.encoders import Rgb, frame_encoder, text_encoder
from share4video.errors import UserError

pytestmark = pytest.mark.timeout(600)  # importing torch and open_clip alone can take minutes on busy cores


def pictures() -> list[Rgb]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, size, dtype=np.uint8) for size in ((40, 60, 3), (32, 32, 3), (90, 31, 3))]


def test_openai_weights_without_quickgelu_are_refused() -> None:
    with pytest.raises(UserError, match="quickgelu"):
        frame_encoder("open_clip:ViT-L-14-336")
    with pytest.raises(UserError, match="safetensors"):
        frame_encoder("open_clip:ViT-L-14-336-quickgelu//weights/model.pt")


def test_clip_vector_is_the_class_token_before_the_last_norm(tmp_path: Path) -> None:
    open_clip = pytest.importorskip("open_clip")
    import torch

    from share4video.curation.neural import OpenClipEncoder

    tower = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 32}
    words = {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1}
    shape = {"embed_dim": 16, "vision_cfg": tower, "text_cfg": words, "quick_gelu": True}
    (tmp_path / "tiny-test-quickgelu.json").write_text(json.dumps(shape))
    open_clip.add_model_config(tmp_path)
    encoder = OpenClipEncoder("tiny-test-quickgelu", None)
    frames = pictures()
    vectors = encoder.encode(frames)
    assert vectors.shape == (3, 64)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    model, prepare = encoder._model
    with torch.inference_mode():
        projected = model.get_submodule("ln_post")(8 * torch.from_numpy(vectors)) @ model.get_parameter(
            "proj"
        )
        expected = model(
            torch.stack([prepare(Image.fromarray(frame)) for frame in frames]).to(projected.device)
        )
    torch.testing.assert_close(projected, expected, atol=1e-3, rtol=1e-3)
    assert np.array_equal(OpenClipEncoder("tiny-test-quickgelu", None).encode(frames), vectors)


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
    encoder = text_encoder(f"sentence:{tmp_path / 'mean'}")
    vectors = encoder.encode(texts)
    assert vectors.dtype == np.float32 and vectors.shape == (3, 32)
    for text, vector in zip(texts, vectors, strict=True):
        with torch.inference_mode():
            state = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(dim=0)
        np.testing.assert_allclose(vector, torch.nn.functional.normalize(state, dim=0).numpy(), atol=1e-5)
    before = encoder.revision
    pooling = next((tmp_path / "mean").glob("*Pooling*/config.json"))
    pooling.write_text(pooling.read_text() + "\n")
    assert text_encoder(f"sentence:{tmp_path / 'mean'}").revision != before
    (tmp_path / "mean" / "pytorch_model.bin").write_bytes(b"pickled")
    (tmp_path / "mean" / "model.safetensors").unlink()
    with pytest.raises(UserError, match="not safetensors"):
        text_encoder(f"sentence:{tmp_path / 'mean'}").encode(texts)
