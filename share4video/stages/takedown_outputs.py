"""Published outputs without the clips that were taken down: published anew, and the old bytes deleted.

A rewritten output has the key that its recipe has with the rewritten inputs, so that a later run of the same
stages finds it. A kill between any two steps is harmless: the new manifest comes first, then the record of
what became of the old output, then the old one is deleted, its manifest first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from share4video.config import DatasetConfig
from share4video.dataset.manifest import (
    AttachedFile,
    Manifest,
    Part,
    ShardCommit,
    canonical_json,
    hash_content,
)
from share4video.dataset.outputs import earlier_of
from share4video.dataset.schema import TABLES
from share4video.dataset.shards import empty_table, parse_table, read_verified, recipe_key, table_bytes
from share4video.dataset.tombstones import Succession, Tombstones, succession_of
from share4video.stages import dataset, probe, released, scan
from share4video.stages.takedown_rows import Without
from share4video.store import Store


class Renamed:
    """What outputs that held a clip are called now, by what they were called."""

    def __init__(self, known: Iterable[Succession]) -> None:
        self.refs: dict[str, str] = {}
        self._inputs: dict[str, str] = {}
        for succession in known:
            self.add(succession)

    def add(self, succession: Succession) -> None:
        if succession.new is not None:
            self.refs[succession.old] = succession.new
            self._inputs |= succession.inputs

    def input(self, text: str) -> str:
        """Return what an input is called now."""
        return _followed(self._inputs, text)

    def setting(self, value: Any) -> Any:
        """Return a setting, as it is now where it names an output."""
        return _followed(self.refs, value) if isinstance(value, str) else value


def _followed(names: Mapping[str, str], name: str) -> str:
    seen = {name}
    while (later := names.get(name)) is not None and later not in seen:
        name = later
        seen.add(name)
    return name


@dataclass
class _Shard:
    """A shard of the new output: what commits it, and its tables."""

    commit: ShardCommit
    tables: dict[str, pa.Table]


def rewrite(store: Store, old: Manifest, stones: Tombstones, renamed: Renamed) -> Succession:
    """Publish ``old`` without the clips of ``stones``; return what became of it. Nothing is deleted.

    Raises:
        UserError: a part of it is damaged or missing.
    """
    inputs, config = _made_from(old, renamed)
    recipe = [old.stage, old.stage_version, old.schema_version, list(inputs), config]
    key = recipe_key(recipe)
    if key == old.key or succession_of(store, f"{old.stage}/{key}") is not None:
        key = recipe_key([*recipe, sorted(stones.by_id)])
    writer = _Writer(store, old, f"{old.stage}/{key}", stones)
    shards = [writer.shard(commit) for commit in _commits(store, old)]
    if (old.stage, old.stage_version) == (released.STAGE, released.VERSION):
        shards = writer.described_import(shards, config)
    elif old.stage == dataset.STAGE and shards:
        shards[-1] = writer.described(shards, config)
    new = writer.published(key, inputs, config, [shard.commit for shard in shards])
    names = {old.content_hash: new.content_hash}
    if old.stage == scan.STAGE:
        after = pa.concat_tables([shard.tables["scans"] for shard in shards])
        names[_recipe(_scans(store, old))] = _recipe(after)
    return Succession(old=str(old.ref), new=str(new.ref), clips=tuple(sorted(stones.by_id)), inputs=names)


def known_by_new_inputs(store: Store, manifest: Manifest, renamed: Renamed) -> Succession | None:
    """Return the record by which a run with rewritten inputs finds an output that none of the clips was in.

    None where no input was rewritten, or there is something by that name.
    """
    inputs, config = _made_from(manifest, renamed)
    if (inputs, config) == (manifest.inputs, manifest.config):
        return None
    key = recipe_key([manifest.stage, manifest.stage_version, manifest.schema_version, list(inputs), config])
    prefix = f"{manifest.stage}/{key}"
    if succession_of(store, prefix) is not None or store.exists(f"{prefix}/manifest.json"):
        return None
    return Succession(old=f"{prefix}@{manifest.content_hash}", new=str(manifest.ref), clips=())


def _made_from(manifest: Manifest, renamed: Renamed) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Return an output's inputs and settings as they are called now."""
    inputs = tuple(renamed.input(name) for name in manifest.inputs)
    return inputs, {name: renamed.setting(value) for name, value in manifest.config.items()}


def delete_output(store: Store, prefix: str) -> None:
    """Delete all of an output; what is left by a kill is an unfinished output, or no output any more."""
    keys = list(store.list(prefix))
    order = sorted(keys, key=lambda key: (not key.endswith("/manifest.json"), "/shards/" not in key))
    for key in order:
        store.delete(key)


def _commits(store: Store, manifest: Manifest) -> list[ShardCommit]:
    keys = store.list(f"{manifest.ref.prefix}/shards")
    return [ShardCommit.model_validate_json(store.get(key)) for key in keys]


