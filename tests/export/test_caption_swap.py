"""Captions in the places of other video samples: what is counted, what stays, what is the same again."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from share4video.cli.main import app
from share4video.dataset.formats import llava
from share4video.dataset.formats.lines import Reject
from share4video.dataset.formats.video_mix import asks_for_description
from share4video.dataset.messages import MessageError
from share4video.dataset.shards import read_table
from share4video.errors import UserError
from share4video.export.caption_swap import Captions, SwapOptions, swap_captions
from share4video.store import LocalStore
from tests.export.material import Published


def _turns(question: str, answer: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


def _image(number: int) -> dict[str, Any]:
    return {
        "id": f"i{number}",
        "image": f"coco/{number}.jpg",
        "conversations": _turns("What is it?\n<image>", "A ❄ <video> in words"),
        "model": {"kept": [1, 2.5, None]},
    }


def _text(number: int) -> dict[str, Any]:
    return {"id": number, "conversations": _turns("Write <video> in HTML.", "Done.")}


def _video(number: int) -> dict[str, Any]:
    question = "Describe the video in detail.\n<video>" if number % 3 == 0 else "<video>\nHow many dogs?"
    return {"id": f"v{number}", "video": f"activity/{number}.mp4", "conversations": _turns(question, "Two.")}


def _captions(count: int, folder: str = "panda") -> bytes:
    lines = [
        {
            "video_id": f"c{number}",
            "video_path": f"{folder}/{number}.mp4",
            "timestamp": [0],
            "keyframe": [0],
            "captions": [{"idx": "0", "content": "d"}, {"idx": "-1", "content": f"caption {number}"}],
            "zip_folder": "panda_1.zip",
        }
        for number in range(count)
    ]
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def _swap(
    folder: Path, base: list[Any], captions: bytes, options: SwapOptions
) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
    (folder / "base.json").write_text(json.dumps(base), encoding="utf-8")
    (folder / "captions.jsonl").write_bytes(captions)
    out = folder / "out"
    index = swap_captions(folder / "base.json", Captions.of_file(folder / "captions.jsonl"), out, options)
    found = [json.loads((out / name).read_text("utf-8")) for name in ("video_llava.json", "llama_vid.json")]
    return index, found[0], found[1]


@settings(max_examples=40, deadline=None)
@given(
    kinds=st.lists(st.sampled_from("itv"), min_size=1, max_size=30),
    captions=st.integers(0, 12),
    count=st.integers(1, 6),
    seed=st.integers(0, 3),
)
def test_counts_and_all_that_is_not_a_video_stay_as_they_are(
    kinds: list[str], captions: int, count: int, seed: int
) -> None:
    make = {"i": _image, "t": _text, "v": _video}
    base = [make[kind](number) for number, kind in enumerate(kinds)]
    with tempfile.TemporaryDirectory() as held:
        folder = Path(held)
        options = SwapOptions(count=count, seed=seed)
        if kinds.count("v") < count or captions < count:
            with pytest.raises(UserError, match="fewer than"):
                _swap(folder, base, _captions(captions), options)
            assert not (folder / "out").exists()
            return
        index, video_llava, llama_vid = _swap(folder, base, _captions(captions), options)
        rejects = [json.loads(line) for line in (folder / "out" / "rejects.jsonl").read_text().splitlines()]
    assert len(video_llava) == len(llama_vid) == len(base)
    swapped = [place for place, sample in enumerate(video_llava) if str(sample["id"]).startswith("c")]
    assert len(swapped) == count
    assert all(kinds[place] == "v" for place in swapped)
    for place, sample in enumerate(base):
        if place in swapped:
            continue
        as_read = json.loads(json.dumps(sample))
        assert video_llava[place] == as_read
        marked = json.dumps(sample).replace("<video>", "<image>")
        assert llama_vid[place] == (json.loads(marked) if kinds[place] == "v" else as_read)
    ids = [video_llava[place]["id"] for place in swapped]
    assert ids == sorted(ids, key=lambda name: int(name[1:]))
    assert len(set(ids)) == count
    assert index["rows_in"] == len(base) + captions
    assert index["rows_in"] == index["rows_out"] + sum(index["rejects"].values())
    assert Counter(row["reason"] for row in rejects) == Counter(index["rejects"])
    assert {row["source_id"] for row in rejects if row["reason"] == "replaced"} == {
        base[place]["id"] for place in swapped
    }
    described = sum(asks_for_description(base[place]) for place in swapped)
    there = sum(kind == "v" and asks_for_description(base[place]) for place, kind in enumerate(kinds))
    assert described == min(there, count)


def test_a_caption_is_asked_for_in_the_words_and_with_the_mark_of_each_trainer(tmp_path: Path) -> None:
    options = SwapOptions(count=1, question="What does it show?", caption_folder="sg4v")
    _, video_llava, llama_vid = _swap(tmp_path, [_video(1)], _captions(1), options)
    expected = {"id": "c0", "video": "sg4v/panda/0.mp4"}
    turns = _turns("<video>\nWhat does it show?", "caption 0")
    assert video_llava == [{**expected, "conversations": turns}]
    turns[0]["value"] = "<image>\nWhat does it show?"
    assert llama_vid == [{**expected, "conversations": turns}]


def test_equal_inputs_give_equal_bytes_and_another_seed_another_choice(tmp_path: Path) -> None:
    base = [_video(number) for number in range(40)]
    bytes_of = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        folder = tmp_path / name
        folder.mkdir()
        _swap(folder, base, _captions(30), SwapOptions(count=10, seed=seed))
        bytes_of.append({path.name: path.read_bytes() for path in (folder / "out").iterdir()})
    assert bytes_of[0] == bytes_of[1]
    assert bytes_of[0]["video_llava.json"] != bytes_of[2]["video_llava.json"]
    again = swap_captions(
        tmp_path / "a" / "base.json",
        Captions.of_file(tmp_path / "a" / "captions.jsonl"),
        tmp_path / "a" / "out",
        SwapOptions(count=10),
    )
    assert again == json.loads(bytes_of[0]["export.json"])


def test_the_choice_depends_on_what_samples_say_and_not_on_where_they_stand(tmp_path: Path) -> None:
    base = [_video(number) for number in range(20)]
    gone = []
    for name, samples in (("a", base), ("b", [_image(0), *base[::-1], _text(1)])):
        folder = tmp_path / name
        folder.mkdir()
        _swap(folder, samples, _captions(20), SwapOptions(count=5))
        rejects = [json.loads(line) for line in (folder / "out" / "rejects.jsonl").read_text().splitlines()]
        gone.append({row["source_id"] for row in rejects})
    assert gone[0] == gone[1]


def test_what_cannot_be_loaded_or_told_is_left_out_with_a_reason(tmp_path: Path) -> None:
    good = [_video(0), _video(3)]
    bad: list[Any] = [
        "no object",
        {"id": 1, "video": "a.mp4", "conversations": _turns("no mark", "x")},
        {"id": 2, "video": "a.mp4", "conversations": _turns("<video>\n<video>", "x")},
        {"id": 3, "video": ["a.mp4"], "conversations": _turns("<video>", "x")},
        {"id": 4, "video": "a.mp4", "image": "a.jpg", "conversations": _turns("<video>", "x")},
        {"id": 5, "conversations": []},
        {"id": 6, "conversations": [{"from": "human"}]},
    ]
    lines = [json.loads(line) for line in _captions(8).splitlines()]
    lines[0]["video_path"] = "../etc/passwd"
    lines[1]["video_path"] = "/panda/1.mp4"
    lines[2]["captions"].pop()
    lines[3]["captions"][1]["content"] = "it shows <video> tags"
    lines[4]["video_path"] = "pexels/4.mp4"
    lines[5].update(zip_folder="panda_videos_11.zip", video_path="panda/qek9AMGMhzE.mp4")
    lines[6]["video_path"] = good[0]["video"] = "panda/same.mp4"
    text = b"\n".join(json.dumps(line).encode() for line in lines) + b"\n{broken\n"
    index, written, _ = _swap(tmp_path, [*bad, *good], text, SwapOptions(count=1, only=("panda",)))
    assert index["rejects"] == {
        "bad_messages": 1,
        "bad_path": 2,
        "damaged_video": 1,
        "in_base": 1,
        "no_summary": 1,
        "not_json": 1,
        "other_folder": 1,
        "replaced": 1,
        "wrong_shape": len(bad),
    }
    assert sorted(sample["id"] for sample in written)[0] == "c7"
    assert len(written) == 2


def test_names_of_files_get_another_beginning_and_keys_that_hold_nothing_go(tmp_path: Path) -> None:
    empty = {**_text(1), "image": None}
    renames = (("coco/", "llava_image_tune/coco/"), ("activity/", "videochatgpt_tune/"))
    options = SwapOptions(count=1, renames=renames)
    _, written, _ = _swap(tmp_path, [_image(0), empty, _video(0), _video(1)], _captions(1), options)
    assert written[0]["image"] == "llava_image_tune/coco/0.jpg"
    assert "image" not in written[1]
    videos = {sample["video"] for sample in written[2:]}
    assert "panda/0.mp4" in videos
    assert videos & {"videochatgpt_tune/0.mp4", "videochatgpt_tune/1.mp4"}


def test_both_files_are_read_back_as_what_they_say(tmp_path: Path) -> None:
    base = [_image(0), _video(1), _video(3)]
    base[0]["conversations"][1]["value"] = "A cat."
    _swap(tmp_path, base, _captions(1), SwapOptions(count=1))
    read = [list(llava.read(tmp_path / "out" / name)) for name in ("video_llava.json", "llama_vid.json")]
    assert read[0] == read[1]
    assert not any(isinstance(sample, Reject) for sample in read[0])


def test_a_mixture_that_was_swapped_before_takes_no_caption_twice(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir(), second.mkdir()
    _, swapped, _ = _swap(first, [_video(number) for number in range(6)], _captions(3), SwapOptions(count=3))
    with pytest.raises(UserError, match="3 in_base"):
        _swap(second, swapped, _captions(3), SwapOptions(count=1))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--layout", "llava"], "no such layout"),
        (["--rename", "coco"], "OLD=NEW"),
        (["--question", "See <image>"], "question cannot be asked"),
        (["-n", "3"], "2 samples about videos, fewer than 3"),
    ],
)
def test_a_mistake_is_said_in_a_sentence(tmp_path: Path, arguments: list[str], complaint: str) -> None:
    (tmp_path / "base.json").write_text(json.dumps([_video(0), _video(1)]))
    (tmp_path / "captions.jsonl").write_bytes(_captions(3))
    files = [str(tmp_path / "base.json"), str(tmp_path / "captions.jsonl"), "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(app, ["dataset", "swap-captions", *files, "-n", "1", *arguments])
    assert result.exit_code == 2
    assert complaint in result.output
    assert not (tmp_path / "out").exists()


def test_the_command_prints_files_and_counts(tmp_path: Path) -> None:
    (tmp_path / "base.json").write_text(json.dumps([_image(0), _video(0), _video(1)]))
    (tmp_path / "captions.jsonl").write_bytes(_captions(3))
    files = [str(tmp_path / "base.json"), str(tmp_path / "captions.jsonl"), "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(
        app, ["dataset", "swap-captions", *files, "-n", "1", "--layout", "video-llava"]
    )
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        str(tmp_path / "out" / "video_llava.json"),
        "6 in, 3 out, 2 not selected, 1 replaced",
        "1 caption, 1 image, 1 replaced descriptions, 1 video",
    ]


@pytest.mark.parametrize(
    ("question", "asked"),
    [
        ("Describe the video in detail.\n<video>", True),
        ("<video>\nWhat is happening in the video?", True),
        ("<video>\nCan you give me a summary of the clip?", True),
        ("<video>\nWhat colour is the dog?", False),
        ("<video>\nWhere was it filmed?", False),
    ],
)
def test_a_question_for_a_description_is_known(question: str, asked: bool) -> None:
    assert asks_for_description({"conversations": _turns(question, "x")}) is asked
    assert not asks_for_description({"conversations": _turns(question, "x") * 2})


def test_a_question_with_a_mark_is_no_question() -> None:
    from share4video.dataset.formats.video_mix import caption_element

    with pytest.raises(MessageError):
        caption_element("a", "b.mp4", "<image>", "c")


def test_captions_come_from_a_published_dataset_as_well(
    store: LocalStore, published: Published, tmp_path: Path
) -> None:
    base = tmp_path / "base.json"
    base.write_text(json.dumps([_video(0), _video(1)]))
    captions = Captions.of_dataset(store, published.dataset)
    index = swap_captions(base, captions, tmp_path / "out", SwapOptions(count=1))
    written = json.loads((tmp_path / "out" / "video_llava.json").read_text())
    (sample,) = [sample for sample in written if not sample["id"].startswith("v")]
    rows = {row["clip_id"]: row for row in read_table(store, published.dataset, "clips").to_pylist()}
    assert sample["video"] == rows[sample["id"]]["source_uri"]
    spoken = read_table(store, published.dataset, "captions").to_pylist()
    assert sample["conversations"][1]["value"] in [
        row["caption"] for row in spoken if row["clip_id"] == sample["id"]
    ]
    assert index["rows_in"] == 2 + len(rows) == index["rows_out"] + sum(index["rejects"].values())
