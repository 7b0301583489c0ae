"""Parquet shard sets: how a stage publishes its tables, and how the next stage reads them.

    STORE/<stage>/<key>/<table>/part-00003.parquet     written first
    STORE/<stage>/<key>/<name>                         attached files: checkpoints, images, reports
    STORE/<stage>/<key>/shards/00003.json              commits the shard: rows and sha256 of what it holds
    STORE/<stage>/<key>/manifest.json                  commits the stage; without it there is no output

The key is a hash of what the output depends on (inputs by content, configuration, stage version), so a
second run finds the manifest and a killed run finds the shards it had committed. Nothing written there
depends on when, where or how often it was run.

One process writes a shard at a time: it holds the lock ``locks/<stage>/<key>/00003``, and one that was
overtaken while it slept is refused at its next write.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ValidationError

from share4video.dataset.manifest import (
    AttachedFile,
    Manifest,
    Part,
    ShardCommit,
    StageRef,
    canonical_json,
    damaged,
    hash_content,
    load_manifest,
)
from share4video.dataset.schema import SCHEMA_VERSION, TABLES
from share4video.dataset.tombstones import rows_taken_down, succession_of
from share4video.errors import UserError
from share4video.store import Store
from share4video.store_lock import DEFAULT_TTL_S

__all__ = [
    "AttachedFile",
    "Manifest",
    "Part",
    "ShardCommit",
    "ShardSet",
    "StageRef",
    "canonical_json",
    "empty_table",
    "fetch_files",
    "load_manifest",
    "parse_table",
    "read_file",
    "read_table",
    "read_verified",
    "recipe_key",
    "table_bytes",
    "table_from_rows",
]

KEY_LENGTH = 20
Record = TypeVar("Record", Manifest, ShardCommit)


def recipe_key(recipe: Sequence[Any]) -> str:
    """Return the key of an output that depends on the values of ``recipe`` alone."""
    return hashlib.sha256(canonical_json(list(recipe))).hexdigest()[:KEY_LENGTH]


class ShardSet:
    """The output of one stage run: commit shards one by one, then publish them as one.

    Args:
        inputs: what the output is made from, by content (``StageRef.content_hash``, file hashes).
        config: the stage's own configuration.
        identity: what else the output depends on (model revision, prompt version).
    """

    def __init__(
        self,
        store: Store,
        stage: str,
        version: str,
        *,
        inputs: Sequence[str],
        config: BaseModel,
        identity: Mapping[str, str] | None = None,
    ) -> None:
        self.store, self.stage, self.version = store, stage, version
        self.inputs = tuple(inputs)
        self.config = {**config.model_dump(mode="json"), **{f"@{k}": v for k, v in (identity or {}).items()}}
        self.key = recipe_key([stage, version, SCHEMA_VERSION, list(self.inputs), self.config])
        became = succession_of(store, f"{stage}/{self.key}")
        if became is not None and became.new is not None:  # a takedown published it anew
            self.key = StageRef.parse(became.new).key
        self.prefix = f"{stage}/{self.key}"
        self._attached: dict[int, dict[str, AttachedFile]] = {}
        self._tokens: dict[int, int] = {}  # of the shards this object is writing

    def published(self) -> Manifest | None:
        """Return the manifest of an earlier, finished run of the same recipe, or None."""
        return self._read(Manifest, "manifest.json")

    def committed(self, shard: int) -> ShardCommit | None:
        """Return what ``shard`` holds, or None where no run has finished it."""
        return self._read(ShardCommit, self._marker(shard))

    def _read(self, kind: type[Record], name: str) -> Record | None:
        try:
            return kind.model_validate_json(self.store.get(f"{self.prefix}/{name}"))
        except KeyError:
            return None
        except ValidationError as error:
            raise damaged(self.store, StageRef(self.stage, self.key, ""), name) from error

    @contextmanager
    def writing(self, shard: int, ttl_s: float = DEFAULT_TTL_S) -> Iterator[ShardCommit | None]:
        """Be the only writer of ``shard``; yield its commit if it has one, for then there is no work left.

            with output.writing(shard) as done:
                if done is None:
                    output.commit(shard, compute())

        Waits while another living process writes the shard; one that died on another host is waited for up
        to ``ttl_s`` seconds. Inside, ``attach`` and ``commit`` raise LockLost once another process took the
        shard over.
        """
        with self.store.lock(self._lock_key(shard), ttl_s) as token:
            self._tokens[shard] = token
            try:
                yield self.committed(shard)
            finally:
                del self._tokens[shard]

    def attach(self, name: str, data: bytes | Path, shard: int = 0) -> AttachedFile:
        """Store a file under the stage's prefix; the shard's next ``commit`` makes it part of the output.

        A run killed before that commit attaches again and replaces what it had written.

        Args:
            name: POSIX path below the stage's prefix, such as ``checkpoint/model.safetensors``.
            data: the bytes, or a file that is streamed.

        Raises:
            ValueError: ``name`` leaves the prefix or is one the stage keeps for itself.
            RuntimeError: the shard is committed and does not hold these bytes under this name, or (LockLost)
                another process writes it now.
        """
        digest, size = _digest(data)
        file = AttachedFile(name=name, shard=shard, sha256=digest, bytes=size)
        earlier = self.committed(shard)
        if earlier is not None:
            if file not in earlier.files:
                raise RuntimeError(f"{self.prefix}: shard {shard} is committed without this {name}")
            return file
        self._check_token(shard)
        key = f"{self.prefix}/{name}"
        if isinstance(data, Path):
            self.store.upload(data, key)
        else:
            self.store.put(key, data)
        self._attached.setdefault(shard, {})[name] = file
        return file

    def commit(
        self, shard: int, tables: Mapping[str, pa.Table], counts: Mapping[str, float] | None = None
    ) -> ShardCommit:
        """Write the shard's tables, then the marker that makes them and the attached files count.

        A shard that is committed already stays as it is, and its commit is returned. Outside ``writing`` the
        lock is held for the time of the commit.

        Raises:
            LockLost: another process took the shard over.
            UserError: a clip was taken down since the stage read it; what was attached is removed.
        """
        if shard not in self._tokens:
            with self.writing(shard) as earlier:
                return earlier or self.commit(shard, tables, counts)
        parts = []
        for name in sorted(tables):
            data = table_bytes(tables[name].cast(TABLES[name]))
            digest = hashlib.sha256(data).hexdigest()
            part = Part(table=name, shard=shard, rows=tables[name].num_rows, sha256=digest)
            parts.append((part, data))
        attached = self._attached.get(shard, {})
        self._refuse_taken_down(tables, attached)
        commit = ShardCommit(
            shard=shard,
            parts=tuple(part for part, _ in parts),
            files=tuple(attached[name] for name in sorted(attached)),
            counts=dict(counts or {}),
        )
        marker = canonical_json(commit.model_dump(mode="json"))  # refuses NaN before anything is written
        earlier = self.committed(shard)
        if earlier is not None:
            return earlier
        for part, data in parts:
            self._check_token(shard)
            self.store.put(f"{self.prefix}/{part.path}", data)
        self._check_token(shard)
        if not self.store.put_if_absent(f"{self.prefix}/{self._marker(shard)}", marker):
            earlier = self.committed(shard)
            assert earlier is not None
            return earlier
        return commit

    def _marker(self, shard: int) -> str:
        return f"shards/{shard:05d}.json"

    def _lock_key(self, shard: int) -> str:
        return f"locks/{self.prefix}/{shard:05d}"

    def _check_token(self, shard: int) -> None:
        token = self._tokens.get(shard)
        if token is not None:
            self.store.check_token(self._lock_key(shard), token)

    def _refuse_taken_down(
        self, tables: Mapping[str, pa.Table], attached: Mapping[str, AttachedFile]
    ) -> None:
        if all(rows_taken_down(self.store, table) is None for table in tables.values()):
            return
        for name in attached:
            self.store.delete(f"{self.prefix}/{name}")
        raise UserError(
            "a clip was taken down while this stage worked on it", where=self.prefix, fix="run it again"
        )

    def publish(self, shards: int) -> Manifest:
        """Write the manifest over ``shards`` committed shards.

        Raises:
            RuntimeError: a shard is not committed, or two shards attached one name with other bytes.
        """
        found = {index: self.committed(index) for index in range(shards)}
        commits = [commit for commit in found.values() if commit is not None]
        if len(commits) < shards:
            missing = [index for index, commit in found.items() if commit is None]
            raise RuntimeError(f"{self.prefix}: shards {missing} are not committed")
        parts = tuple(part for commit in commits for part in commit.parts)
        files: dict[str, AttachedFile] = {}
        counts: dict[str, float] = {}
        for commit in commits:
            for name, value in commit.counts.items():
                counts[name] = counts.get(name, 0) + value
            for file in commit.files:  # content-addressed names may come from several shards
                if files.setdefault(file.name, file).sha256 != file.sha256:
                    raise RuntimeError(f"{self.prefix}: two shards attached another {file.name}")
        manifest = Manifest(
            stage=self.stage,
            key=self.key,
            stage_version=self.version,
            schema_version=SCHEMA_VERSION,
            inputs=self.inputs,
            config=self.config,
            parts=parts,
            files=tuple(files[name] for name in sorted(files)),
            counts=counts,
            content_hash=hash_content(parts, files.values()),
        )
        self.store.put(f"{self.prefix}/manifest.json", canonical_json(manifest.model_dump(mode="json")))
        return manifest


def _digest(data: bytes | Path) -> tuple[str, int]:
    """Return the sha256 and the size in bytes of ``data``, reading a file block by block."""
    if isinstance(data, Path):
        with data.open("rb") as reader:
            digest = hashlib.file_digest(reader, "sha256").hexdigest()
            return digest, reader.tell()
    return hashlib.sha256(data).hexdigest(), len(data)


def table_bytes(table: pa.Table) -> bytes:
    """Encode ``table`` as Parquet; equal tables give equal bytes."""
    sink = io.BytesIO()
    pq.write_table(table.combine_chunks(), sink, compression="zstd")
    return sink.getvalue()


def parse_table(data: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """Decode Parquet held in memory; of its columns those named, where any are.

    Without threads: there is nothing to wait for, and a process that ends while Arrow's pool starts is
    aborted. `pyarrow.parquet.read_table` starts the pool whatever it is told.
    """
    return pq.ParquetFile(pa.BufferReader(data)).read(columns, use_threads=False)


def empty_table(name: str) -> pa.Table:
    """Return table ``name`` without rows."""
    return TABLES[name].empty_table()


def table_from_rows(name: str, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Build table ``name`` from dictionaries; a missing or unknown column is an error."""
    schema = TABLES[name]
    for row in rows:
        if set(row) != set(schema.names):
            raise ValueError(
                f"{name}: columns {sorted(set(row) ^ set(schema.names))} do not match the schema"
            )
    return pa.Table.from_pylist([dict(row) for row in rows], schema=schema)


