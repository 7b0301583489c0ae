from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from share4video.config import DedupConfig
from share4video.curation.dedup import Thresholds, admit, survivor_order
from share4video.curation.encoders import frame_encoder
from share4video.curation.neighbours import NearPairs
from share4video.dataset.shards import StageRef, load_manifest, read_table
from share4video.errors import UserError
from share4video.media.probe import content_hash
from share4video.stages import looks
from share4video.stages.clip_frames import reject_row
from share4video.stages.dedup import DedupInputs, run_stage
from share4video.store import LocalStore, Store
from tests.curation.films import (
    caption_of,
    clip_row,
    publish_captions,
    publish_clips,
    rendered,
    write_film,
)
from tests.stages.dedup_films import COPIES, FPS, STORY, TWINS

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    frames = rendered(STORY, fps=FPS)
    write_film(folder / "story.mp4", frames, fps=FPS)
    write_film(folder / "reversed.mp4", frames[::-1], fps=FPS)
    for name, clip in TWINS.items():
        write_film(folder / f"{name}.mp4", rendered(clip, fps=FPS), fps=FPS)
    for name, change in COPIES.items():
        write_film(folder / f"copy-{name}.mp4", change(frames), fps=FPS, crf=30)
    return folder


@pytest.fixture(scope="module")
def rows(films: Path) -> Rows:
    return [clip_row(path, films) for path in sorted(films.glob("*.mp4"))]


def name_of(row: dict[str, Any]) -> str:
    return Path(row["source_uri"]).stem


def captions(rows: Rows) -> dict[str, str]:
    clips = {"story": STORY, **TWINS}
    return {row["clip_id"]: caption_of(clips.get(name_of(row), STORY)) for row in rows}


def inputs_of(store: Store, rows: Rows, source: Path, said: dict[str, str] | None = None) -> DedupInputs:
    clips = publish_clips(store, rows)
    return DedupInputs(
        clips, publish_captions(store, clips, captions(rows) if said is None else said), str(source)
    )


def kept_names(store: Store, inputs: DedupInputs, config: DedupConfig) -> set[str]:
    return {
        name_of(row) for row in read_table(store, run_stage(inputs, config, store).ref, "clips").to_pylist()
    }


def test_copies_go_and_twins_stay(store: LocalStore, films: Path, rows: Rows) -> None:
    inputs = inputs_of(store, rows, films)
    result = run_stage(inputs, DedupConfig(), store)
    assert (result.rows_in, result.rows_out) == (12, 7)
    assert result.rejects == {"near_duplicate": 5}
    kept = {name_of(row) for row in read_table(store, result.ref, "clips").to_pylist()}
    # Of the story and its copies one is left: not the small one, among equals that with the smallest id.
    group = sorted((r["clip_id"], name_of(r)) for r in rows if name_of(r) == "story" or "copy" in name_of(r))
    survivor = next(name for _, name in group if name != "copy-smaller")
    assert kept == {survivor, "reversed", *TWINS}
    ids = {row["clip_id"]: name_of(row) for row in rows}
    for row in read_table(store, result.ref, "dedup").to_pylist():
        assert row["kept"] == (ids[row["clip_id"]] in kept)
        if not row["kept"]:
            assert ids[row["nearest_kept_id"]] == survivor and row["similarity"] >= row["threshold"]
    for reject in read_table(store, result.ref, "rejects").to_pylist():
        assert reject["reason"] == "near_duplicate" and reject["measured"] >= reject["bound"]


def test_the_modes(store: LocalStore, films: Path, rows: Rows) -> None:
    inputs = inputs_of(store, rows, films)
    text = kept_names(store, inputs, DedupConfig(mode="text"))
    # Lost: all that differs in time only.
    assert len(text) == 3 and {"another-start", "another-object"} <= text
    visual = kept_names(store, inputs, DedupConfig(mode="visual"))
    assert {"reversed", "reordered", "one-fact", "no-turn", "another-object"} <= visual
    both = kept_names(store, inputs, DedupConfig())
    assert text <= both and visual <= both


