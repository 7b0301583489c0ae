"""What a published stage output says of itself: its parts, attached files, counts and content hash."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from share4video.dataset.schema import TABLES
from share4video.dataset.tombstones import succession_of
from share4video.errors import UserError
from share4video.store import Store, check_key

_REF = re.compile(r"([\w-]+)/([\w-]+)@(\w+)", re.ASCII)
RESERVED_NAMES = frozenset({"manifest.json", "shards", *TABLES})


def canonical_json(value: Any) -> bytes:
    """Serialise ``value`` so that equal values give equal bytes; NaN is refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


@dataclass(frozen=True)
class StageRef:
    """A published stage output: its place in the store, and the hash of what it holds."""

    stage: str
    key: str
    content_hash: str

    @property
    def prefix(self) -> str:
        return f"{self.stage}/{self.key}"

    def __str__(self) -> str:
        return f"{self.prefix}@{self.content_hash}"

    @classmethod
    def parse(cls, text: str) -> StageRef:
        """Read ``stage/key@hash``. Raises UserError where the text has another form."""
        match = _REF.fullmatch(text)
        if match is None:
            raise UserError(
                "not a stage output", where=text, fix="give STAGE/KEY@HASH as the stage printed it"
            )
        return cls(*match.groups())


class Part(BaseModel):
    """One shard of one table."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    table: str
    shard: int
    rows: int
    sha256: str

    @property
    def path(self) -> str:
        return f"{self.table}/part-{self.shard:05d}.parquet"


class AttachedFile(BaseModel):
    """A file a stage published beside its tables; ``name`` is its POSIX path below the stage's prefix."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    shard: int
    sha256: str
    bytes: int = Field(ge=0)

    @field_validator("name")
    @classmethod
    def _is_free(cls, name: str) -> str:
        if check_key(name).partition("/")[0] in RESERVED_NAMES:
            raise ValueError(f"kept for the stage's own files: {name!r}")
        return name


class ShardCommit(BaseModel):
    """What a finished shard holds; ``counts`` add up over shards."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    shard: int
    parts: tuple[Part, ...]
    files: tuple[AttachedFile, ...] = ()
    counts: dict[str, float]


class Manifest(BaseModel):
    """What a published stage output holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    stage: str
    key: str
    stage_version: str
    schema_version: str
    inputs: tuple[str, ...]
    config: dict[str, Any]
    parts: tuple[Part, ...]
    files: tuple[AttachedFile, ...] = ()
    counts: dict[str, float]
    content_hash: str

    @property
    def ref(self) -> StageRef:
        return StageRef(self.stage, self.key, self.content_hash)

    def rows(self, table: str) -> int:
        """Return how many rows of ``table`` the output holds."""
        return sum(part.rows for part in self.parts if part.table == table)


def hash_content(parts: Iterable[Part], files: Iterable[AttachedFile]) -> str:
    """Hash what an output holds: its parts in order of shard and table, and its files by name."""
    tables = [[part.table, part.shard, part.sha256] for part in parts]
    attached = sorted([file.name, file.sha256] for file in files)
    return hashlib.sha256(canonical_json([tables, attached])).hexdigest()


def load_manifest(store: Store, ref: StageRef) -> Manifest:
    """Return the manifest of ``ref``. Raises UserError where it is missing, damaged or of another content."""
    try:
        manifest = Manifest.model_validate_json(store.get(f"{ref.prefix}/manifest.json"))
    except KeyError:
        raise _missing(store, ref) from None
    except ValidationError as error:
        raise damaged(store, ref, "manifest.json") from error
    if manifest.content_hash != ref.content_hash:
        raise UserError("the output changed since it was named", where=str(ref), fix=f"use {manifest.ref}")
    if hash_content(manifest.parts, manifest.files) != manifest.content_hash:
        raise damaged(store, ref, "manifest.json")
    return manifest


def manifest_keys(store: Store, stage: str = "") -> Iterator[str]:
    """Yield the keys of the manifests of a stage's published outputs, of all stages without one."""
    return (key for key in store.list(stage) if key.endswith("/manifest.json") and key.count("/") == 2)


def published_refs(store: Store, stage: str) -> list[StageRef]:
    """Return a stage's published outputs, in order of key.

    Raises:
        UserError: a manifest is damaged.
    """
    refs = []
    for key in manifest_keys(store, stage):
        try:
            refs.append(Manifest.model_validate_json(store.get(key)).ref)
        except ValidationError as error:
            raise damaged(store, StageRef(stage, key.split("/")[1], ""), "manifest.json") from error
    return refs


def _missing(store: Store, ref: StageRef) -> UserError:
    """Return the error for an output that is not there; a takedown may have replaced it."""
    became = succession_of(store, ref.prefix)
    if became is not None:
        fix = f"use {became.new}" if became.new else f"run the {ref.stage} stage again"
        return UserError(
            "clips were taken down, and this output of theirs with them", where=str(ref), fix=fix
        )
    return UserError(
        "no published output", where=store.url(ref.prefix), fix=f"run the {ref.stage} stage first"
    )


def damaged(store: Store, ref: StageRef, name: str) -> UserError:
    """Return the error for a piece of a published output that is gone or holds other bytes."""
    return UserError(
        "a part of the output is damaged or missing",
        where=store.url(f"{ref.prefix}/{name}"),
        fix=f"delete {store.url(ref.prefix)} and run the {ref.stage} stage again",
    )