def read_table(
    store: Store,
    ref: StageRef,
    table: str,
    *,
    shard: int | None = None,
    columns: Sequence[str] | None = None,
) -> pa.Table:
    """Read a table of a published output, checking every part's hash.

    Rows of clips that were taken down are left out, but for rejects, which answer for them.

    Args:
        shard: of which the part is read; all where it is None.
        columns: those to decode, in the order of the table; all where it is None.
    """
    manifest = load_manifest(store, ref)
    has_clips = "clip_id" in TABLES[table].names  # which clips a row is of is always needed
    decoded = [*columns, "clip_id"] if columns is not None and has_clips else columns
    pieces = []
    for part in manifest.parts:
        if part.table != table or (shard is not None and part.shard != shard):
            continue
        pieces.append(parse_table(read_verified(store, ref, part.path, part.sha256), decoded))
    whole = pa.concat_tables(pieces) if pieces else empty_table(table)
    if table != "rejects" and (taken := rows_taken_down(store, whole)) is not None:
        whole = whole.filter(pc.invert(taken))
    return whole if columns is None else whole.select([n for n in whole.column_names if n in columns])


def read_file(store: Store, ref: StageRef, name: str) -> bytes:
    """Return an attached file, checked against its hash.

    Raises:
        KeyError: the output holds no file of that name.
        UserError: the output is missing, changed or damaged.
    """
    for file in load_manifest(store, ref).files:
        if file.name == name:
            return read_verified(store, ref, name, file.sha256)
    raise KeyError(f"{ref.prefix}/{name}")