def test_admission_is_replayed_from_the_published_pairs(store: LocalStore, films: Path, rows: Rows) -> None:
    inputs = inputs_of(store, rows, films)
    ref = run_stage(inputs, DedupConfig(), store).ref
    listed = sorted(rows, key=lambda row: row["clip_id"])
    ids = [row["clip_id"] for row in listed]
    compared = StageRef.parse(load_manifest(store, ref).config["@neighbours"])
    table = read_table(store, compared, "neighbours")
    pairs = NearPairs.from_table(table, ids, mode="both", floor=0.5)
    pixels = [row["width"] * row["height"] for row in listed]
    order = survivor_order(pixels, [row["duration_s"] for row in listed], [0] * len(ids), ids)
    for threshold in (0.5, 0.7, 0.925, 1.0):
        config = DedupConfig(text_threshold=threshold, visual_threshold=threshold)
        published = read_table(store, run_stage(inputs, config, store).ref, "dedup")["kept"].to_pylist()
        assert [a.kept for a in admit(order, pairs, Thresholds(threshold, threshold))] == published


def test_another_threshold_looks_at_no_clip_again(
    store: LocalStore, films: Path, rows: Rows, tmp_path: Path
) -> None:
    for row in rows:
        shutil.copy(films / row["source_uri"], tmp_path)
    inputs = inputs_of(store, rows, tmp_path)
    first = run_stage(inputs, DedupConfig(), store)
    for row in rows:
        (tmp_path / row["source_uri"]).unlink()
    strict = run_stage(inputs, DedupConfig(text_threshold=1.0, visual_threshold=1.0), store)
    assert strict.ref != first.ref and strict.rows_out > first.rows_out
    # Which copy survives does not change the pairs either.
    assert run_stage(inputs, DedupConfig(source_priority=("copy-*",)), store).rows_out == first.rows_out
    assert len({name.split("/")[1] for name in store.list("neighbours")}) == 1


def test_looks_are_taken_side_by_side(store: LocalStore, films: Path, rows: Rows, tmp_path: Path) -> None:
    inputs, config = inputs_of(store, rows, films), DedupConfig(shards=3)
    assert looks.plan(inputs, config, store) == [0, 1, 2]
    assert looks.plan(inputs, DedupConfig(mode="text", shards=3), store) == [0]
    assert not looks.run_shard(inputs, DedupConfig(mode="text"), store, 0)
    for shard in (2, 0):
        assert looks.run_shard(inputs, config, store, shard)
        assert not looks.run_shard(inputs, config, store, shard)
    published, computed = looks.run_stage(inputs, config, store)
    assert (published.rows("looks"), computed) == (len(rows), 1)
    other = LocalStore(tmp_path / "other")
    whole = run_stage(inputs_of(other, rows, films), DedupConfig(), other)
    divided = run_stage(inputs, config, store)
    assert divided.ref == whole.ref  # not even the key tells how the work was divided


def test_looks_read_no_embeddings(store: LocalStore, films: Path, rows: Rows) -> None:
    many = [{**rows[0], "clip_id": f"{number:032x}"} for number in range(500)]
    inputs = inputs_of(store, many, films)
    embedded = read_table(store, inputs.brief, "brief_captions", columns=["embedding"]).nbytes
    pool = pa.proxy_memory_pool(pa.default_memory_pool())
    usual = pa.default_memory_pool()
    pa.set_memory_pool(pool)
    try:
        assert looks.plan(inputs, DedupConfig(), store) == [0]
    finally:
        pa.set_memory_pool(usual)
    assert 0 < pool.max_memory() < embedded / 2


def test_key_frames_may_stand_for_the_looks(store: LocalStore, films: Path, rows: Rows) -> None:
    inputs = inputs_of(store, rows, films)
    exact = run_stage(inputs, DedupConfig(), store)
    quick = run_stage(inputs, DedupConfig(visual_decode="nearest-iframe"), store)
    assert "max_shift_s" not in exact.metrics
    assert 0 < quick.metrics["mean_shift_s"] <= quick.metrics["max_shift_s"]


def test_the_preferred_source_survives_among_equals(store: LocalStore, films: Path, rows: Rows) -> None:
    inputs = inputs_of(store, rows, films)
    for wanted in ("story", "copy-darker", "copy-re-encoded"):
        kept = kept_names(store, inputs, DedupConfig(source_priority=("nothing/*", f"{wanted}*")))
        assert kept == {wanted, "reversed", *TWINS}


def test_clips_are_added_to_what_is_published(store: LocalStore, films: Path, rows: Rows) -> None:
    named = {name_of(row): row for row in rows}
    steps = (
        ("copy-smaller", "reversed"),
        ("story", "copy-darker", "one-fact", "reversed"),
        ("no-turn", "story"),
    )
    published, fates = None, []
    for names in steps:
        inputs = replace(inputs_of(store, [named[name] for name in names], films), published=published)
        result = run_stage(inputs, DedupConfig(), store)
        assert run_stage(inputs, DedupConfig(), store).unchanged
        published = result.ref
        kept = {name_of(row) for row in read_table(store, published, "clips").to_pylist()}
        fates.append((kept, result.rejects))
    # The small copy came first and stays; what is near it, or is published, is not added.
    assert fates == [
        ({"copy-smaller", "reversed"}, {}),
        ({"one-fact"}, {"near_duplicate": 2, "exact_duplicate": 1}),
        ({"no-turn"}, {"near_duplicate": 1}),
    ]


