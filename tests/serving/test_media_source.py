"""Media enters by one door: what it lets in, and everything it keeps out, against real servers and files."""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import os
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.gateway.addresses import host_allowed, system_resolver
from serving.gateway.disk import DiskBudget
from serving.gateway.media_source import Kind, MediaSource
from serving.gateway.refusal import Refusal
from serving.gateway.remote import Remote
from serving.gateway.settings import GatewaySettings
from share4video.media.addresses import address_allowed
from share4video.store import Store
from tests.certificates import write_certificate
from tests.serving.media_host import MP4, MediaHost, media_host

LOOPBACK = (ipaddress.ip_network("127.0.0.1/32"),)
PNG = b"\x89PNG\r\n\x1a\n" + bytes(64)


@pytest.fixture(scope="module")
def host() -> Iterator[MediaHost]:
    with media_host() as running:
        yield running


def source(host: MediaHost | None = None, **changes: object) -> MediaSource:
    """A source that may read from ``host`` (and, like a misled list, from a name that is private)."""
    port = host.port if host else 80
    remote: dict[str, object] = {
        "allowed_hosts": (f"127.0.0.1:{port}", f"127.0.0.2:{port}", f"clips.test:{port}"),
        "networks": LOOPBACK,
        "timeout_s": 5.0,
        "resolve": system_resolver,
    }
    remote.update({name: changes.pop(name) for name in tuple(changes) if name in remote})
    limits: dict[str, object] = {
        "file_root": None,
        "s3_prefixes": (),
        "max_bytes": {"video": 1 << 20, "image": 1 << 20},
        **changes,
    }
    return MediaSource(remote=Remote(**remote), **limits)  # type: ignore[arg-type]


def fetch(media: MediaSource, address: str, kind: Kind = "video") -> bytes:
    async def read() -> bytes:
        async with media.open(address, kind) as path:
            return path.read_bytes()

    return asyncio.run(read())


def refused(media: MediaSource, address: str, kind: Kind = "video") -> Refusal:
    with pytest.raises(Refusal) as refusal:
        fetch(media, address, kind)
    assert 400 <= refusal.value.status < 500
    assert refusal.value.sentence.endswith(".")
    return refusal.value


def test_fetches_from_an_allowed_host(host: MediaHost) -> None:
    assert fetch(source(host), f"http://127.0.0.1:{host.port}/clip.mp4") == MP4
    path, headers = host.seen[-1]
    assert path == "/clip.mp4"
    assert headers["Host"] == f"127.0.0.1:{host.port}"
    assert headers["Accept-Encoding"] == "identity"


def test_follows_a_redirect_to_an_allowed_host(host: MediaHost) -> None:
    assert fetch(source(host), f"http://127.0.0.1:{host.port}/to?/clip.mp4") == MP4


@pytest.mark.parametrize(
    ("address", "status", "code"),
    [
        ("http://127.0.0.2:{port}/clip.mp4", 403, "media_private"),
        ("http://elsewhere.test/clip.mp4", 403, "media_host"),
        ("http://127.0.0.1/clip.mp4", 403, "media_host"),  # another port of an allowed host
        ("http://user:secret@127.0.0.1:{port}/clip.mp4", 400, "media_credentials"),
        ("http://127.0.0.1:{port}/to?http://127.0.0.2:{port}/clip.mp4", 403, "media_private"),
        ("http://127.0.0.1:{port}/to?http://169.254.169.254/latest/meta-data", 403, "media_host"),
        ("http://127.0.0.1:{port}/to?file:///etc/passwd", 400, "media_scheme"),
        ("http://127.0.0.1:{port}/loop", 403, "media_redirect"),
        ("http://127.0.0.1:{port}/page", 415, "media_type"),
        ("http://127.0.0.1:{port}/page.mp4", 415, "media_type"),  # a playlist under a video's name
        ("http://127.0.0.1:{port}/gzip", 415, "media_type"),
        ("http://127.0.0.1:{port}/missing", 422, "media_unreachable"),
        ("http://127.0.0.1:{port}/announced", 413, "media_too_big"),
        ("http://127.0.0.1:{port}/endless", 413, "media_too_big"),
        ("http://", 400, "media_scheme"),
        ("http://[", 403, "media_host"),
        ("http://127.0.0.1:{port}/to?http://0177.0.0.1/", 422, "media_unreachable"),
        ("ftp://127.0.0.1/clip.mp4", 400, "media_scheme"),
        ("/etc/passwd", 400, "media_scheme"),
        ("http://127.0.0.1:{port}/" + "a" * 9000, 400, "media_address"),
    ],
)
def test_refuses(host: MediaHost, address: str, status: int, code: str) -> None:
    refusal = refused(source(host), address.format(port=host.port))
    assert (refusal.status, refusal.code) == (status, code)


