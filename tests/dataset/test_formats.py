"""The released caption file and LLaVA's training file, read back and bent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from share4video.dataset.formats import lines, llava, sharegpt4video, videochat
from share4video.dataset.formats.lines import Reject
from share4video.dataset.formats.sharegpt4video import SUMMARY_IDX, Caption, Record
from share4video.dataset.messages import (
    Message,
    MessageError,
    check_messages,
    decode_messages,
    encode_messages,
)
from share4video.errors import UserError

TEXT = st.text(st.characters(codec="utf-8"), max_size=40)
PATIENT = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
WORDS = TEXT.filter(lambda text: text.strip() and "<image>" not in text)


@st.composite
def records(draw: st.DrawFn) -> Record:
    times = draw(st.lists(st.floats(0, 1e4, allow_nan=False), max_size=6))
    captions = [Caption(str(index), draw(WORDS)) for index in range(len(times))]
    return Record(
        video_id=draw(WORDS),
        video_path=draw(TEXT),
        timestamps=tuple(times),
        keyframes=tuple(range(len(times))),
        captions=(*captions, Caption(SUMMARY_IDX, draw(WORDS))),
        zip_folder=draw(TEXT),
    )


@PATIENT
@given(st.lists(records(), max_size=4, unique_by=lambda record: record.video_id))
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, written: list[Record]
) -> None:
    file = tmp_path_factory.mktemp("jsonl") / "captions.jsonl"
    file.write_bytes(b"".join(map(sharegpt4video.encode, written)))
    assert list(sharegpt4video.read(file)) == written


def _line(**changes: object) -> dict[str, object]:
    fields: dict[str, object] = {
        "video_id": "a",
        "video_path": "panda/a.mp4",
        "timestamp": [0, 2.5],
        "keyframe": [0, 75],
        "captions": [{"idx": "0", "content": "A dog."}, {"idx": "-1", "content": "A dog runs."}],
        "zip_folder": "panda_videos_1.zip",
    }
    return {**fields, **changes}


def _read(tmp_path: Path, *lines: bytes | dict[str, object]) -> list[Record | Reject]:
    file = tmp_path / "captions.jsonl"
    file.write_bytes(b"\n".join(x if isinstance(x, bytes) else json.dumps(x).encode() for x in lines))
    return list(sharegpt4video.read(file))


def test_the_bytes_of_a_record_are_these(tmp_path: Path) -> None:
    (record,) = _read(tmp_path, _line())
    assert isinstance(record, Record)
    assert record.summary == "A dog runs."
    assert [caption.idx for caption in record.differentials] == ["0"]
    assert sharegpt4video.encode(record) == (
        b'{"video_id": "a", "video_path": "panda/a.mp4", "timestamp": [0, 2.5], "keyframe": [0, 75],'
        b' "captions": [{"idx": "0", "content": "A dog."}, {"idx": "-1", "content": "A dog runs."}],'
        b' "zip_folder": "panda_videos_1.zip"}\n'
    )


@pytest.mark.parametrize(
    ("changes", "notes"),
    [
        ({"captions": [{"idx": "0", "content": "A dog."}]}, ("no_summary",)),
        (
            {"captions": [{"idx": "-1", "content": "All"}, {"idx": "0", "content": "A."}]},
            ("summary_not_last",),
        ),
        ({"captions": [{"idx": 0, "content": "A."}, {"idx": -1, "content": "All."}]}, ("idx_not_text",)),
        ({"timestamp": ["0.00", "2.50"]}, ("number_as_text",)),
        (
            {"timestamp": ["soon"], "keyframe": [True]},
            ("keyframe_unreadable", "number_as_text", "timestamp_unreadable"),
        ),
        ({"timestamp": None, "keyframe": {}}, ("keyframe_unreadable", "timestamp_unreadable")),
        ({"video_path": "panda/qek9AMGMhzE.mp4", "zip_folder": "panda_videos_11.zip"}, ("damaged_video",)),
    ],
)
def test_the_released_files_defects_are_mended_and_noted(
    tmp_path: Path, changes: dict[str, object], notes: tuple[str, ...]
) -> None:
    (record,) = _read(tmp_path, _line(**changes))
    assert isinstance(record, Record)
    assert record.notes == notes
    if record.summary is not None:
        assert record.captions[-1].idx == SUMMARY_IDX


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "not_json"),
        (b"\xff\xfe", "not_json"),
        (b'"\\ud800"', "not_json"),
        (b"[" * 100_000, "not_json"),
        (b"[1]", "wrong_shape"),
        (json.dumps(_line(timestamp=[float("nan")])).encode(), "not_json"),
        (_line(video_id=3), "wrong_shape"),
        (_line(captions=[{"idx": None, "content": "A."}]), "wrong_shape"),
        (_line(captions=[{"idx": "-1", "content": "A."}, {"idx": "-1", "content": "B."}]), "wrong_shape"),
        (_line(captions=[{"idx": "0", "content": " "}]), "no_captions"),
        (b" " * (lines.MAX_LINE_BYTES + 5) + b"{}", "line_too_long"),
    ],
)
def test_a_bad_line_is_one_reject_and_the_next_line_is_read(
    tmp_path: Path, line: bytes | dict[str, object], reason: str
) -> None:
    first, second = _read(tmp_path, line, _line())
    assert isinstance(first, Reject)
    assert (first.reason, first.number) == (reason, 1)
    assert isinstance(second, Record)


def test_a_video_that_comes_twice_is_taken_once(tmp_path: Path) -> None:
    found = _read(tmp_path, _line(), b"", _line())
    assert [type(item) for item in found] == [Record, Reject]
    assert found[1].number == 3  # type: ignore[union-attr]


def test_a_summary_that_is_not_last_is_not_written() -> None:
    record = Record("a", "a.mp4", (), (), (Caption("-1", "All."), Caption("0", "A.")), "")
    with pytest.raises(ValueError, match="last caption"):
        sharegpt4video.encode(record)


def test_a_missing_file_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="check the path"):
        list(sharegpt4video.read(tmp_path / "none.jsonl"))


def test_clock_times_are_seconds(tmp_path: Path) -> None:
    (record,) = _read(tmp_path, _line(timestamp=["0:02", "00:01:02.5"]))
    assert isinstance(record, Record)
    assert record.timestamps == (2, 62.5)


@PATIENT
@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=3), st.booleans(), WORDS | st.just(""))
def test_llava_samples_survive_the_round_trip(
    tmp_path_factory: pytest.TempPathFactory, turns: list[tuple[str, str]], image: bool, system: str
) -> None:
    messages = [Message("system", system)] if system else []
    for index, (question, answer) in enumerate(turns):
        mark = "<image>\n" if image and index == 0 else ""
        messages += [Message("user", mark + question.strip()), Message("assistant", answer)]
    sample = llava.Sample("7", "grids/7.jpg" if image else None, tuple(messages))
    file = tmp_path_factory.mktemp("llava") / "mix.json"
    file.write_bytes(llava.encode([sample]))
    assert list(llava.read(file)) == [sample]
    assert decode_messages(encode_messages(messages)) == tuple(messages)


def test_llavas_image_mark_is_moved_to_the_front(tmp_path: Path) -> None:
    file = tmp_path / "mix.json"
    turns = [{"from": "human", "value": "What is this?\n<image>"}, {"from": "gpt", "value": "A cat."}]
    file.write_text(json.dumps([{"id": 1, "image": "x.jpg", "conversations": turns}]), encoding="utf-8")
    (sample,) = llava.read(file)
    assert isinstance(sample, llava.Sample)
    assert sample.messages[0] == Message("user", "<image>\nWhat is this?")


@pytest.mark.parametrize(
    "element",
    [
        3,
        {"conversations": []},
        {"id": "1", "conversations": "none"},
        {"id": "1", "conversations": [{"from": "gpt", "value": "Hello."}]},
        {"id": "1", "conversations": [{"from": "bot", "value": "Hello."}]},
        {
            "id": "1",
            "conversations": [{"from": "human", "value": "<image>\nHi"}, {"from": "gpt", "value": "I"}],
        },
        {"id": "1", "image": 5, "conversations": []},
    ],
)
def test_an_element_that_is_no_sample_is_a_reject(tmp_path: Path, element: object) -> None:
    file = tmp_path / "mix.json"
    file.write_text(json.dumps([element]), encoding="utf-8")
    (found,) = llava.read(file)
    assert isinstance(found, Reject)
    assert found.sentence


@pytest.mark.parametrize("text", ["{}", "[", "\ufeff["])
def test_a_file_that_is_no_list_is_the_users_error(tmp_path: Path, text: str) -> None:
    file = tmp_path / "mix.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UserError):
        list(llava.read(file))


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [Message("user", "<image>\nHi")],
        [Message("user", "<image>Hi"), Message("assistant", "Yes.")],
        [Message("user", "<image>\nHi"), Message("assistant", "")],
        [Message("user", "<image>\nHi <image>"), Message("assistant", "Yes.")],
        [Message("user", "<image>\n"), Message("assistant", "Yes.")],
        [Message("assistant", "Yes."), Message("user", "<image>\nHi")],
    ],
)
def test_a_conversation_that_cannot_be_trained_on_is_refused(messages: list[Message]) -> None:
    with pytest.raises(MessageError):
        check_messages(messages, image=True)


@st.composite
def videochat_samples(draw: st.DrawFn) -> videochat.Sample:
    kind, path = draw(st.sampled_from(["video", "image"])), draw(WORDS)
    if draw(st.booleans()):
        return videochat.Caption(kind, path, draw(WORDS))
    turns = draw(st.lists(st.builds(videochat.QA, WORDS, WORDS), min_size=1, max_size=3))
    start = draw(st.none() | st.floats(0, 1e6) | st.text(st.characters(codec="utf-8"), max_size=8))
    return videochat.Instruction(kind, path, tuple(turns), start)


@PATIENT
@given(st.lists(videochat_samples(), max_size=4))
def test_videochats_samples_survive_the_round_trip(
    tmp_path_factory: pytest.TempPathFactory, samples: list[videochat.Sample]
) -> None:
    file = tmp_path_factory.mktemp("videochat") / "list.json"
    file.write_bytes(b"".join(videochat.chunks(samples)))
    assert list(videochat.read(file)) == samples


def test_the_bytes_of_videochats_samples_are_these() -> None:
    turns = (videochat.QA("What?", "A cat."),)
    samples: list[videochat.Sample] = [
        videochat.Instruction("video", "a.mp4", turns, 2.5),
        videochat.Caption("image", "b.jpg", "A dog."),
    ]
    assert b"".join(videochat.chunks(samples)) == (
        b'[\n{"video": "a.mp4", "QA": [{"q": "What?", "a": "A cat."}], "start": 2.5},\n'
        b'{"image": "b.jpg", "caption": "A dog."}\n]\n'
    )


@pytest.mark.parametrize(
    ("element", "sentence"),
    [
        (3, "the element is no object"),
        ({"QA": []}, "the element names no video and no image"),
        ({"video": "a.mp4", "image": "a.jpg", "caption": "A."}, "it names both"),
        ({"video": 3, "caption": "A."}, "video is no path"),
        ({"video": "a.mp4"}, "there must be either QA or a caption"),
        ({"video": "a.mp4", "QA": [], "caption": "A."}, "there must be either QA or a caption"),
        ({"video": "a.mp4", "caption": " "}, "the caption is missing, no text or empty"),
        ({"video": "a.mp4", "QA": []}, "QA is no list, or an empty one"),
        ({"video": "a.mp4", "QA": [["q", "a"]]}, "turn 1 is no object with q and a"),
        ({"video": "a.mp4", "QA": [{"q": "What?"}]}, "a of turn 1 is missing, no text or empty"),
        ({"video": "a.mp4", "QA": [{"q": "Q", "a": "A"}], "start": []}, "start is neither a number nor text"),
    ],
)
def test_an_element_that_is_no_videochat_sample_is_a_reject(
    tmp_path: Path, element: object, sentence: str
) -> None:
    file = tmp_path / "list.json"
    good = {"video": "a.mp4", "caption": "A cat."}
    file.write_text(json.dumps([element, good]), encoding="utf-8")
    reject, sample = videochat.read(file)
    assert isinstance(reject, Reject)
    assert (reject.number, reject.reason, reject.sentence) == (1, "wrong_shape", sentence)
    assert sample == videochat.Caption("video", "a.mp4", "A cat.")
