"""Formats that are read in a stream: written and read back, bent, cut, and larger than memory."""

from __future__ import annotations

import io
import json
import random
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from share4video.dataset.distinct import Distinct
from share4video.dataset.formats import (
    elements,
    huggingface,
    llava,
    open_sora,
    open_sora_plan,
    share_captioner,
    sharegpt4video,
    webdataset,
)
from share4video.dataset.formats.lines import Reject
from share4video.dataset.published import ClipSample, sample_of
from share4video.errors import UserError
from tests.export.material import caption_row, clip_row, differential_rows

TEXT = st.text(st.characters(codec="utf-8"), max_size=30)
WORDS = TEXT.filter(lambda text: bool(text.strip()))
COUNTS = st.integers(0, 10**6)
RATES = st.floats(0, 1000, allow_nan=False)
PATIENT = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**62), 2**62)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@PATIENT
@given(st.lists(JSON, max_size=5), st.sampled_from([None, 0, 2]))
def test_elements_are_what_json_reads(
    tmp_path_factory: pytest.TempPathFactory, values: list[Any], indent: int | None
) -> None:
    file = tmp_path_factory.mktemp("json") / "list.json"
    file.write_text(json.dumps(values, indent=indent), encoding="utf-8")
    numbered = list(enumerate(values, start=1))
    assert list(elements.list_elements(file)) == numbered
    file.write_bytes(b"".join(elements.list_chunks(values)))
    assert list(elements.any_elements(file)) == numbered
    assert json.loads(file.read_bytes()) == values


def test_an_element_over_a_bound_is_one_reject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "list.json"
    deep = "[" * (elements.MAX_DEPTH + 1) + "]" * (elements.MAX_DEPTH + 1)
    monkeypatch.setattr(elements, "MAX_ELEMENT_BYTES", 1000)
    file.write_text(f'[1, {deep}, {json.dumps(["long"] * 100)}, {{"a": [2.5]}}]')
    first, second, third, fourth = elements.list_elements(file)
    assert (first, fourth) == ((1, 1), (4, {"a": [2.5]}))
    assert isinstance(second, Reject)
    assert isinstance(third, Reject)
    assert [(item.number, item.reason) for item in (second, third)] == [
        (2, "element_too_large"),
        (3, "element_too_large"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[" * 1_000_000,
        b"[1, 2",
        b"[1] 2",
        b"[1,]",
        b'["\xff"]',
        b"[NaN]",
        b'["' + b"x" * (elements.MAX_ELEMENT_BYTES + 200_000) + b'"]',
        b"[" + b"9" * 5000 + b"]",
        b"[1e400]",
        b'["\xed\xa0\x80"]',
        b'[{"\xed\xa0\x80": 1}]',
    ],
)
def test_what_is_no_list_is_the_users_error(tmp_path: Path, text: bytes) -> None:
    file = tmp_path / "list.json"
    file.write_bytes(text)
    with pytest.raises(UserError):
        list(elements.list_elements(file))


SORA = st.builds(open_sora.Video, WORDS, WORDS, COUNTS, COUNTS, COUNTS, RATES)
PLAN = st.builds(open_sora_plan.Video, WORDS, WORDS, COUNTS, COUNTS, COUNTS, RATES, COUNTS)


@PATIENT
@given(st.lists(SORA, max_size=4))
def test_open_soras_rows_survive_the_round_trip(
    tmp_path_factory: pytest.TempPathFactory, videos: list[open_sora.Video]
) -> None:
    file = tmp_path_factory.mktemp("csv") / "videos.csv"
    file.write_bytes(b"".join(open_sora.chunks(videos)))
    assert list(open_sora.read(file)) == videos


@PATIENT
@given(st.lists(PLAN, max_size=4))
def test_open_sora_plans_elements_survive_the_round_trip(
    tmp_path_factory: pytest.TempPathFactory, videos: list[open_sora_plan.Video]
) -> None:
    file = tmp_path_factory.mktemp("json") / "videos.json"
    file.write_bytes(b"".join(open_sora_plan.chunks(videos)))
    assert list(open_sora_plan.read(file)) == videos


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"a.mp4", "wrong_shape"),
        (b"a.mp4,A dog.,many", "wrong_shape"),
        (b"a.mp4,A dog.,-1", "wrong_shape"),
        (b"a.mp4,A dog.,inf", "wrong_shape"),
        (b",A dog.,1", "wrong_shape"),
        (b"a.mp4,\xff,1", "not_text"),
        (b"a.mp4," + b"x" * 200_000 + b",1", "line_too_long"),
    ],
)
def test_a_bad_row_is_one_reject(tmp_path: Path, row: bytes, reason: str) -> None:
    file = tmp_path / "videos.csv"
    file.write_bytes(b"\xef\xbb\xbfpath,text,num_frames\n" + row + b"\nb.mp4,A cat.,8\n")
    bad, good = open_sora.read(file)
    assert isinstance(bad, Reject)
    assert (bad.number, bad.reason) == (2, reason)
    assert good == open_sora.Video("b.mp4", "A cat.", 8, 0, 0, 0.0)


