"""Which files may run: an allow-list of SHA-256 hashes, given by whoever read them.

The weights come with Python files that transformers runs (``trust_remote_code``), which everywhere else in
share4video is off. Here it is on for folders of this machine whose every file is on the list, and for nothing
else: no name on a hub, no file that is not listed, none that differs by a byte.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from share4video.errors import UserError, reading

MAX_LIST_BYTES = 1 << 20
MAX_FILES = 10_000
PICKLES = frozenset({".bin", ".pt", ".pth", ".pkl", ".ckpt"})
_LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")
_REMADE = "read what has changed, and make the list again with python -m serving.legacy_captioner list"


def hashes_of(
    folders: Mapping[str, Path],
    progress: Callable[[str], None] = lambda name: None,
    *,
    allow_pickle: bool = False,
) -> dict[str, str]:
    """Return the SHA-256 of every file in ``folders``, by ``<name of the folder>/<path in it>``.

    Args:
        progress: called with each file's name before it is read; weights are gigabytes.
        allow_pickle: take files of a kind that can run code when it is loaded, which nobody can read.

    Raises:
        UserError: there is no such folder, a link leads out of it, a file cannot be read, or is a pickle.
    """
    found = {}
    for name, folder in folders.items():
        if not folder.is_dir():
            raise UserError(
                "no such folder",
                where=str(folder),
                fix="give a folder of this machine; names on a hub are not taken",
            )
        for path in _files(folder):
            told = f"{name}/{path.relative_to(folder).as_posix()}"
            if path.suffix.lower() in PICKLES and not allow_pickle:
                raise UserError(
                    "a pickle can run code when it is loaded",
                    where=told,
                    fix="convert it to safetensors (serving/legacy_captioner/README.md) or delete it; "
                    "--allow-pickle takes it, where you trust whoever made it",
                )
            progress(told)
            with reading("a file of the model", path), path.open("rb") as stream:
                found[told] = _sha256(stream)
            if len(found) > MAX_FILES:
                raise UserError("too many files", where=str(folder), fix="name the model's own folder")
    return found


def write_cache_version(hub: Path) -> None:
    """Write the file that transformers writes into a hub cache when it is imported and finds none.

    Else it would come to the folder after its files were listed. Where the folder cannot be written,
    transformers cannot write it either.
    """
    version = hub / "version.txt"
    if hub.is_dir() and not version.exists():
        with contextlib.suppress(OSError):
            version.write_text("1")  # of the cache's layout, of which there is no later one


def _sha256(stream: BinaryIO) -> str:
    digest = hashlib.sha256()  # hashlib.file_digest is not there yet in Python 3.10
    while block := stream.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    root = folder.resolve()
    for place, folders, names in os.walk(folder, followlinks=False):
        for name in sorted(folders):
            if (Path(place) / name).is_symlink():
                raise UserError("a folder is a link", where=f"{place}/{name}", fix="copy it instead")
        folders.sort()
        for name in sorted(names):
            path = Path(place) / name
            if not path.resolve().is_relative_to(root):
                raise UserError("a link leads out of the folder", where=str(path), fix="copy the file")
            if path.is_file():
                yield path


def read_list(file: Path) -> dict[str, str]:
    """Read an allow-list, lines as sha256sum writes them.

    Raises:
        UserError: it is missing, too long or empty, or a line is not one.
    """
    with reading("the allow-list", file):
        if file.stat().st_size > MAX_LIST_BYTES:
            raise UserError("the allow-list is too long", where=str(file), fix="list the model's files alone")
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    listed = {}
    for number, line in enumerate(lines, 1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise UserError(
                "not a line of an allow-list",
                where=f"{file}, line {number}",
                fix="write HASH, two blanks, NAME",
            )
        listed[match.group(2)] = match.group(1)
    if not listed:
        raise UserError("the allow-list is empty", where=str(file), fix=_REMADE)
    return listed


def require_trusted(found: Mapping[str, str], listed: Mapping[str, str]) -> None:
    """Check that the files there are exactly those that are listed.

    Raises:
        UserError: naming the first that is not listed, differs, or is missing.
    """
    for name, digest in found.items():
        if name not in listed:
            raise UserError("a file is not on the allow-list", where=name, fix=_REMADE)
        if listed[name] != digest:
            raise UserError("a file is not the one on the allow-list", where=name, fix=_REMADE)
    missing = sorted(set(listed) - set(found))
    if missing:
        raise UserError("a file of the allow-list is missing", where=missing[0], fix="copy the model again")


def require_own_code(folder: Path) -> None:
    """Check that the model's configuration names no code of another repository (``NAME--module.Class``).

    Raises:
        UserError: it does, or it is not JSON.
    """
    for name in ("config.json", "tokenizer_config.json"):
        file = folder / name
        with reading("the model's configuration", file):
            text = file.read_text(encoding="utf-8", errors="replace")
        try:
            fields = json.loads(text)
        except ValueError as error:
            raise UserError(f"{name} is not JSON", where=str(file), fix="copy the model again") from error
        if "--" in json.dumps(fields.get("auto_map", {}) if isinstance(fields, dict) else {}):
            raise UserError(
                "the configuration names code of another repository",
                where=str(file),
                fix="copy that code into the folder and take what stands before -- out of auto_map",
            )