def test_gives_up_on_a_stream_that_never_ends(host: MediaHost) -> None:
    started = time.monotonic()
    refusal = refused(source(host, timeout_s=0.5), f"http://127.0.0.1:{host.port}/drip")
    assert refusal.code == "media_timeout"
    assert time.monotonic() - started < 3


def test_a_name_that_changes_its_address_is_resolved_once(host: MediaHost) -> None:
    answers = [["127.0.0.1"], ["127.0.0.2"]]

    async def rebinding(name: str, port: int) -> list[str]:
        return answers.pop(0)

    assert fetch(source(host, resolve=rebinding), f"http://clips.test:{host.port}/clip.mp4") == MP4
    assert answers == [["127.0.0.2"]]
    assert host.seen[-1][1]["Host"] == f"clips.test:{host.port}"


def test_a_redirect_back_to_a_name_that_changed_its_address_is_refused(host: MediaHost) -> None:
    answers = [["127.0.0.1"], ["127.0.0.2"]]

    async def rebinding(name: str, port: int) -> list[str]:
        return answers.pop(0)

    own = f"http://clips.test:{host.port}"
    assert refused(source(host, resolve=rebinding), f"{own}/to?{own}/clip.mp4").code == "media_private"
    assert answers == []


@pytest.mark.parametrize(
    "address", ["10.0.0.7", "::ffff:10.0.0.7", "::ffff:127.0.0.2", "64:ff9b::a00:7", "fe80::1%eth0", "::"]
)
def test_a_name_of_a_private_address_is_refused(host: MediaHost, address: str) -> None:
    async def private(name: str, port: int) -> list[str]:
        return [address]

    refusal = refused(source(host, resolve=private), f"http://clips.test:{host.port}/clip.mp4")
    assert (refusal.status, refusal.code) == (403, "media_private")


@pytest.mark.parametrize(
    "name",
    ["2130706434", "0x7f000002", "0177.0.0.2", "127.2", "[::ffff:127.0.0.2]", "①27.0.0.2", "127。0。0。2"],
)
def test_other_ways_to_write_an_address_gain_nothing(host: MediaHost, name: str) -> None:
    listed = tuple(f"{name}:{host.port}" for name in ("2130706434", "0x7f000002", "0177.0.0.2", "127.2"))
    media = source(host, allowed_hosts=(*listed, f"127.0.0.2:{host.port}"))
    before = len(host.seen)
    assert refused(media, f"http://{name}:{host.port}/clip.mp4").status in (400, 403)
    assert len(host.seen) == before


def test_names_beyond_ascii_are_known_by_their_ascii_form(host: MediaHost) -> None:
    asked = []

    async def here(name: str, port: int) -> list[str]:
        asked.append(name)
        return ["127.0.0.1"]

    media = source(host, resolve=here, allowed_hosts=(f"xn--bcher-kva.test:{host.port}",))
    assert fetch(media, f"http://bücher.test:{host.port}/clip.mp4") == MP4
    assert asked == ["xn--bcher-kva.test"]
    assert host.seen[-1][1]["Host"] == f"xn--bcher-kva.test:{host.port}"


def test_every_address_of_a_name_must_be_allowed(host: MediaHost) -> None:
    async def mixed(name: str, port: int) -> list[str]:
        return ["127.0.0.1", "10.0.0.7"]

    refusal = refused(source(host, resolve=mixed), f"http://clips.test:{host.port}/clip.mp4")
    assert refusal.code == "media_private"