@st.composite
def clip_samples(draw: st.DrawFn) -> ClipSample:
    name = draw(st.text("abcdef0123456789", min_size=1, max_size=8))
    clip = clip_row(name, metadata=draw(st.none() | TEXT), source_uri=draw(WORDS), duration_s=draw(RATES))
    roles = draw(st.lists(st.sampled_from(["fast", "summary", "brief"]), max_size=3))
    captions = [
        caption_row(name, role, draw(TEXT), checks=draw(st.lists(TEXT, max_size=2))) for role in roles
    ]
    differentials = differential_rows(name, ("first", "difference")[: draw(st.integers(0, 2))])
    return ClipSample(clip, tuple(captions), tuple(differentials))


@PATIENT
@given(st.lists(clip_samples(), max_size=4, unique_by=lambda sample: sample.clip_id))
def test_samples_survive_parquet_and_tar(
    tmp_path_factory: pytest.TempPathFactory, samples: list[ClipSample]
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    parquet, tar = _parquet(samples), _tar(samples)
    assert (parquet, tar) == (_parquet(samples), _tar(samples))
    (folder / "a.parquet").write_bytes(parquet)
    assert list(huggingface.read(folder / "a.parquet")) == samples
    (folder / "a.tar").write_bytes(tar)
    read = list(webdataset.read(folder / "a.tar"))
    assert [webdataset.clip_sample(item) for item in read if isinstance(item, webdataset.Sample)] == samples
    assert [sample_of(sample.row()) for sample in samples] == samples


def _parquet(samples: list[ClipSample]) -> bytes:
    sink = io.BytesIO()
    writer = huggingface.ShardWriter(sink)
    writer.add(samples)
    writer.close()
    return sink.getvalue()


def _tar(samples: list[ClipSample]) -> bytes:
    sink = io.BytesIO()
    writer = webdataset.ShardWriter(sink)
    for sample in samples:
        writer.add(sample.clip_id, webdataset.text_members(sample))
    writer.close()
    return sink.getvalue()


def _entry(name: str, data: bytes = b"x", kind: bytes = tarfile.REGTYPE) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(data) if kind == tarfile.REGTYPE else 0
    return info, data


def test_a_foreign_archive_gives_nothing_but_bounded_samples(tmp_path: Path) -> None:
    file = tmp_path / "foreign.tar"
    with tarfile.open(file, "w") as tar:
        for info, data in (
            _entry("a.json", b"{}"),
            _entry("../../etc/passwd.txt"),
            _entry("/a.txt"),
            _entry("a.link", kind=tarfile.SYMTYPE),
            _entry("a.txt", b"text"),
            _entry("a.txt", b"twice"),
            _entry("part/b.000.jpg", b"picture"),
            _entry("nodot"),
            _entry("c.mp4", b"x" * 2000),
        ):
            tar.addfile(info, io.BytesIO(data))
    found = list(webdataset.read(file, max_member_bytes=1000))
    assert [item for item in found if isinstance(item, webdataset.Sample)] == [
        webdataset.Sample("a", {"json": b"{}", "txt": b"text"}),
        webdataset.Sample("part/b", {"000.jpg": b"picture"}),
    ]
    rejects = [(item.number, item.reason) for item in found if isinstance(item, Reject)]
    assert rejects == [
        (2, "not_allowed"),
        (3, "not_allowed"),
        (4, "not_allowed"),
        (6, "not_allowed"),
        (8, "not_allowed"),
        (9, "too_large"),
    ]
    assert list(tmp_path.iterdir()) == [file]
    with pytest.raises(ValueError, match="no clip of ours"):
        webdataset.clip_sample(webdataset.Sample("a", {"json": b"{}"}))


def test_a_key_with_a_dot_is_not_written() -> None:
    with pytest.raises(ValueError, match="no key"):
        webdataset.ShardWriter(io.BytesIO()).add("a.b", {"txt": b""})


RECORD = sharegpt4video.Record(
    "a",
    "p/a.mp4",
    (0.0, 2.5),
    (0, 1),
    (sharegpt4video.Caption("0", "A dog."), sharegpt4video.Caption("-1", "A dog runs.")),
    "p_1.zip",
)
VIDEO = open_sora_plan.Video("a.mp4", "A dog.", 8, 96, 48, 8.0)
SAMPLE = ClipSample(clip_row("a"), (caption_row("a", "summary", "All."),), tuple(differential_rows("a")))
TURNS = b'{"from": "human", "value": "<image>\\nWhat?"}, {"from": "gpt", "value": "A dog."}'
WHOLE: dict[str, tuple[bytes, Callable[[Path], Iterator[Any]]]] = {
    "sharegpt4video": (sharegpt4video.encode(RECORD) * 3, sharegpt4video.read),
    "share-captioner": (b"[" + b",".join([sharegpt4video.encode(RECORD)] * 3) + b"]", share_captioner.read),
    "llava": (b'[{"id": "1", "image": "a.jpg", "conversations": [' + TURNS + b"]}]", llava.read),
    "open-sora": (
        b"".join(open_sora.chunks([open_sora.Video("a", 'A "dog"\n', 8, 9, 9, 1.0)])),
        open_sora.read,
    ),
    "open-sora-plan": (b"".join(open_sora_plan.chunks([VIDEO] * 3)), open_sora_plan.read),
    "webdataset": (_tar([SAMPLE]), webdataset.read),
    "huggingface": (_parquet([SAMPLE] * 3), huggingface.read),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_bent_file_gives_rejects_or_a_sentence(tmp_path: Path, name: str) -> None:
    whole, read = WHOLE[name]
    file = tmp_path / "file"
    file.write_bytes(whole)
    assert not any(isinstance(item, Reject) for item in list(read(file))[:1])
    chance = random.Random(name)
    refused, sentences = 0, []
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            place = chance.randrange(len(data))
            match chance.randrange(3):
                case 0:
                    data[place] = chance.randrange(256)
                case 1:
                    del data[place : place + chance.randint(1, 40)]
                case _:
                    data[place:place] = data[place // 2 : place // 2 + chance.randint(1, 40)]
        file.write_bytes(data)
        try:
            refused += any(isinstance(item, Reject) for item in read(file))
        except UserError as error:
            sentences.append(error.sentence())
    assert refused or sentences
    assert not any("\n" in sentence for sentence in sentences)


STREAMS = """
import resource, sys
from pathlib import Path
from share4video.dataset.formats import {module}
reader = {module}.read(Path(sys.argv[1]))
next(reader)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
count = 1 + sum(1 for _ in reader)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(count, (after - before) // 1024)
"""


@pytest.mark.parametrize("form", ["list", "lines", "llava"])
def test_a_file_far_larger_than_the_memory_it_takes(tmp_path: Path, form: str) -> None:
    count, caption = 30_000, "A dog runs over a green field. " * 64
    file = tmp_path / "large.json"
    turns = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": caption}]
    with file.open("wb") as sink:
        values = (
            {"id": str(i), "conversations": turns}
            if form == "llava"
            else {"video_path": f"pexels/{i}.mp4", "caption": caption}
            for i in range(count)
        )
        if form == "lines":
            sink.writelines(json.dumps(value).encode() + b"\n" for value in values)
        else:
            sink.writelines(elements.list_chunks(values))
    size_mib = file.stat().st_size >> 20
    assert size_mib > 55
    program = STREAMS.format(module="llava" if form == "llava" else "share_captioner")
    done = subprocess.run(
        [sys.executable, "-c", program, str(file)], capture_output=True, text=True, check=True, timeout=120
    )
    read, grown_mib = map(int, done.stdout.split())
    assert read == count
    assert grown_mib < 16


def test_distinct_texts_are_told_apart() -> None:
    seen = Distinct()
    texts = [f"text {number}" for number in range(40_000)]
    assert all(seen.add(text) for text in texts)
    assert not any(seen.add(text) for text in texts[::1000])
    assert seen.again(texts[1000])
    assert not seen.again(texts[1])
    assert seen.add("another")
