"""A clip's file is the one that was probed, or the run says so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from share4video.errors import UserError
from share4video.media.limits import MediaError
from share4video.media.probe import content_hash
from share4video.media.sources import clip_file, join_sources, list_sources


def row(path: Path, uri: str) -> dict[str, Any]:
    return {"clip_id": "abc", "source_uri": uri, "content_hash": content_hash(path)}


def path_of(source: Path | str, clip: dict[str, Any]) -> Path:
    with clip_file(source, clip) as path:
        return path


@pytest.fixture
def film(tmp_path: Path) -> Path:
    path = tmp_path / "films" / "one.mp4"
    path.parent.mkdir()
    path.write_bytes(b"what was probed")
    return path


def test_a_file_that_is_as_it_was_is_found(film: Path) -> None:
    clip = row(film, "one.mp4")
    assert path_of(str(film.parent), clip) == film
    assert path_of(film, clip) == film  # the source is this one file
    elsewhere = film.parent.parent / "moved"
    film.parent.rename(elsewhere)
    assert path_of(elsewhere, clip) == elsewhere / "one.mp4"


@pytest.mark.parametrize("other", [b"what was PROBED", b"longer than what was probed", b""])
def test_a_file_that_was_replaced_is_noticed_also_after_it_was_seen(film: Path, other: bytes) -> None:
    clip = row(film, "one.mp4")
    path_of(film.parent, clip)
    replacement = film.with_name("new.mp4")
    replacement.write_bytes(other)
    replacement.replace(film)
    with pytest.raises(UserError, match="clip abc as it was probed, the file of this name holds") as caught:
        path_of(film.parent, clip)
    assert caught.value.where == str(film)


def test_a_file_that_cannot_be_read_is_not_a_fault_of_the_clip(film: Path, tmp_path: Path) -> None:
    clip = row(film, "one.mp4")
    (tmp_path / "folders" / "one.mp4").mkdir(parents=True)
    for source, why in ((tmp_path / "none", "No such file"), (tmp_path / "folders", "not a regular file")):
        with pytest.raises(UserError, match=f"as it was probed, .*{why}"):
            path_of(source, clip)


def test_a_name_that_leads_out_is_a_fault_of_the_table(film: Path, tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    for uri in ("../films/one.mp4", str(film), "s3://bucket/one.mp4", "a/../../films/one.mp4"):
        for source in (tmp_path / "inner", film, join_sources([str(tmp_path / "inner"), str(film)])):
            with pytest.raises(MediaError) as caught:
                path_of(source, row(film, uri))
            assert caught.value.reason == "not_allowed"


def test_a_source_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    long = str(tmp_path / ("x" * 300))
    with pytest.raises(UserError, match="cannot read the source: File name too long") as caught:
        list_sources(long)
    assert caught.value.where == long
    with pytest.raises(UserError, match="cannot read the source: File name too long"):
        path_of(long, {"clip_id": "abc", "source_uri": "one.mp4", "content_hash": ""})


def test_of_several_sources_the_first_step_names_the_one(film: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "one.mp4").write_bytes(b"another film of the same name")
    source = join_sources([str(film.parent), str(other)])
    assert path_of(source, row(film, "films/one.mp4")) == film
    with pytest.raises(UserError, match="holds something else"):
        path_of(source, row(film, "other/one.mp4"))
    with pytest.raises(UserError, match="clip abc as it was probed, no source is called 'elsewhere'"):
        path_of(source, row(film, "elsewhere/one.mp4"))


def test_a_clip_of_a_run_with_one_source_is_found_among_several_by_its_bytes(
    film: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    (other / "films").mkdir(parents=True)
    (other / "one.mp4").write_bytes(b"another film of the same name")
    (other / "two.mp4").write_bytes(b"what was added later")
    (other / "films" / "one.mp4").write_bytes(b"below a folder that is called like a source")
    for order in ([film.parent, other], [other, film.parent]):
        source = join_sources([str(place) for place in order])
        assert path_of(source, row(film, "one.mp4")) == film
        for uri in ("one.mp4", "two.mp4", "films/one.mp4"):
            assert path_of(source, row(other / uri, uri)) == other / uri
        changed = {**row(film, "one.mp4"), "content_hash": "0" * 64}
        with pytest.raises(UserError, match=r"probed, no source is called 'one\.mp4'"):
            path_of(source, changed)


LISTING_OF_NOBODY = """
import os, sys
from share4video.errors import UserError
from share4video.media.sources import list_sources
if os.getuid() == 0:
    os.setuid(65534)
try:
    list_sources(sys.argv[1])
except UserError as error:
    print(error.sentence())
"""


@pytest.mark.parametrize(
    ("locked", "mode"),
    [
        ("closed", 0o000),  # nothing below it can be asked about
        ("closed/films", 0o000),  # it cannot be listed
        ("closed/films", 0o444),  # it can be listed, but its files cannot be asked about
    ],
)
def test_a_folder_without_permission_is_one_sentence(tmp_path: Path, locked: str, mode: int) -> None:
    films = tmp_path / "open" / "closed" / "films"
    films.mkdir(parents=True)
    (films / "one.mp4").touch()
    (tmp_path / "open").chmod(0o755)  # the child starts here: what lies above does not matter to it
    (tmp_path / "open" / locked).chmod(mode)
    try:
        said = subprocess.run(
            [sys.executable, "-c", LISTING_OF_NOBODY, "closed/films"],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
            cwd=tmp_path / "open",
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    finally:
        (tmp_path / "open" / locked).chmod(0o755)
    assert said.startswith("cannot read the source: Permission denied (closed/films")