def test_clips_described_otherwise_are_not_added(store: LocalStore, films: Path, rows: Rows) -> None:
    first = run_stage(inputs_of(store, rows[:2], films), DedupConfig(), store)
    more = replace(inputs_of(store, rows[2:4], films), published=first.ref)
    for config in (
        DedupConfig(mode="text"),
        DedupConfig(visual_frames=8),
        DedupConfig(visual_encoder="descriptor"),
    ):
        with pytest.raises(UserError, match="described by other encoders or in another mode"):
            run_stage(more, config, store)


def test_looks_may_be_pooled(store: LocalStore, films: Path, rows: Rows) -> None:
    pooled = kept_names(
        store, inputs_of(store, rows, films), DedupConfig(mode="visual", visual_pooling="mean")
    )
    # An average does not tell when something happens.
    assert "reversed" not in pooled or ("story" not in pooled and not any("copy" in name for name in pooled))
    assert {"another-object"} <= pooled


def test_centred_captions_are_held_against_their_own_threshold(
    store: LocalStore, films: Path, rows: Rows
) -> None:
    """What all captions share says nothing: without it those of three clips lie far apart."""
    shared = "a video in which on a plain ground before a quiet wall somewhere in the picture there is a"
    said = {row["clip_id"]: f"{shared} {n}" for row, n in zip(rows[:4], (*range(3), 2), strict=True)}
    inputs = inputs_of(store, rows[:4], films, said)
    raw = DedupConfig(mode="text", text_threshold=0.8)
    assert run_stage(inputs, raw, store).rows_out == 1
    assert run_stage(inputs, raw.model_copy(update={"center_text": True}), store).rows_out == 3
    with pytest.raises(UserError, match="no encoder has a threshold for centred embeddings"):
        run_stage(inputs, DedupConfig(center_text=True), store)


def test_a_second_run_and_another_order_publish_the_same(
    store: LocalStore, films: Path, rows: Rows, tmp_path: Path
) -> None:
    inputs = inputs_of(store, rows, films)
    first = run_stage(inputs, DedupConfig(), store)
    again = run_stage(inputs, DedupConfig(), store)
    assert again.unchanged and again == replace(first, computed_shards=0)
    other = LocalStore(tmp_path / "other")
    shuffled = run_stage(inputs_of(other, rows[::-1], films), DedupConfig(), other)
    assert shuffled.ref.content_hash == first.ref.content_hash


def test_a_clip_that_is_listed_twice_is_nothing_the_probe_makes(
    store: LocalStore, films: Path, rows: Rows
) -> None:
    twice = [*rows[:2], {**rows[0], "row_id": "elsewhere", "source_uri": "zz/elsewhere.mp4"}]
    with pytest.raises(RuntimeError, match="a clip is listed twice"):
        run_stage(inputs_of(store, twice, films), DedupConfig(), store)


def test_rejects_name_the_scene_and_the_clip_also_of_a_files_first(
    store: LocalStore, films: Path, rows: Rows
) -> None:
    """Two scenes of one file, the first of which is near what is in another."""
    named = {name_of(row): row for row in rows}
    film, copy = named["story"], named["copy-smaller"]
    half_s = film["duration_s"] / 2
    scenes = [
        {
            **film,
            "clip_id": f"{number}" * 32,
            "scene": number,
            "start_s": number * half_s,
            "end_s": (number + 1) * half_s,
            "duration_s": half_s,
        }
        for number in (0, 1)
    ]
    first = {**copy, "end_s": half_s, "duration_s": half_s, "width": 4 * film["width"]}  # it survives
    some = [*scenes, first]
    said = {row["clip_id"]: caption_of(STORY) for row in some}
    result = run_stage(inputs_of(store, some, films, said), DedupConfig(), store)
    rejects = {row["clip_id"]: row for row in read_table(store, result.ref, "rejects").to_pylist()}
    assert rejects["0" * 32]["sentence"].endswith(f", in the scene from 0.00 to {half_s:.2f} s")


