"""All rows of one or several sources, in an order that depends on their names alone."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from share4video.errors import UserError, reading
from share4video.media.sources.archive import is_archive_name
from share4video.media.sources.listed import ListSource
from share4video.media.sources.lists import is_list_name
from share4video.media.sources.place import LocalFile, Place
from share4video.media.sources.row import SourceFile
from share4video.media.sources.source import ArchiveSource, Source, local_source
from share4video.media.sources.spec import ZIP_FOLDER, base_name, join_sources, parse_sources
from share4video.media.sources.tree import Folder, Tree


def list_sources(
    source: str,
    *,
    limit: int | None = None,
    shard: tuple[int, int] | None = None,
) -> list[SourceFile]:
    """Return the rows of the sources in ``source``, sorted by uri.

    With one source a uri is relative to it; with several it begins with the source's base name. Rows of one
    uri are told apart by their ``occurrence``, counted in the order of what the lists say of them.

    Args:
        source: one source or several, as `spec.join_sources` writes them.
        limit: take this many rows, the first by uri.
        shard: (i, n): of those take the ones whose uri's hash falls to part i of n, from 1.

    Raises:
        UserError: a source is missing, cannot be read, holds nothing or is not what its name says, two
            sources have one base name, or no row falls to the shard.
    """
    spec = parse_sources(source)
    rows: list[SourceFile] = []
    for name in spec.sources:
        rows += open_source(source, name).rows()
    rows.sort(key=lambda row: (row.uri, row.source_id or "", row.licence or "", row.metadata or ""))
    seen: Counter[str] = Counter()
    for number, row in enumerate(rows):
        if seen[row.uri]:
            rows[number] = replace(row, occurrence=seen[row.uri])
        seen[row.uri] += 1
    chosen = rows[:limit]
    if shard is not None:
        chosen = [row for row in chosen if part_of(row.uri, shard[1]) == shard[0]]
        if not chosen:
            raise UserError(
                f"none of the {len(rows[:limit])} rows falls to shard {shard[0]}/{shard[1]}",
                where=", ".join(spec.sources.values()),
                fix="take fewer shards",
            )
    return chosen


def possible_sources(source: str, uri: str) -> Iterator[Source]:
    """Yield the sources that a row's uri may belong to, the likeliest first.

    Of several sources that is the one the uri begins with. Then comes each as if it were the only one: a
    dataset that grew holds uris of runs that had one source each, and those begin with no name.

    Raises:
        UserError: the sources cannot be told apart or read.
    """
    spec = parse_sources(source)
    if len(spec.sources) > 1 and uri.partition("/")[0] in spec.sources:
        yield open_source(source, uri.partition("/")[0])
    for place in spec.sources.values():
        alone = join_sources([place], spec.allow)
        yield open_source(alone, base_name(place))


def open_source(source: str, name: str) -> Source:
    """Return the source called ``name`` by what it is: by its address, its suffix and what lies there."""
    spec = parse_sources(source)
    address, _, zips = spec.sources[name].partition(ZIP_FOLDER)
    prefix = "" if len(spec.sources) == 1 else f"{name}/"
    remote = address.startswith("s3://")
    if "://" in address and not remote:
        raise UserError(
            "a source is on this machine or on S3", where=address, fix="name its address in a list of uris"
        )
    if is_list_name(address) and (remote or _is_file(address)):
        archives = _tree(zips) if zips else None
        return ListSource(base_name(address), _place(address), prefix, spec.allow, archives)
    if zips:
        raise UserError("only a jsonl has a zip_folder", where=spec.sources[name], fix="leave it out")
    if is_archive_name(address) and (remote or _is_file(address)):
        return ArchiveSource(base_name(address), _place(address))
    if remote:
        from share4video.media.sources.s3 import S3Source

        return S3Source(address, name, prefix)
    return local_source(address, prefix)


def _place(address: str) -> Place:
    if not address.startswith("s3://"):
        return LocalFile(Path(address))
    from share4video.media.sources.s3 import S3Object, split_address

    return S3Object(*split_address(address))


def _tree(address: str) -> Tree:
    if not address.startswith("s3://"):
        return Folder(Path(address))
    from share4video.media.sources.s3 import S3Tree, split_address

    bucket, prefix = split_address(address)
    return S3Tree(bucket, f"{prefix.rstrip('/')}/" if prefix.rstrip("/") else "")


def _is_file(path: str) -> bool:
    with reading("the source", path):
        return Path(path).is_file()


def part_of(uri: str, parts: int) -> int:
    """Return which of ``parts`` parts a row falls to, from 1: by its name, so that it stays there."""
    return int.from_bytes(hashlib.sha256(uri.encode()).digest()[:8]) % parts + 1
