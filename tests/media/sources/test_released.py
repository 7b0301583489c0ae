"""The released jsonl: its records are members of the archives beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from share4video.errors import UserError
from share4video.media.sources import clip_file, list_sources
from tests.media.sources.material import contents, sha, upload, write_archive, write_files


def record(video_id: str, path: str, archive: str, **changes: Any) -> dict[str, Any]:
    captions = [{"idx": "0", "content": "A."}, {"idx": "-1", "content": "All."}]
    return {
        "video_id": video_id,
        "video_path": path,
        "timestamp": [0, 2.0],
        "keyframe": [0, 1],
        "captions": captions,
        "zip_folder": archive,
        **changes,
    }


RECORDS = [
    record("p", "panda/p.mp4", "panda_videos_1.zip"),
    record("q", "panda/q.mp4", "panda_videos_1"),  # the suffix is not always said
    record("x", "pixabay/x.mp4", "pixabay_videos_1.zip"),
    record("n", "pixabay/none.mp4", "pixabay_videos_1.zip"),
    record("m", "mixit/m.mp4", "mixit_1.zip"),
    record("o", "../../p.mp4", "panda_videos_1.zip"),
]


def write_released(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [*(json.dumps(line) for line in RECORDS), "{", json.dumps(record("b", "a.mp4", "z", captions=3))]
    path = folder / "sharegpt4video_40k.jsonl"
    path.write_text("\n".join(lines))
    return path


def write_zips(folder: Path, *, flat: bool) -> None:
    panda, pixabay = ("", "") if flat else ("panda/", "pixabay/")
    write_archive(folder / f"{panda}panda_videos_1.zip", {"panda/p.mp4": b"P", "q.mp4": b"Q"})
    write_archive(folder / f"{pixabay}pixabay_videos_1.zip", {"x.mp4": b"X"})


FOUND = {
    "panda/panda_videos_1.zip/p.mp4": sha(b"P"),
    "panda/panda_videos_1.zip/q.mp4": sha(b"Q"),
    "pixabay/pixabay_videos_1.zip/x.mp4": sha(b"X"),
    "pixabay/pixabay_videos_1.zip/none.mp4": "unreadable: the archive holds no such file",
    "mixit/mixit_1.zip/m.mp4": "unreadable: there is no archive mixit_1.zip of mixit",
}


@pytest.mark.parametrize("layout", ["zip_folder", "dataset", "flat", "given", "s3"])
def test_the_archives_are_found_where_people_put_them(
    tmp_path: Path, layout: str, request: pytest.FixtureRequest
) -> None:
    path = write_released(tmp_path / "released")
    zips = {"zip_folder": path.parent / "zip_folder", "given": tmp_path / "mnt"}.get(layout, path.parent)
    write_zips(zips, flat=layout == "flat")
    source = f"{path}#zip_folder={zips}" if layout == "given" else str(path)
    if layout == "s3":
        files = {p.relative_to(path.parent).as_posix(): p for p in path.parent.rglob("*") if p.is_file()}
        root = request.getfixturevalue("s3_root")
        source = upload(root, {name: p.read_bytes() for name, p in files.items()}) + f"/{path.name}"
    rows = list_sources(source)
    found = contents(rows)
    assert {uri: found[uri] for uri in FOUND} == FOUND
    assert found["../../panda_videos_1.zip/p.mp4"].startswith("not_allowed")
    broken = [said.partition(":")[0] for uri, said in found.items() if ".jsonl:" in uri]
    assert broken == ["not_json", "wrong_shape"]
    assert len(found) == 8
    first = rows[[row.uri for row in rows].index("panda/panda_videos_1.zip/p.mp4")]
    assert first.source_id == "p"
    assert first.metadata == '{"keyframe": [0, 1], "timestamp": [0, 2.0], "video_path": "panda/p.mp4"}'
    clip = {"clip_id": "c", "source_uri": "panda/panda_videos_1.zip/q.mp4", "content_hash": sha(b"Q")}
    with clip_file(source, clip) as local:
        assert local.read_bytes() == b"Q"


def test_a_link_that_leads_out_is_not_followed_for_a_record(tmp_path: Path) -> None:
    path = write_released(tmp_path / "released")
    write_zips(tmp_path / "mnt", flat=True)
    (path.parent / "zip_folder").symlink_to(tmp_path / "mnt")
    found = contents(list_sources(str(path)))
    assert found["panda/panda_videos_1.zip/p.mp4"].startswith("not_allowed")


def test_other_jsonl_files_are_plain_lists(tmp_path: Path) -> None:
    write_files(tmp_path, {"list.jsonl": b'{"video_id": "x"}\n', "a.mp4": b"A"})
    with pytest.raises(UserError, match="no column 'uri', its columns are video_id"):
        list_sources(str(tmp_path / "list.jsonl"))