def fetch_files(store: Store, ref: StageRef, target: Path, prefix: str = "") -> list[Path]:
    """Stream the attached files whose name starts with ``prefix`` below the folder ``target``.

    A file keeps its whole name: ``checkpoint/config.json`` lands in ``target/checkpoint/config.json``. One
    that is there with the right hash is left alone; the others appear under their name only once they are
    whole and checked.

    Returns:
        The files' paths, in order of name; empty where no name starts with ``prefix``.

    Raises:
        UserError: the output is missing, changed or damaged.
    """
    paths = []
    for file in load_manifest(store, ref).files:
        if not file.name.startswith(prefix):
            continue
        path = target / file.name
        paths.append(path)
        if path.is_file() and _digest(path)[0] == file.sha256:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".tmp-{os.getpid()}-{path.name}")
        try:
            store.download(f"{ref.prefix}/{file.name}", partial)
            if _digest(partial)[0] != file.sha256:
                raise damaged(store, ref, file.name)
            os.replace(partial, path)
        except KeyError:
            raise damaged(store, ref, file.name) from None
        finally:
            partial.unlink(missing_ok=True)
    return paths


def read_verified(store: Store, ref: StageRef, name: str, sha256: str) -> bytes:
    """Return a piece of a published output. Raises UserError where it is gone or holds other bytes."""
    try:
        data = store.get(f"{ref.prefix}/{name}")
    except KeyError:
        raise damaged(store, ref, name) from None
    if hashlib.sha256(data).hexdigest() != sha256:
        raise damaged(store, ref, name)
    return data
