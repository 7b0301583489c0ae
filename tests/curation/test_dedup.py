from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from share4video.curation import candidates, neighbours
from share4video.curation.dedup import Admission, Thresholds, admit, kept_counts, survivor_order
from share4video.curation.neighbours import Mode, NearPairs, find_pairs
from share4video.errors import UserError

FLOOR = 0.25
Array = npt.NDArray[np.float32]


def unit(vectors: npt.NDArray[Any]) -> Array:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)


class Library:
    """Clips with texts and looks drawn near a few centres, so that some pairs are close to any threshold."""

    def __init__(self, seed: int, clips: int, frames: int = 3) -> None:
        rng = np.random.default_rng(seed)
        centres = rng.normal(size=(1 + clips // 4, 6))
        group = rng.integers(len(centres), size=clips)
        spread = rng.uniform(0.02, 0.8, size=(clips, 1))
        self.text = unit(centres[group] + spread * rng.normal(size=(clips, 6)))
        noise = rng.normal(size=(clips, frames, 6))
        self.looks = unit(centres[group][:, None] + spread[:, :, None] * noise)
        self.ids = [f"{number:04x}" for number in rng.permutation(clips)]
        self.pixels = rng.integers(1, 3, size=clips).tolist()
        self.durations_s = rng.integers(1, 3, size=clips).astype(float).tolist()
        self.ranks = rng.integers(0, 2, size=clips).tolist()

    def order(self) -> list[int]:
        return survivor_order(self.pixels, self.durations_s, self.ranks, self.ids)

    def pairs(self, mode: Mode, floor: float = FLOOR) -> NearPairs:
        return find_pairs(
            text=None if mode == "visual" else self.text,
            looks=None if mode == "text" else self.looks,
            floor=floor,
        )

    def taken(self, numbers: Sequence[int]) -> Library:
        """Return the same clips in another order."""
        other = copy.copy(self)
        other.text, other.looks = self.text[numbers], self.looks[numbers]
        other.ids = [self.ids[n] for n in numbers]
        other.pixels = [self.pixels[n] for n in numbers]
        other.durations_s = [self.durations_s[n] for n in numbers]
        other.ranks = [self.ranks[n] for n in numbers]
        return other

    def by_id(self) -> Library:
        return self.taken(sorted(range(len(self.ids)), key=self.ids.__getitem__))

    def shuffled(self, seed: int) -> Library:
        return self.taken(random.Random(seed).sample(range(len(self.ids)), len(self.ids)))


def thresholds(mode: Mode, text: float, visual: float) -> Thresholds:
    return Thresholds(None if mode == "visual" else text, None if mode == "text" else visual)


def admitted_directly(library: Library, mode: Mode, bounds: Thresholds) -> set[str]:
    """The paper's algorithm word for word: compare each clip with everything admitted before it."""
    admitted: list[int] = []
    for clip in library.order():
        near = []
        for other in admitted:
            one, two = sorted((clip, other))
            text = np.float32(library.text[one].astype(np.float64) @ library.text[two].astype(np.float64))
            frames = (library.looks[one].astype(np.float64) * library.looks[two]).sum(axis=1)
            looks = np.float32(frames.min())
            near.append(
                (bounds.text is None or text >= bounds.text)
                and (bounds.visual is None or looks >= bounds.visual)
            )
        if not any(near):
            admitted.append(clip)
    return {library.ids[clip] for clip in admitted}


def kept_ids(library: Library, admissions: list[Admission]) -> set[str]:
    return {clip_id for clip_id, a in zip(library.ids, admissions, strict=True) if a.kept}


modes: st.SearchStrategy[Mode] = st.sampled_from(["text", "visual", "both"])
above_floor = st.floats(FLOOR, 1.0, width=32)
seeds = st.integers(0, 10_000)


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(0, 24), modes, above_floor, above_floor)
def test_replay_from_stored_pairs_equals_the_direct_algorithm(
    seed: int, clips: int, mode: Mode, text: float, visual: float
) -> None:
    library = Library(seed, clips).by_id()
    bounds = thresholds(mode, text, visual)
    table = library.pairs(mode).to_table(library.ids)
    stored = NearPairs.from_table(table, library.ids, mode=mode, floor=FLOOR)
    replayed = admit(library.order(), stored, bounds)
    assert kept_ids(library, replayed) == admitted_directly(library, mode, bounds)
    names = zip(table["clip_id"].to_pylist(), table["other_id"].to_pylist(), strict=True)
    assert all(one < two for one, two in names)


@settings(max_examples=40, deadline=None)
@given(seeds, seeds, st.integers(1, 24), modes, above_floor)
def test_the_order_of_the_files_does_not_matter(
    seed: int, shuffle: int, clips: int, mode: Mode, threshold: float
) -> None:
    library = Library(seed, clips)
    other = library.shuffled(shuffle)
    bounds = thresholds(mode, threshold, threshold)
    found, again = (admit(one.order(), one.pairs(mode), bounds) for one in (library, other))

    def named(of: Library, admissions: list[Admission]) -> dict[str, tuple[object, ...]]:
        return {
            clip_id: (a.kept, None if a.nearest is None else of.ids[a.nearest], a.similarity, a.threshold)
            for clip_id, a in zip(of.ids, admissions, strict=True)
        }

    assert named(library, found) == named(other, again)


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(1, 30), modes, above_floor)
def test_every_dropped_clip_has_an_admitted_one_near_it(
    seed: int, clips: int, mode: Mode, threshold: float
) -> None:
    library = Library(seed, clips)
    admissions = admit(library.order(), library.pairs(mode), thresholds(mode, threshold, threshold))
    assert len(admissions) == clips and any(a.kept for a in admissions)
    for admission in admissions:
        if admission.nearest is None:
            assert admission.kept and admission.similarity is None
        else:
            assert admissions[admission.nearest].kept
            assert admission.similarity is not None
            assert admission.kept == (admission.similarity < admission.threshold)


