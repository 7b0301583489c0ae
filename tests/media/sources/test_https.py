"""What a list may fetch over https: below an allowed prefix at every hop, and no private address by name."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from share4video.errors import UserError
from share4video.media.sources import clip_file, https, join_sources, list_sources
from tests.certificates import write_certificate
from tests.media.sources.material import contents, sha
from tests.serving.media_host import MP4, MediaHost, media_host


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MediaHost]:
    certificate = write_certificate(tmp_path, "localhost", "127.0.0.1")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    with media_host(tls=tls) as running:
        yield running


def write_list(folder: Path, *uris: str) -> str:
    path = folder / "list.csv"
    path.write_text("\n".join(["uri", *uris]))
    return str(path)


def test_a_file_below_an_allowed_prefix_is_fetched(host: MediaHost, tmp_path: Path) -> None:
    root = f"https://127.0.0.1:{host.port}/"
    url = f"{root}clip.mp4"
    source = join_sources([write_list(tmp_path, url)], [root])
    assert contents(list_sources(source)) == {url: sha(MP4)}
    (row,) = list_sources(source)
    assert row.fingerprint() == f"sha256:{sha(MP4)}"
    with clip_file(source, {"clip_id": "c", "source_uri": url, "content_hash": sha(MP4)}) as path:
        assert path.read_bytes() == MP4


def test_redirects_stay_below_what_was_allowed(host: MediaHost, tmp_path: Path) -> None:
    root = f"https://127.0.0.1:{host.port}"
    uris = {
        f"{root}/to?/clip.mp4": sha(MP4),
        f"{root}/to?https://example.com/clip.mp4": "not_allowed",
        f"{root}/to?http://127.0.0.1:{host.port}/clip.mp4": "not_allowed",
        f"{root}/to?https://169.254.169.254/latest": "not_allowed",
        f"{root}/to?https://[": "not_allowed",
        f"{root}/loop": "unreadable",
    }
    found = contents(list_sources(join_sources([write_list(tmp_path, *uris)], [root])))
    assert {uri: said.partition(":")[0] for uri, said in found.items()} == uris
    before = len(host.seen)
    found = contents(
        list_sources(join_sources([write_list(tmp_path, f"{root}/to?/clip.mp4")], [f"{root}/to"]))
    )
    assert [said.partition(":")[0] for said in found.values()] == ["not_allowed"]
    assert len(host.seen) == before + 1  # where it led was not asked


@pytest.mark.parametrize(
    ("url", "allow"),
    [
        ("https://127.0.0.1:{port}/clip.mp4", []),
        ("https://127.0.0.1:{port}/clip.mp4", ["https://127.0.0.1/"]),
        ("https://127.0.0.1:{port}/clip.mp4", ["https://127.0.0.1:{port}/films/"]),
        ("https://127.0.0.1:{port}/films/../clip.mp4", ["https://127.0.0.1:{port}/films/"]),
        ("https://127.0.0.1:{port}/films/%2e%2e/clip.mp4", ["https://127.0.0.1:{port}/films/"]),
        ("https://me:secret@127.0.0.1:{port}/clip.mp4", ["https://127.0.0.1:{port}/"]),
        ("http://127.0.0.1:{port}/clip.mp4", ["http://127.0.0.1:{port}/"]),
        ("https://localhost:{port}/clip.mp4", ["https://localhost:{port}/"]),  # a name of a private address
    ],
)
def test_what_was_not_allowed_is_not_asked(
    host: MediaHost, tmp_path: Path, url: str, allow: list[str]
) -> None:
    source = write_list(tmp_path, url.format(port=host.port))
    (said,) = contents(
        list_sources(join_sources([source], [prefix.format(port=host.port) for prefix in allow]))
    ).values()
    assert said.startswith("not_allowed")
    assert not host.seen


def test_size_and_answers_are_not_trusted(
    host: MediaHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = f"https://127.0.0.1:{host.port}"
    source = write_list(tmp_path, f"{root}/endless", f"{root}/none.mp4")
    assert {
        uri.removeprefix(root): said
        for uri, said in contents(list_sources(join_sources([source], [root]))).items()
    } == {
        "/endless": "too_large: the file is over the 1048576 bytes allowed",
        "/none.mp4": "unreadable: it cannot be fetched: the host answers with status 404",
    }
    monkeypatch.setattr(https, "TOTAL_S", 0.2)
    (said,) = contents(list_sources(join_sources([write_list(tmp_path, f"{root}/drip")], [root]))).values()
    assert said == "unreadable: it takes longer than 0.2 s to fetch"


def test_a_certificate_that_is_not_trusted(
    host: MediaHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    root = f"https://127.0.0.1:{host.port}"
    (said,) = contents(
        list_sources(join_sources([write_list(tmp_path, f"{root}/clip.mp4")], [root]))
    ).values()
    assert said == "unreadable: it cannot be fetched: ConnectError"


def test_an_address_is_no_source_by_itself(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"on this machine or on S3.*in a list of uris"):
        list_sources("https://example.com/a.mp4")