def test_certificates_are_checked_for_the_name_not_the_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = write_certificate(tmp_path, "clips.test")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)

    async def here(name: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    with media_host(tls=tls) as host:
        names = (f"clips.test:{host.port}", f"other.test:{host.port}")
        media = source(host, resolve=here, allowed_hosts=names)
        assert fetch(media, f"https://clips.test:{host.port}/clip.mp4") == MP4
        assert refused(media, f"https://other.test:{host.port}/clip.mp4").code == "media_unreachable"
        downgrade = f"https://clips.test:{host.port}/to?http://clips.test:{host.port}/clip.mp4"
        assert refused(media, downgrade).code == "media_redirect"


def test_data_addresses() -> None:
    def data(kind: str, body: bytes) -> str:
        return f"data:{kind};base64,{base64.b64encode(body).decode()}"

    assert fetch(source(), data("video/mp4", MP4)) == MP4
    assert fetch(source(), data("application/octet-stream", MP4)) == MP4
    assert fetch(source(), data("image/png", PNG), "image") == PNG
    assert refused(source(), data("text/html", MP4)).code == "media_type"
    assert refused(source(), data("video/mp4", b"#EXTM3U")).code == "media_type"
    assert refused(source(), data("image/png", MP4), "image").code == "media_type"
    assert refused(source(), "data:video/mp4;base64,AAA!").code == "media_address"
    assert refused(source(), "data:video/mp4,plain").code == "media_address"
    small = source(max_bytes={"video": 100, "image": 100})
    assert refused(small, data("video/mp4", MP4)).status == 413


def test_files_stay_inside_their_root(tmp_path: Path) -> None:
    root, outside = tmp_path / "clips", tmp_path / "secret.mp4"
    (root / "sub dir").mkdir(parents=True)
    inside = root / "sub dir" / "clip.mp4"
    inside.write_bytes(MP4)
    outside.write_bytes(MP4)
    (root / "link.mp4").symlink_to(outside)
    (root / "inner.mp4").symlink_to(inside)
    os.mkfifo(root / "pipe.mp4")
    media = source(file_root=root)
    assert fetch(media, inside.as_uri()) == MP4
    assert fetch(media, f"file://localhost{root}/inner.mp4") == MP4
    assert inside.exists()
    for escape in (
        "link.mp4",
        "../secret.mp4",
        "%2e%2e/secret.mp4",
        "pipe.mp4",
        "sub%20dir",
        "none",
        "a%00b",
    ):
        assert refused(media, f"file://{root}/{escape}").status == 403
    assert refused(media, f"file://elsewhere{inside}").status == 400
    assert refused(source(file_root=None), inside.as_uri()).status == 403
    tiny = source(file_root=root, max_bytes={"video": 10, "image": 10})
    assert refused(tiny, inside.as_uri()).status == 413


def test_objects_below_the_named_prefixes(s3_store: Store) -> None:
    s3_store.put("clips/a.mp4", MP4)
    s3_store.put("private/b.mp4", MP4)
    prefix = s3_store.url("clips") + "/"
    media = source(s3_prefixes=(prefix,))
    assert fetch(media, s3_store.url("clips/a.mp4")) == MP4
    assert refused(media, s3_store.url("clips/none.mp4")).status == 422
    assert refused(media, s3_store.url("private/b.mp4")).code == "media_store"
    assert refused(media, f"{prefix}../private/b.mp4").code == "media_address"
    assert refused(media, s3_store.url("clips-of-others/a.mp4")).code == "media_store"
    small = source(s3_prefixes=(prefix,), max_bytes={"video": 10, "image": 10})
    assert refused(small, s3_store.url("clips/a.mp4")).status == 413


def test_objects_with_odd_names(s3_store: Store) -> None:
    media = source(s3_prefixes=(s3_store.url("clips") + "/",))
    for name in ("a clip+1 (2).mp4", "ü/ß.mp4", "%2e%2e.mp4", "a?b#c&d=e.mp4", "x:y@z.mp4"):
        s3_store.put(f"clips/{name}", MP4 + name.encode())
        assert fetch(media, s3_store.url("clips") + f"/{name}") == MP4 + name.encode()


def test_a_store_that_fails_is_not_the_callers_fault(
    s3_store: Store, s3_environment: pytest.MonkeyPatch
) -> None:
    s3_store.put("clips/a.mp4", MP4)
    media = source(s3_prefixes=("s3://no-such-bucket/clips/", s3_store.url("clips") + "/"))
    assert refused(media, "s3://no-such-bucket/clips/a.mp4").code == "media_unreachable"
    s3_environment.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(Refusal, match="cannot be read") as failed:
        fetch(media, s3_store.url("clips/a.mp4"))
    assert (failed.value.status, failed.value.code) == (502, "store_failed")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        s3_environment.delenv(name)
    with pytest.raises(Refusal) as failed:
        fetch(media, s3_store.url("clips/a.mp4"))
    assert failed.value.code == "store_failed"
    assert "AWS" not in failed.value.sentence


@pytest.mark.parametrize("authorities", ["none.pem", "empty.pem", "."])
def test_authorities_that_cannot_be_read_are_not_the_callers_fault(
    s3_store: Store, s3_environment: pytest.MonkeyPatch, tmp_path: Path, authorities: str
) -> None:
    (tmp_path / "empty.pem").write_text("")
    s3_environment.setenv("AWS_CA_BUNDLE", str(tmp_path / authorities))
    with pytest.raises(Refusal) as failed:
        fetch(source(s3_prefixes=(s3_store.url("clips") + "/",)), s3_store.url("clips/a.mp4"))
    assert (failed.value.status, failed.value.code) == (502, "store_failed")
    assert "pem" not in failed.value.sentence


def test_an_address_of_a_store_that_is_none_is_not_the_callers_fault(
    s3_store: Store, s3_environment: pytest.MonkeyPatch
) -> None:
    s3_environment.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:999999")
    with pytest.raises(Refusal) as failed:
        fetch(source(s3_prefixes=(s3_store.url("clips") + "/",)), s3_store.url("clips/a.mp4"))
    assert (failed.value.status, failed.value.code) == (502, "store_failed")


@pytest.mark.parametrize("how", ["http", "data", "s3"])
def test_the_media_of_all_requests_share_the_disk(host: MediaHost, s3_store: Store, how: str) -> None:
    s3_store.put("clips/a.mp4", MP4)
    addresses = {
        "http": f"http://127.0.0.1:{host.port}/clip.mp4",
        "data": "data:video/mp4;base64," + base64.b64encode(MP4).decode(),
        "s3": s3_store.url("clips/a.mp4"),
    }
    media = source(
        host, s3_prefixes=(s3_store.url("clips") + "/",), disk=DiskBudget(len(MP4) * 2 + len(MP4) // 2)
    )

    async def held() -> None:
        async with media.open(addresses[how], "video"), media.open(addresses["data"], "video"):
            with pytest.raises(Refusal, match="holds all the media") as refusal:
                async with media.open(addresses[how], "video"):
                    pass
        assert (refusal.value.status, refusal.value.code) == (429, "busy")

    asyncio.run(held())
    asyncio.run(held())  # what was held, and what was refused on the way, counts no more
    assert fetch(media, addresses[how]) == MP4


def test_one_clip_fits_on_the_disk() -> None:
    with pytest.raises(ValueError, match="max_downloaded_bytes is less than what one clip"):
        GatewaySettings(upstream_url="http://127.0.0.1:1/v1", max_downloaded_bytes=1 << 20)


def test_nothing_is_left_behind(host: MediaHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    fetch(source(host), f"http://127.0.0.1:{host.port}/clip.mp4")
    refused(source(host), f"http://127.0.0.1:{host.port}/endless")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "allowed", "expected"),
    [
        ("https://a.example.org/x", ["a.example.org"], True),
        ("https://A.Example.org./x", ["a.example.org"], True),
        ("https://a.example.org/x", ["*.example.org"], True),
        ("https://example.org/x", ["*.example.org"], False),
        ("https://evilexample.org/x", ["*.example.org"], False),
        ("https://a.example.org:8443/x", ["a.example.org"], False),
        ("https://a.example.org:8443/x", ["a.example.org:8443"], True),
        ("http://a.example.org/x", ["a.example.org:443"], False),
        ("https://a.example.org.evil.test/x", ["a.example.org"], False),
    ],
)
def test_host_list(url: str, allowed: list[str], expected: bool) -> None:
    assert host_allowed(httpx.URL(url), allowed) is expected


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1", "10.0.0.1", "172.16.3.4", "192.168.0.9", "169.254.169.254", "100.64.0.1", "0.0.0.0",
        "224.0.0.1", "198.18.0.1", "::1", "fe80::1", "fd00::1", "ff02::1", "::ffff:127.0.0.1",
        "64:ff9b::7f00:1", "2002:7f00:1::1", "2001:0:0:0:0:0:0:1",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public(text: str) -> None:
    assert not address_allowed(ipaddress.ip_address(text), ())


@given(st.ip_addresses(v=4))
def test_carrying_an_address_in_ipv6_gains_nothing(address: ipaddress.IPv4Address) -> None:
    mapped = ipaddress.IPv6Address(b"\0" * 10 + b"\xff\xff" + address.packed)
    nat64 = ipaddress.IPv6Address(ipaddress.IPv6Address("64:ff9b::").packed[:12] + address.packed)
    if not address_allowed(address, ()):
        assert not address_allowed(mapped, ())
        assert not address_allowed(nat64, ())