def test_the_best_copy_survives() -> None:
    same = np.ones((4, 1), np.float32)
    pixels, durations_s, ids = [100, 200, 200, 200], [30.0, 10.0, 20.0, 20.0], ["a", "b", "d", "c"]
    order = survivor_order(pixels, durations_s, [0] * 4, ids)
    assert order == [3, 2, 1, 0]
    assert survivor_order(pixels, durations_s, [1, 1, 0, 1], ids) == [2, 3, 1, 0]
    admissions = admit(order, find_pairs(text=same, floor=0.5), Thresholds(0.9, None))
    assert [a.kept for a in admissions] == [False, False, False, True]


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(1, 30), st.integers(0, 30), modes, above_floor)
def test_what_is_published_stays_and_keeps_what_is_near_it_out(
    seed: int, clips: int, published: int, mode: Mode, threshold: float
) -> None:
    library = Library(seed, clips)
    order, pairs = library.order(), library.pairs(mode)
    bounds = thresholds(mode, threshold, threshold)
    before = order[: min(published, clips)]
    admissions = admit(order, pairs, bounds, admitted=len(before))
    assert all(admissions[clip].kept for clip in before)
    # The others fare as if the published ones had been admitted because nothing was near them.
    near = np.minimum.reduce(
        [values >= np.float32(threshold) for values in (pairs.text, pairs.looks) if values is not None]
    )
    of = {clip: set() for clip in order}  # type: dict[int, set[int]]
    for one, two in zip(pairs.clip[near].tolist(), pairs.other[near].tolist(), strict=True):
        of[one].add(two)
        of[two].add(one)
    kept = set(before)
    for clip in order[len(before) :]:
        if not of[clip] & kept:
            kept.add(clip)
    assert kept == {clip for clip in order if admissions[clip].kept}
    assert kept_counts(order, pairs, [bounds], admitted=len(before)) == [len(kept)]


def test_a_clip_near_a_dropped_clip_only_is_kept() -> None:
    radians = np.radians([0, 20, 40])
    chain = np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)
    admissions = admit([0, 1, 2], find_pairs(text=chain, floor=0.5), Thresholds(0.9, None))
    assert [a.kept for a in admissions] == [True, False, True]
    assert admissions[2].nearest == 0


def test_one_frame_that_differs_keeps_a_clip() -> None:
    looks = np.zeros((2, 16, 2), np.float32)
    looks[:, :, 0] = 1
    looks[1, 15] = (0.6, 0.8)
    pairs = find_pairs(looks=looks, floor=0.5)
    assert pairs.looks is not None and pairs.looks.tolist() == [np.float32(0.6)]


def test_both_needs_both() -> None:
    text = unit(np.array([[1, 0], [1, 0], [0, 1]]))
    looks = unit(np.array([[[1, 0]], [[0, 1]], [[1, 0]]]))
    kept = {
        mode: [a.kept for a in admit([0, 1, 2], find_pairs(text=t, looks=v, floor=0.5), bounds)]
        for mode, t, v, bounds in (
            ("text", text, None, Thresholds(0.9, None)),
            ("visual", None, looks, Thresholds(None, 0.9)),
            ("both", text, looks, Thresholds(0.9, 0.9)),
        )
    }
    assert kept == {"text": [True, False, True], "visual": [True, True, False], "both": [True, True, True]}


def test_texts_without_words_are_near_to_nothing() -> None:
    assert len(find_pairs(text=np.zeros((3, 4), np.float32), floor=0.1).clip) == 0


def test_a_threshold_below_the_floor_is_refused() -> None:
    pairs = find_pairs(text=np.ones((2, 1), np.float32), floor=0.5)
    with pytest.raises(UserError, match="below the floor"):
        admit([0, 1], pairs, Thresholds(0.4, None))
    for wrong in (Thresholds(None, 0.9), Thresholds(0.9, 0.9), Thresholds(None, None)):
        with pytest.raises(ValueError):
            admit([0, 1], pairs, wrong)


def test_a_floor_that_lets_everything_through_is_refused() -> None:
    with pytest.raises(UserError, match="near pairs per clip"):
        find_pairs(text=np.ones((40, 2), np.float32) / np.sqrt(2), floor=0.5, max_pairs_per_row=3)


def test_wrong_shapes() -> None:
    with pytest.raises(ValueError, match="nothing"):
        find_pairs(floor=0.5)
    with pytest.raises(ValueError, match="2 captions"):
        find_pairs(text=np.ones((2, 1), np.float32), looks=np.ones((3, 1, 1), np.float32), floor=0.5)


@pytest.mark.parametrize("rows", [1, 7, 64])
def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    library = Library(4, 60)
    whole = library.pairs("both")
    monkeypatch.setattr(candidates, "_BLOCK_ROWS", rows)
    monkeypatch.setattr(neighbours, "_MEASURE_BYTES", 1)
    blocks = library.pairs("both")
    for name in ("clip", "other", "text", "looks"):
        assert np.array_equal(getattr(whole, name), getattr(blocks, name))
    assert len(whole.clip) > 50
