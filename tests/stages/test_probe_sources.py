"""The probe stage on sources of every kind: the same clips wherever the bytes are, every row answered for."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest

from share4video.config import ProbeConfig
from share4video.dataset.shards import read_table
from share4video.errors import UserError
from share4video.media import decode
from share4video.media.sources import clip_file, join_sources
from share4video.stages.contract import StageResult
from share4video.stages.probe import ProbeInputs, run_stage
from share4video.store import LocalStore, Store
from tests.media.clips import write_clip
from tests.media.sources.material import upload

CONFIG = ProbeConfig(min_duration_s=1, max_duration_s=4, min_height=48, licence="CC0")

pytestmark = pytest.mark.usefixtures("local_copies")


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three good clips, one too short, a copy of one, and a file that is no video."""
    folder = tmp_path_factory.mktemp("sources") / "films"
    (folder / "deep").mkdir(parents=True)
    for number, name in enumerate(("a.mp4", "b.mp4", "deep/c.mp4")):
        write_clip(folder / name, frames=30 + number)
    write_clip(folder / "short.mp4", frames=5)
    shutil.copy(folder / "a.mp4", folder / "z.mp4")
    (folder / "words.mp4").write_text("no video")
    return folder


def archived(films: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(path for path in films.rglob("*") if path.is_file()):
            archive.write(file, file.relative_to(films).as_posix())
    return path


def tables(store: Store, result: StageResult) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    clips, rejects = (read_table(store, result.ref, name).to_pylist() for name in ("clips", "rejects"))
    return clips, rejects


def facts(store: Store, result: StageResult, prefix: str = "") -> set[tuple[str, str]]:
    """What became of every row, by its uri below ``prefix``."""
    clips, rejects = tables(store, result)
    found = [(row["source_uri"], row["clip_id"]) for row in clips]
    found += [(row["source_uri"], row["reason"]) for row in rejects]
    assert len({row["row_id"] for row in (*clips, *rejects)}) == result.rows_in
    return {(uri.removeprefix(prefix), what) for uri, what in found}


def test_the_same_clips_come_of_a_folder_an_archive_and_s3(
    films: Path, tmp_path: Path, store: LocalStore, s3_root: str
) -> None:
    pack = archived(films, tmp_path / "pack.zip")
    files = {file.relative_to(films).as_posix(): file for file in films.rglob("*") if file.is_file()}
    upload(s3_root, {f"films/{name}": file.read_bytes() for name, file in files.items()})
    upload(s3_root, {"pack.zip": pack.read_bytes()})
    here = run_stage(ProbeInputs(str(films)), CONFIG, store)
    expected = facts(store, here)
    assert (here.rows_in, here.rows_out) == (6, 3)
    there = run_stage(ProbeInputs(f"{s3_root}/films"), CONFIG, store)
    assert there.ref == here.ref  # not even the key tells where the bytes were
    for source in (str(pack), f"{s3_root}/pack.zip"):
        result = run_stage(ProbeInputs(source), CONFIG, store)
        assert facts(store, result, "pack.zip/") == expected
        for clip in tables(store, result)[0]:
            with clip_file(source, clip) as path:
                assert len(decode.frames_at(path, [0.0, 1.0])) == 2


@pytest.mark.parametrize("kind", ["folder", "archive", "list", "s3"])
def test_a_source_without_video_is_not_called_a_folder(
    tmp_path: Path, store: LocalStore, s3_root: str, kind: str
) -> None:
    words = tmp_path / "words"
    words.mkdir()
    (words / "a.mp4").write_text("no video")
    (tmp_path / "list.csv").write_text("uri\nwords/a.mp4\n")
    upload(s3_root, {"words/a.mp4": b"no video"})
    source = {
        "folder": str(words),
        "archive": str(archived(words, tmp_path / "pack.zip")),
        "list": str(tmp_path / "list.csv"),
        "s3": f"{s3_root}/words",
    }[kind]
    with pytest.raises(UserError, match="there is no video in the source") as caught:
        run_stage(ProbeInputs(source), CONFIG, store)
    assert caught.value.where == source


def test_a_list_brings_ids_licences_and_metadata(films: Path, tmp_path: Path, store: LocalStore) -> None:
    shutil.copytree(films, tmp_path / "films")
    rows = [
        {"uri": "films/a.mp4", "id": "A1", "licence": "MIT", "views": 3},
        {"uri": "films/a.mp4", "id": "A2"},
        {"uri": "films/b.mp4"},
        {"uri": "films/short.mp4", "id": "S"},
        {"uri": "/etc/hostname", "id": "E"},
    ]
    listed = tmp_path / "list.jsonl"
    seen = []
    for order in (rows, rows[::-1]):
        listed.write_text("".join(json.dumps(row) + "\n" for row in order))
        result = run_stage(ProbeInputs(str(listed)), CONFIG, store)
        clips, rejects = tables(store, result)
        seen.append((result.ref, clips, rejects))
    assert seen[0] == seen[1]
    assert [(c["source_uri"], c["source_id"], c["licence"], c["metadata"]) for c in clips] == [
        ("films/a.mp4", "A1", "MIT", '{"views": 3}'),
        ("films/b.mp4", None, "CC0", None),
    ]
    assert [(r["source_uri"], r["source_id"], r["reason"]) for r in rejects] == [
        ("/etc/hostname", "E", "not_allowed"),
        ("films/a.mp4", "A2", "exact_duplicate"),
        ("films/short.mp4", "S", "too_short"),
    ]
    assert rejects[1]["sentence"] == "the same content as films/a.mp4"
    assert len({row["row_id"] for row in (*clips, *rejects)}) == 5


def test_several_sources_in_any_order_are_one_output(films: Path, tmp_path: Path, store: LocalStore) -> None:
    pack = archived(films, tmp_path / "pack.zip")
    listed = films.parent / "list.csv"
    listed.write_text("uri\nfilms/b.mp4\n")
    sources = [str(films), str(pack), str(listed)]
    first, second = (
        run_stage(ProbeInputs(join_sources(order)), CONFIG, store) for order in (sources, sources[::-1])
    )
    assert first.ref == second.ref
    assert (first.rows_in, first.rows_out) == (13, 3)
    assert first.rejects == {"exact_duplicate": 6, "not_video": 2, "too_short": 2}


def test_limit_and_shards(films: Path, store: LocalStore) -> None:
    whole = facts(store, run_stage(ProbeInputs(str(films)), CONFIG, store))
    first = run_stage(ProbeInputs(str(films)), CONFIG.model_copy(update={"limit": 2}), store)
    assert {uri for uri, _ in facts(store, first)} == {"a.mp4", "b.mp4"}
    chosen = {"limit": 6, "shard": "1/1", "allow": (str(films),)}  # all of them, however they were chosen
    again = run_stage(ProbeInputs(str(films)), CONFIG.model_copy(update=chosen), store)
    assert again.unchanged
    assert str(films) not in store.get(f"{again.ref.prefix}/manifest.json").decode()
    found: set[str] = set()
    for shard in ("1/2", "2/2"):
        result = run_stage(ProbeInputs(str(films)), CONFIG.model_copy(update={"shard": shard}), store)
        uris = {uri for uri, _ in facts(store, result)}
        assert not uris & found
        found |= uris
    assert found == {uri for uri, _ in whole}


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "a/b", "1/0"])
def test_a_shard_there_is_not(shard: str) -> None:
    with pytest.raises(ValueError):
        ProbeConfig(shard=shard)


def test_throughput_is_told_while_files_are_read(films: Path, store: LocalStore) -> None:
    labels: list[str] = []
    run_stage(
        ProbeInputs(str(films)), CONFIG, store, progress=lambda label, done, total: labels.append(label)
    )
    assert labels[0].endswith(" MB/s, files read")
    assert "files/s" in labels[0]


def test_of_many_sources_nothing_is_kept(films: Path, store: LocalStore) -> None:
    source = join_sources([str(films / "short.mp4"), str(films / "words.mp4")])
    with pytest.raises(UserError, match="none of 2 files became a clip") as caught:
        run_stage(ProbeInputs(source), CONFIG, store)
    assert "\n" not in caught.value.sentence()
