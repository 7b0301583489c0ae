"""Shard sets: what a stage commits is what the next one reads, or damage is found."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from share4video.config import GateConfig
from share4video.dataset.schema import TABLES
from share4video.dataset.shards import (
    Manifest,
    ShardSet,
    StageRef,
    empty_table,
    fetch_files,
    load_manifest,
    read_file,
    read_table,
    table_bytes,
    table_from_rows,
)
from share4video.errors import UserError
from share4video.store import LocalStore, Store
from tests.dataset.material import an_output, briefs


def _published(store: Store) -> Manifest:
    output = an_output(store)
    output.attach("checkpoint/config.json", b"{}")
    output.attach("checkpoint/model.safetensors", b"weights")
    output.attach("report.html", b"<html>")
    output.commit(0, {"brief_captions": briefs("a", "c")}, {"rows_in": 2, "rows_out": 2})
    output.commit(1, {"brief_captions": briefs("e")}, {"rows_in": 1, "rows_out": 1})
    return output.publish(2)


def _values(kind: pa.DataType) -> st.SearchStrategy[Any]:
    if pa.types.is_string(kind):
        return st.text(st.characters(codec="utf-8"), max_size=8)
    if pa.types.is_binary(kind):
        return st.binary(max_size=8)
    if pa.types.is_boolean(kind):
        return st.booleans()
    if pa.types.is_integer(kind):
        return st.integers(-(2**31), 2**31 - 1)
    if pa.types.is_floating(kind):
        return st.floats(allow_nan=False, width=32)
    assert pa.types.is_list(kind)
    return st.lists(_values(kind.value_type), max_size=3)


def _rows(table: str) -> st.SearchStrategy[list[dict[str, Any]]]:
    columns = {
        field.name: st.none() | _values(field.type) if field.nullable else _values(field.type)
        for field in TABLES[table]
    }
    return st.lists(st.fixed_dictionaries(columns), max_size=4)


_tables = st.sampled_from(sorted(TABLES)).flatmap(
    lambda name: st.tuples(st.just(name), st.lists(_rows(name), min_size=1, max_size=3))
)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_tables)
def test_rows_come_back_as_they_went_in(
    tmp_path_factory: pytest.TempPathFactory, drawn: tuple[str, list[list[dict[str, Any]]]]
) -> None:
    name, shards = drawn
    store = LocalStore(tmp_path_factory.mktemp("store"))
    output = an_output(store)
    for index, rows in reversed(list(enumerate(shards))):  # shards may end in any order
        output.commit(index, {name: table_from_rows(name, rows)}, {"rows_in": len(rows)})
    manifest = output.publish(len(shards))
    assert read_table(store, manifest.ref, name).to_pylist() == [row for rows in shards for row in rows]
    for index, rows in enumerate(shards):
        assert read_table(store, manifest.ref, name, shard=index).to_pylist() == rows
    assert manifest.rows(name) == manifest.counts["rows_in"] == sum(map(len, shards))


def test_a_second_run_finds_everything(any_store: Store) -> None:
    assert an_output(any_store).published() is None
    assert an_output(any_store).committed(0) is None
    manifest = _published(any_store)
    assert an_output(any_store).published() == manifest
    assert _published(any_store) == manifest
    assert load_manifest(any_store, StageRef.parse(str(manifest.ref))) == manifest


def test_equal_runs_leave_equal_bytes(store: LocalStore, tmp_path: Path) -> None:
    other = LocalStore(tmp_path / "other")
    _published(store)
    _published(other)
    keys = list(store.list("stage"))
    assert keys == list(other.list("stage"))
    assert len(keys) == 8
    for key in keys:
        assert store.get(key) == other.get(key)


def test_the_key_follows_what_the_output_depends_on(store: LocalStore) -> None:
    keys = {
        an_output(store).key,
        an_output(store, inputs=["b"]).key,
        an_output(store, inputs=["a", "b"]).key,
        an_output(store, config=GateConfig(seed=2)).key,
        an_output(store, identity={"engine": "x@1"}).key,
        an_output(store, identity={"engine": "x@2"}).key,
        ShardSet(store, "stage", "2", inputs=["a"], config=GateConfig()).key,
    }
    assert len(keys) == 7


@pytest.mark.parametrize(
    "change",
    [
        lambda output: output.commit(0, {"brief_captions": briefs("x")}),
        lambda output: (output.attach("file", b"other"), output.commit(0, {})),
        lambda output: (output.attach("name", b"data"), output.commit(0, {})),
        lambda output: output.commit(0, {}),
    ],
)
def test_the_content_hash_covers_tables_and_files(store: LocalStore, tmp_path: Path, change: Any) -> None:
    first = an_output(store)
    first.attach("file", b"data")
    first.commit(0, {"brief_captions": briefs("a")})
    second = an_output(LocalStore(tmp_path / "other"))
    change(second)
    assert first.publish(1).content_hash != second.publish(1).content_hash


def test_nothing_is_published_over_a_missing_shard(store: LocalStore) -> None:
    output = an_output(store)
    output.commit(1, {})
    with pytest.raises(RuntimeError, match=r"shards \[0, 2\] are not committed"):
        output.publish(3)
    assert output.published() is None


def test_counts_that_are_no_numbers_are_refused_before_anything_is_written(store: LocalStore) -> None:
    with pytest.raises(ValueError):
        an_output(store).commit(0, {"brief_captions": briefs("a")}, {"metric:f1": float("nan")})
    assert list(store.list("stage")) == []


def test_a_table_that_does_not_fit_its_schema_is_refused(store: LocalStore) -> None:
    with pytest.raises(ValueError, match="embedding"):
        table_from_rows("brief_captions", [{"clip_id": "a", "caption": "a"}])
    with pytest.raises(ValueError):
        an_output(store).commit(0, {"brief_captions": pa.table({"clip_id": ["a"]})})
    holes = pa.table({"clip_id": [None], "caption": ["a"], "embedding": [[0.1]], "shift_s": [0.0]})
    with pytest.raises(ValueError):
        an_output(store).commit(0, {"brief_captions": holes})
    assert list(store.list("stage")) == []


def test_a_table_no_shard_wrote_is_empty(store: LocalStore) -> None:
    assert read_table(store, _published(store).ref, "clips").equals(empty_table("clips"))


def test_table_bytes_do_not_depend_on_chunks() -> None:
    whole = briefs("a", "c")
    assert table_bytes(pa.concat_tables([whole.slice(0, 1), whole.slice(1)])) == table_bytes(whole)


# Attached files


def test_attached_files_are_fetched_whole(any_store: Store, tmp_path: Path) -> None:
    large = tmp_path / "large.safetensors"
    large.write_bytes(bytes(range(256)) * 40_000)  # more than one part of a multipart upload
    output = an_output(any_store)
    assert output.attach("checkpoint/large.safetensors", large).bytes == 10_240_000
    output.attach("result.json", b"[1]")
    output.commit(0, {})
    ref = output.publish(1).ref
    paths = fetch_files(any_store, ref, tmp_path / "fetched", "checkpoint/")
    assert paths == [tmp_path / "fetched" / "checkpoint" / "large.safetensors"]
    assert paths[0].read_bytes() == large.read_bytes()
    assert read_file(any_store, ref, "result.json") == b"[1]"
    with pytest.raises(KeyError):
        read_file(any_store, ref, "other.json")
    assert fetch_files(any_store, ref, tmp_path / "none", "other/") == []


def test_fetching_again_mends_what_is_broken_and_leaves_the_rest(store: LocalStore, tmp_path: Path) -> None:
    ref = _published(store).ref
    paths = fetch_files(store, ref, tmp_path / "out")
    assert [path.name for path in paths] == ["config.json", "model.safetensors", "report.html"]
    kept = paths[0].stat()
    paths[1].write_bytes(b"trunc")
    assert fetch_files(store, ref, tmp_path / "out") == paths
    assert paths[1].read_bytes() == b"weights"
    assert paths[0].stat().st_ino == kept.st_ino
    assert len([path for path in (tmp_path / "out").rglob("*") if path.is_file()]) == 3


@pytest.mark.parametrize(
    "name", ["", "/x", "../x", "a/../../x", "a//b", "manifest.json", "shards/0", "clips/part-0.parquet"]
)
def test_a_file_name_that_leaves_the_output_or_is_taken_is_refused(store: LocalStore, name: str) -> None:
    with pytest.raises(ValueError):
        an_output(store).attach(name, b"")


def test_nothing_is_attached_to_a_committed_shard(store: LocalStore) -> None:
    ref = _published(store).ref
    again = an_output(store)
    again.attach("report.html", b"<html>")  # the same bytes: a second run that did not look first
    with pytest.raises(RuntimeError, match="committed without"):
        again.attach("report.html", b"<html>changed")
    with pytest.raises(RuntimeError, match="committed without"):
        again.attach("more.html", b"")
    assert read_file(store, ref, "report.html") == b"<html>"


def test_shards_may_share_a_file_but_not_a_name(store: LocalStore) -> None:
    output = an_output(store)
    for shard in range(2):
        output.attach("images/ab12.png", b"same", shard)
        output.attach("log.txt", f"shard {shard}".encode(), shard)
        output.commit(shard, {})
    with pytest.raises(RuntimeError, match=r"another log\.txt"):
        output.publish(2)
    shared = an_output(store, inputs=["other"])
    for shard in range(2):
        shared.attach("images/ab12.png", b"same", shard)
        shared.commit(shard, {})
    assert [file.name for file in shared.publish(2).files] == ["images/ab12.png"]


# Damage


def _damage(store: Store, key: str, how: str) -> None:
    if how == "gone":
        store.delete(key)
    else:
        data = store.get(key)
        store.put(key, b"" if how == "empty" else data[:-1] + bytes([data[-1] ^ 1]))


@pytest.mark.parametrize("how", ["gone", "empty", "one bit"])
def test_a_damaged_part_is_found_before_it_is_used(store: LocalStore, how: str) -> None:
    ref = _published(store).ref
    _damage(store, f"{ref.prefix}/brief_captions/part-00001.parquet", how)
    assert read_table(store, ref, "brief_captions", shard=0).num_rows == 2
    with pytest.raises(UserError, match="damaged or missing") as caught:
        read_table(store, ref, "brief_captions")
    assert caught.value.where.endswith("brief_captions/part-00001.parquet")
    assert "run the stage stage again" in caught.value.fix


@pytest.mark.parametrize("how", ["gone", "empty", "one bit"])
def test_a_damaged_file_is_found_before_it_is_used(store: LocalStore, tmp_path: Path, how: str) -> None:
    ref = _published(store).ref
    _damage(store, f"{ref.prefix}/report.html", how)
    with pytest.raises(UserError, match="damaged or missing"):
        read_file(store, ref, "report.html")
    with pytest.raises(UserError, match="damaged or missing"):
        fetch_files(store, ref, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*report*"))


def test_a_changed_manifest_is_found(store: LocalStore) -> None:
    ref = _published(store).ref
    key = f"{ref.prefix}/manifest.json"
    manifest = json.loads(store.get(key))
    with pytest.raises(UserError, match="no published output"):
        load_manifest(store, StageRef("stage", "other", ref.content_hash))
    with pytest.raises(UserError, match="changed since it was named"):
        load_manifest(store, StageRef(ref.stage, ref.key, "0" * 64))
    store.put(key, json.dumps({**manifest, "parts": manifest["parts"][:1]}).encode())
    with pytest.raises(UserError, match="damaged"):
        read_table(store, ref, "brief_captions")
    for broken in (b"", store.get(key)[:-20], json.dumps({**manifest, "more": 1}).encode()):
        store.put(key, broken)
        with pytest.raises(UserError, match="damaged"):
            load_manifest(store, ref)
        with pytest.raises(UserError, match="damaged"):
            an_output(store).published()
    manifest["files"][0]["name"] = "../../outside"
    store.put(key, json.dumps(manifest).encode())
    with pytest.raises(UserError, match="damaged"):
        load_manifest(store, ref)


@pytest.mark.parametrize(
    "text", ["", "stage", "stage/key", "stage@hash", "../key@hash", "a/b/c@d", "a/b@c d"]
)
def test_a_reference_that_is_none_is_the_users_matter(text: str) -> None:
    with pytest.raises(UserError, match="not a stage output"):
        StageRef.parse(text)


def test_of_a_table_only_the_columns_asked_for_are_read(store: LocalStore) -> None:
    ref = _published(store).ref
    found = read_table(store, ref, "brief_captions", columns=["clip_id"])
    assert found.equals(read_table(store, ref, "brief_captions").select(["clip_id"]))
    nothing = read_table(store, ref, "rejects", columns=["clip_id"])
    assert (nothing.column_names, nothing.num_rows) == (["clip_id"], 0)


def test_reading_a_table_starts_no_thread() -> None:
    # A process that ends while Arrow's pool starts is aborted, which is seldom enough to be missed.
    program = """
import os
from share4video.dataset.shards import empty_table, parse_table, table_bytes

def threads():
    return len(os.listdir("/proc/self/task"))

data, before = table_bytes(empty_table("clips")), threads()
parse_table(data)
print(threads() - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"