def test_clips_that_cannot_be_decoded_are_rejects(
    store: LocalStore, films: Path, rows: Rows, tmp_path: Path
) -> None:
    shutil.copy(films / rows[0]["source_uri"], tmp_path)
    words = tmp_path / "words.mp4"
    words.write_text("not a video")
    broken = {**rows[0], "clip_id": "f" * 32, "row_id": "words", "source_uri": words.name}
    some = [rows[0], {**broken, "content_hash": content_hash(words)}]
    result = run_stage(inputs_of(store, some, tmp_path), DedupConfig(), store)
    assert (result.rows_in, result.rows_out, result.rejects) == (2, 1, {"not_video": 1})
    assert run_stage(inputs_of(store, some, tmp_path), DedupConfig(mode="text"), store).rows_in == 2
    for _ in range(2):  # also when the rejects are published
        with pytest.raises(UserError, match="none of 1 rows is left, 1 of them rejected as not_video"):
            run_stage(inputs_of(store, some[1:], tmp_path), DedupConfig(), store)


def test_another_source_publishes_nothing_and_the_right_one_still_can(
    store: LocalStore, films: Path, rows: Rows, tmp_path: Path
) -> None:
    for row, other in zip(rows[:3], rows[3:6], strict=True):
        shutil.copy(films / other["source_uri"], tmp_path / row["source_uri"])
    for wrong in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(UserError, match=r"does not hold clip \w+ as it was probed"):
            run_stage(inputs_of(store, rows[:3], wrong), DedupConfig(), store)
        assert not list(store.list("dedup"))
    assert run_stage(inputs_of(store, rows[:3], films), DedupConfig(), store).rejects.keys() <= {
        "near_duplicate"
    }


def test_a_clip_without_a_caption_must_have_been_rejected(store: LocalStore, films: Path, rows: Rows) -> None:
    inputs = inputs_of(store, rows[:2], films, said={rows[0]["clip_id"]: "A red circle."})
    with pytest.raises(RuntimeError, match="says nothing of clip"):
        run_stage(inputs, DedupConfig(), store)


def test_a_refused_scene_does_not_answer_for_another_of_its_file(
    store: LocalStore, films: Path, rows: Rows
) -> None:
    captioned, refused, forgotten = ({**row, "row_id": "film", "scene": n} for n, row in enumerate(rows[:3]))
    said = {captioned["clip_id"]: "A red circle."}
    for some in ([captioned, refused], [captioned, refused, forgotten]):
        clips = publish_clips(store, some)
        rejects = [reject_row(refused, "brief", "caption_failed", "there is no sentence")]
        inputs = DedupInputs(clips, publish_captions(store, clips, said, rejects), str(films))
        if forgotten not in some:
            assert run_stage(inputs, DedupConfig(mode="text"), store).rows_in == 1
        else:
            with pytest.raises(RuntimeError, match=f"says nothing of clip {forgotten['clip_id']}"):
                run_stage(inputs, DedupConfig(mode="text"), store)


def test_thresholds_below_the_floor_are_refused_before_work(
    store: LocalStore, films: Path, rows: Rows
) -> None:
    inputs = inputs_of(store, rows, films)
    for config in (DedupConfig(text_threshold=0.4), DedupConfig(visual_threshold=0.4)):
        with pytest.raises(UserError, match="below the floor"):
            run_stage(inputs, config, store)
    assert not list(store.list("dedup"))


def test_moved_weights_change_no_key(store: LocalStore, films: Path, tmp_path: Path) -> None:
    """Without clips the weights are hashed, not loaded."""
    refs = []
    for place, weights in (("here", b"weights"), ("there", b"weights"), ("there", b"others")):
        (tmp_path / place).mkdir(exist_ok=True)
        (tmp_path / place / "model.safetensors").write_bytes(weights)
        frame_encoder.cache_clear()
        name = f"open_clip:ViT-B-32-quickgelu/{tmp_path}/{place}/model.safetensors"
        refs.append(run_stage(inputs_of(store, [], films), DedupConfig(visual_encoder=name), store).ref)
    assert refs[0] == refs[1] and refs[1].key != refs[2].key
    manifests = [store.get(key) for key in store.list("") if key.endswith("manifest.json")]
    assert {"looks", "neighbours", "dedup"} <= {json.loads(text)["stage"] for text in manifests}
    assert not any(str(tmp_path).encode() in text for text in manifests)


def test_no_clips(store: LocalStore, films: Path) -> None:
    for mode in ("text", "visual", "both"):
        result = run_stage(inputs_of(store, [], films), DedupConfig.model_validate({"mode": mode}), store)
        assert result.rows_in == 0 and load_manifest(store, result.ref).rows("dedup") == 0