def _scans(store: Store, manifest: Manifest) -> pa.Table:
    parts = [part for part in manifest.parts if part.table == "scans"]
    return pa.concat_tables(
        [parse_table(read_verified(store, manifest.ref, part.path, part.sha256)) for part in parts]
    )


def _recipe(scans: pa.Table) -> str:
    return probe.recipe(probe.in_order(scans.to_pylist()))


class _Writer:
    """Writes the new output, shard by shard."""

    def __init__(self, store: Store, old: Manifest, prefix: str, stones: Tombstones) -> None:
        self._store, self._old, self._prefix, self._stones = store, old, prefix, stones

    def shard(self, commit: ShardCommit) -> _Shard:
        """Write a shard's tables and files without the clips."""
        ref, without = self._old.ref, Without(self._stones, self._old.stage)
        data = {part.table: read_verified(self._store, ref, part.path, part.sha256) for part in commit.parts}
        before = {name: parse_table(held) for name, held in data.items()}
        tables = without.tables(before)
        parts = []
        for name in sorted(tables):
            if tables[name] is not before.get(name):
                data[name] = table_bytes(tables[name].cast(TABLES[name]))
            digest = hashlib.sha256(data[name]).hexdigest()
            part = Part(table=name, shard=commit.shard, rows=tables[name].num_rows, sha256=digest)
            self._store.put(f"{self._prefix}/{part.path}", data[name])
            parts.append(part)
        files = []
        for file in commit.files:
            held = read_verified(self._store, ref, file.name, file.sha256)
            if (kept := without.file(file.name, held)) is not None:
                files.append(self._attached(file.name, commit.shard, kept))
        counts = without.removed.counts(commit.counts)
        made = ShardCommit(shard=commit.shard, parts=tuple(parts), files=tuple(files), counts=counts)
        return _Shard(made, tables)

    def _attached(self, name: str, shard: int, data: bytes) -> AttachedFile:
        self._store.put(f"{self._prefix}/{name}", data)
        digest = hashlib.sha256(data).hexdigest()
        return AttachedFile(name=name, shard=shard, sha256=digest, bytes=len(data))

    def described(self, shards: list[_Shard], config: Mapping[str, Any]) -> _Shard:
        """Return a dataset's last shard with the card and the counts of what all shards hold now."""
        held = {
            name: pa.concat_tables([shard.tables.get(name, empty_table(name)) for shard in shards])
            for name in dataset.TABLE_NAMES
        }
        rows = {name: table.to_pylist() for name, table in held.items()}
        last = shards[-1]
        earlier = dataset.earlier_versions(self._store, earlier_of(config))
        settings = DatasetConfig(
            **{name: config[name] for name in DatasetConfig.model_fields if name in config}
        )
        card = dataset.card_of(rows, settings, earlier, last.tables["clips"].num_rows)
        files = self._with_file(last.commit, dataset.CARD_NAME, card)
        commit = last.commit.model_copy(update={"files": files, "counts": dataset.counts_of(rows)})
        return _Shard(commit, last.tables)

    def described_import(self, shards: list[_Shard], config: Mapping[str, Any]) -> list[_Shard]:
        """Return an import's shards with the counts of what they hold now, and its card in the last one."""
        *held, last = shards
        for shard in held:
            counts = {**shard.commit.counts, **released.metrics_of(shard.tables)}
            shard.commit = shard.commit.model_copy(update={"counts": counts})
        totals = released.totals_of(shard.commit.counts for shard in held)
        card = released.card_of(totals, config["@form"], config["title"])
        files = self._with_file(last.commit, released.CARD_NAME, card)
        return [*held, _Shard(last.commit.model_copy(update={"files": files}), last.tables)]

    def _with_file(self, commit: ShardCommit, name: str, data: bytes) -> tuple[AttachedFile, ...]:
        """Return a shard's files with ``data`` as the one of that name."""
        files = [file for file in commit.files if file.name != name]
        files.append(self._attached(name, commit.shard, data))
        return tuple(sorted(files, key=lambda file: file.name))

    def published(
        self, key: str, inputs: tuple[str, ...], config: dict[str, Any], commits: list[ShardCommit]
    ) -> Manifest:
        """Commit the shards and publish them as one."""
        files: dict[str, AttachedFile] = {}
        counts: dict[str, float] = {}
        for commit in commits:
            marker = canonical_json(commit.model_dump(mode="json"))
            self._store.put(f"{self._prefix}/shards/{commit.shard:05d}.json", marker)
            files |= {file.name: file for file in commit.files if file.name not in files}
            for name, value in commit.counts.items():
                counts[name] = counts.get(name, 0) + value
        parts = tuple(part for commit in commits for part in commit.parts)
        manifest = self._old.model_copy(
            update={
                "key": key,
                "inputs": inputs,
                "config": config,
                "parts": parts,
                "files": tuple(files[name] for name in sorted(files)),
                "counts": counts,
                "content_hash": hash_content(parts, files.values()),
            }
        )
        self._store.put(f"{self._prefix}/manifest.json", canonical_json(manifest.model_dump(mode="json")))
        return manifest
