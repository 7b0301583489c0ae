"""Samples that share a picture are computed as if each stood alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from share4video.training.packing import IGNORED, PADDING, Collator, Pack, pack, schedule, tree_mask
from share4video.training.samples import Pictures, Sample, TokenSample, tokenize

MakeSamples = Callable[[int, int], list[Sample]]


def _pack(
    processor: Any,
    samples: list[TokenSample],
    per_pack: int,
    weighting: Literal["token", "sample"] = "token",
    max_length: int = 4096,
) -> list[Pack]:
    return pack(
        samples,
        image_token_id=processor.image_token_id,
        per_pack=per_pack,
        max_length=max_length,
        weighting=weighting,
    )


def _learnt(model: Any, batch: dict[str, torch.Tensor]) -> list[tuple[int, torch.Tensor]]:
    """Return (token, logits that predict it) of all supervised tokens, sequence by sequence."""
    labels = batch.pop("labels")
    batch.pop("weights")
    with torch.no_grad():
        logits = model(**batch, use_cache=False).logits
    return [
        (int(labels[row, place]), logits[row, place - 1])
        for row, place in (labels != IGNORED).nonzero().tolist()
    ]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_samples_are_computed_as_if_alone(
    base: Path, processor: Any, make_samples: MakeSamples, attention: str
) -> None:
    from transformers import LlavaNextForConditionalGeneration

    model: Any = LlavaNextForConditionalGeneration.from_pretrained(
        base, dtype=torch.float32, attn_implementation=attention
    )
    model.eval()
    samples, _ = tokenize(processor, make_samples(2, 4), 4096)
    collate = Collator(0, Pictures(processor, 1 << 30), additive_mask=attention == "eager")
    alone = [_learnt(model, collate([one])) for one in _pack(processor, samples, 1)]
    expected = [item for sample in alone for item in sample]
    packs = _pack(processor, samples, 3)
    assert [p.samples for p in packs] == [3, 1, 3, 1]
    assert sum(p.length for p in packs) < 0.7 * sum(sample.length for sample in samples)
    found = _learnt(model, collate(packs))
    assert [token for token, _ in found] == [token for token, _ in expected]
    for (_, packed), (_, single) in zip(found, expected, strict=True):
        torch.testing.assert_close(packed, single, atol=2e-5, rtol=2e-4)


def test_a_pack_holds_samples_of_one_picture_and_one_beginning(
    processor: Any, make_samples: MakeSamples
) -> None:
    made = make_samples(2, 3)
    other = replace(made[0], sample_id="other", messages=made[0].messages[1:])  # no system text
    samples, _ = tokenize(processor, [*made, other], 4096)
    packs = _pack(processor, samples, 8)
    assert sorted(p.samples for p in packs) == [1, 3, 3]
    features = {s.image: int((s.input_ids == processor.image_token_id).sum()) for s in samples}
    for p in packs:
        assert int((p.input_ids == processor.image_token_id).sum()) == features[p.image]


def test_no_pack_is_longer_than_a_sequence_may_be(processor: Any, make_samples: MakeSamples) -> None:
    samples, _ = tokenize(processor, make_samples(1, 6), 4096)
    longest = max(sample.length for sample in samples)
    packs = _pack(processor, samples, 6, max_length=longest + 30)
    assert len(packs) > 1
    assert max(p.length for p in packs) <= longest + 30


@pytest.mark.parametrize("per_pack", [1, 4])
def test_weights_count_tokens_or_samples(processor: Any, make_samples: MakeSamples, per_pack: int) -> None:
    samples, _ = tokenize(processor, make_samples(2, 4), 4096)
    by_token = sum(float(p.weights.sum()) for p in _pack(processor, samples, per_pack, "token"))
    by_sample = sum(float(p.weights.sum()) for p in _pack(processor, samples, per_pack, "sample"))
    assert by_token == sum(int(sample.supervised.sum()) for sample in samples)
    assert by_sample == pytest.approx(len(samples))


def _sample(ids: list[int], answer: int) -> TokenSample:
    supervised = torch.zeros(len(ids), dtype=torch.bool)
    supervised[-answer:] = True
    return TokenSample(f"{ids}", Path("p"), (1, 1), torch.tensor(ids), supervised)


@given(
    st.lists(
        st.tuples(st.lists(st.integers(0, 3), min_size=1, max_size=5), st.integers(1, 3)),
        min_size=1,
        max_size=6,
    )
)
def test_every_answer_is_learnt_from_its_own_sample(tails: list[tuple[list[int], int]]) -> None:
    image = 9
    samples = [
        _sample([7, image, image, 8, *tail, *tail[:answer]], min(answer, len(tail))) for tail, answer in tails
    ]
    (packed,) = pack(samples, image_token_id=image, per_pack=8, max_length=999, weighting="token")
    mask = tree_mask(packed.branches[None])[0, 0]
    answers = Counter()
    for place in (packed.labels != IGNORED).nonzero().flatten().tolist():
        before = place - 1
        seen = mask[before].nonzero().flatten().tolist()
        assert seen[-1] == before
        assert packed.position_ids[seen].tolist() == list(range(len(seen)))
        answers[(*packed.input_ids[seen].tolist(), int(packed.labels[place]))] += 1
    expected = Counter()
    for sample in samples:
        for place in sample.supervised.nonzero().flatten().tolist():
            expected[tuple(sample.input_ids[: place + 1].tolist())] += 1
    assert answers == expected


def test_padding_sees_something_and_is_seen_by_nothing() -> None:
    mask = tree_mask(torch.tensor([[0, 0, 1, 1, 2, PADDING, PADDING]]))[0, 0]
    assert bool(mask.any(dim=1).all())
    assert not bool(mask[:5, 5:].any())
    assert mask[4].tolist() == [True, True, False, False, True, False, False]


@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=40),
    st.integers(1, 8),
    st.integers(1, 12),
    st.integers(0, 3),
)
def test_a_schedule_takes_everything_once_an_epoch(
    lengths: list[int], batch: int, steps: int, seed: int
) -> None:
    order = schedule(lengths, batch_size=batch, steps=steps, seed=seed)
    assert len(order) == batch * steps
    assert order == schedule(lengths, batch_size=batch, steps=steps, seed=seed)
    for start in range(0, len(order) - len(lengths) + 1, len(lengths)):
        assert sorted(order[start : start + len(lengths)]) == list(range(len(lengths)))


def test_batches_hold_sequences_of_like_length() -> None:
    lengths = [10 * (i % 16) for i in range(256)]
    order = schedule(lengths, batch_size=16, steps=16, seed=0)
    batches = [[lengths[i] for i in order[b : b + 16]] for b in range(0, 256, 16)]
    assert all(max(batch) - min(batch) <= 10 for batch in batches)
    assert len({batch[0] for batch in batches}) > 8  # and the batches themselves are shuffled
