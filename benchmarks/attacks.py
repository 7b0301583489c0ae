"""Requests a gateway must refuse: what each sends, and what it is to be told."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import attack_media as media
from benchmarks.attack_host import BUCKET, HUGE_BYTES, MP4_START, AttackHost

ALLOWED_PREFIX = f"s3://{BUCKET}/allowed/"


@dataclass(frozen=True)
class Attack:
    """One request.

    Attributes:
        name: what a person calls it.
        status, code: of the answer it is to get.
        kind: the part its address stands in: ``video_url`` or ``image_url``.
        address: of the media.
        body: the body to send instead, where the attack is not an address; blocks that are made as they are
            sent, so that a big one takes no memory here.
        announced: the body's Content-Length, where that is not its length.
    """

    name: str
    status: int
    code: str
    address: str = ""
    kind: str = "video_url"
    body: Callable[[], Iterator[bytes]] | None = None
    announced: int | None = None

    def blocks(self) -> Iterator[bytes]:
        """Yield the request's body."""
        if self.body is not None:
            return self.body()
        content = [{"type": self.kind, self.kind: {"url": self.address}}, {"type": "text", "text": "What?"}]
        return iter([json.dumps({"messages": [{"role": "user", "content": content}]}).encode()])


def host_names(port: int) -> tuple[str, ...]:
    """Return the hosts a gateway under attack allows: the attack host, and names that lead elsewhere."""
    names = ("127.0.0.9", "localhost", "127.0.0.1", "2130706433", "0x7f000001", "127.1", "0", "10.1.2.3")
    return tuple(f"{name}:{port}" for name in names)


def attacks(host: AttackHost, root: Path) -> list[Attack]:
    """Return all attacks; lays out what they need on ``host`` and in ``root``, the folder of ``file://``."""
    return [
        *_addresses(host),
        *_answers(host),
        *_contents(host),
        *_files(root),
        *_objects(),
        *_bodies(),
    ]


def _addresses(host: AttackHost) -> list[Attack]:
    port = host.port
    private = [
        ("private network", f"http://10.1.2.3:{port}/x"),
        ("loopback", f"http://127.0.0.1:{port}/x"),
        ("name of a private address", f"http://localhost:{port}/x"),
        ("decimal address", f"http://2130706433:{port}/x"),
        ("hexadecimal address", f"http://0x7f000001:{port}/x"),
        ("short address", f"http://127.1:{port}/x"),
        ("address of zero", f"http://0:{port}/x"),
        ("redirect to loopback", f"{host.url}/to?http://127.0.0.1:{port}/x"),
        ("redirect to a name of loopback", f"{host.url}/to?http://localhost:{port}/x"),
    ]
    unlisted = [
        ("cloud metadata", "http://169.254.169.254/latest/meta-data"),
        ("redirect to cloud metadata", f"{host.url}/to?http://169.254.169.254/latest"),
        ("IPv4 mapped to IPv6", f"http://[::ffff:127.0.0.1]:{port}/x"),
        ("IPv6 loopback", f"http://[::1]:{port}/x"),
        ("other port of an allowed host", "http://127.0.0.9:22/"),
        ("allowed host as a prefix", f"http://127.0.0.9.example.org:{port}/x"),
    ]
    odd = [
        ("octal address", f"http://0177.0.0.1:{port}/x", 400, "media_address"),
        ("credentials", f"http://user:secret@127.0.0.9:{port}/x", 400, "media_credentials"),
        ("allowed host as a user name", f"http://127.0.0.9:{port}@10.1.2.3/x", 400, "media_credentials"),
        ("redirect to a file", f"{host.url}/to?file:///etc/passwd", 400, "media_scheme"),
        ("redirects without end", f"{host.url}/loop", 403, "media_redirect"),
        ("gopher", f"gopher://127.0.0.9:{port}/x", 400, "media_scheme"),
        ("plain path", "/etc/passwd", 400, "media_scheme"),
        ("FFmpeg protocol", "concat:/etc/passwd|/etc/hosts", 400, "media_scheme"),
    ]
    return [
        *(Attack(name, 403, "media_private", address) for name, address in private),
        *(Attack(name, 403, "media_host", address) for name, address in unlisted),
        *(Attack(name, status, code, address) for name, address, status, code in odd),
    ]


def _answers(host: AttackHost) -> list[Attack]:
    how = [
        ("3 GiB, declared", "declared", 413, "media_too_big"),
        ("3 GiB, in chunks", "chunked", 413, "media_too_big"),
        ("3 GiB, undeclared", "endless", 413, "media_too_big"),
        ("more than declared", "lying", 422, "media_undecodable"),
        ("a byte at a time", "drip", 422, "media_timeout"),
        ("no answer", "silent", 422, "media_timeout"),
        ("header a byte at a time", "headers", 422, "media_timeout"),
        ("header without end", "many-headers", 422, "media_unreachable"),
        ("gzip bomb", "gzip", 415, "media_type"),
        ("redirect to a byte at a time", f"to?{host.url}/drip", 422, "media_timeout"),
        ("missing", "nothing", 422, "media_unreachable"),
    ]
    return [Attack(name, status, code, f"{host.url}/{path}") for name, path, status, code in how]


def _contents(host: AttackHost) -> list[Attack]:
    huge, small = media.picture(media.HUGE_SIDE, media.HUGE_SIDE), media.picture(64, 48)
    side, two = {"width": media.HUGE_SIDE, "height": media.HUGE_SIDE}, [0, 1]
    video, image = "video_url", "image_url"
    files = [
        ("10,000 x 10,000 frames", video, "video/mp4", media.film([huge] * 2, two, **side), 413, "too_big"),
        ("10,000 x 10,000 frames, header says 64 x 48", video, "video/mp4",
         media.film([huge] * 2, two, width=64, height=48), 413, "too_big"),
        ("10,000 x 10,000 from the second frame on", video, "video/mp4",
         media.film([small, huge], two, width=64, height=48), 422, "undecodable"),
        ("clip of 12 minutes", video, "video/mp4",
         media.film([small] * 2, [0, 720], width=64, height=48), 413, "too_long"),
        ("10,000 x 10,000 image", image, "image/png", huge, 413, "too_big"),
        ("JPEG of 60,000 scans", image, "image/jpeg", media.many_scans(3000, 60_000), 422, "undecodable"),
        ("web page as video/mp4", video, "video/mp4", b"<html>" + MP4_START, 415, "type"),
        ("video as text/html", video, "text/html", MP4_START, 415, "type"),
        ("playlist as video/mp4", video, "video/mp4", media.PLAYLIST, 415, "type"),
        ("playlist by its own type", video, "application/vnd.apple.mpegurl", media.PLAYLIST, 415, "type"),
        ("playlist that begins like MP4", video, "video/mp4", media.DISGUISED_PLAYLIST, 422, "undecodable"),
        ("concat list as video/mp4", video, "video/mp4", media.CONCAT, 415, "type"),
        ("SVG as image/png", image, "image/png", media.SVG, 415, "type"),
        ("SVG by its own type", image, "image/svg+xml", media.SVG, 415, "type"),
        ("image as a video", video, "video/mp4", small, 415, "type"),
        ("video as an image", image, "image/png", MP4_START, 415, "type"),
        ("MP4 header and nothing else", video, "video/mp4", MP4_START, 422, "undecodable"),
        ("empty file", video, "video/mp4", b"", 415, "type"),
    ]  # fmt: skip
    found = []
    for number, (name, kind, content_type, data, status, code) in enumerate(files):
        host.files[f"/file-{number}"] = content_type, data
        found.append(Attack(name, status, f"media_{code}", f"{host.url}/file-{number}", kind))
    for name, kind, address in [
        ("SVG as data:", image, _data("image/svg+xml", media.SVG)),
        ("playlist as data:", video, _data("video/mp4", media.PLAYLIST)),
    ]:
        found.append(Attack(name, 415, "media_type", address, kind))
    return found


def _files(root: Path) -> list[Attack]:
    secret = root.parent / "secret.mp4"
    secret.write_bytes(MP4_START)
    (root / "link.mp4").symlink_to(secret)
    (root / "folder").symlink_to(root.parent)
    with (root / "huge.mp4").open("wb") as file:
        file.write(MP4_START)
        file.truncate(HUGE_BYTES)  # sparse
    outside = [
        ("file above the root", f"file://{root}/../secret.mp4"),
        ("file above the root, escaped", f"file://{root}/%2e%2e/secret.mp4"),
        ("link out of the root", f"file://{root}/link.mp4"),
        ("folder linked out of the root", f"file://{root}/folder/secret.mp4"),
        ("file of the system", "file:///etc/passwd"),
        ("environment of a process", "file:///proc/self/environ"),
        ("endless device", "file:///dev/zero"),
        ("folder", f"file://{root}"),
    ]
    return [
        *(Attack(name, 403, "media_file", address) for name, address in outside),
        Attack("file of another host", 400, "media_address", f"file://10.1.2.3{root}/x.mp4"),
        Attack("file of 3 GiB", 413, "media_too_big", f"file://{root}/huge.mp4"),
    ]


def _objects() -> list[Attack]:
    how = [
        ("object of 3 GiB, declared", f"{ALLOWED_PREFIX}declared", 413, "media_too_big"),
        ("object of 3 GiB, undeclared", f"{ALLOWED_PREFIX}endless", 413, "media_too_big"),
        ("object, a byte at a time", f"{ALLOWED_PREFIX}drip", 422, "media_timeout"),
        ("object, no answer", f"{ALLOWED_PREFIX}silent", 422, "media_timeout"),
        ("object above the prefix", f"{ALLOWED_PREFIX}../secret/x.mp4", 400, "media_address"),
        ("object above the prefix, escaped", f"{ALLOWED_PREFIX}%2e%2e/secret/x", 422, "media_unreachable"),
        ("object beside the prefix", f"s3://{BUCKET}/allowed-too/x.mp4", 403, "media_store"),
        ("object of another bucket", "s3://other/allowed/x.mp4", 403, "media_store"),
        ("bucket that begins as the allowed one", f"s3://{BUCKET}-2/allowed/x", 403, "media_store"),
        ("empty step in a key", f"s3://{BUCKET}//allowed/x.mp4", 400, "media_address"),
        ("line break in a key", f"{ALLOWED_PREFIX}x\r\nHost: y", 400, "media_address"),
        ("key too long for S3", f"{ALLOWED_PREFIX}{'x' * 4000}", 400, "media_address"),
    ]
    return [Attack(name, status, code, address) for name, address, status, code in how]


def _bodies() -> list[Attack]:
    def lists() -> Iterator[bytes]:
        yield b'{"messages": ['
        while True:
            yield b"[]," * 20_000

    def deep() -> Iterator[bytes]:
        yield b"[" * 200_000

    def template() -> Iterator[bytes]:
        loop = "{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}"
        yield _asking(chat_template_kwargs={"chat_template": loop})

    def length() -> Iterator[bytes]:
        yield _asking(generation_config=json.dumps({"max_new_tokens": 10**9}))

    return [
        Attack("body of 3 GiB, declared", 413, "body_too_big", body=lambda: iter([b"{"]), announced=3 << 30),
        Attack("body of 40 MiB of empty lists", 413, "body_too_big", body=lists, announced=40 << 20),
        Attack("200,000 brackets", 400, "bad_json", body=deep),
        Attack("body that stops", 408, "body_too_slow", body=lambda: iter([b"{"]), announced=100),
        Attack("chat template of the client's", 400, "bad_request", body=template),
        Attack("answer of a billion tokens", 400, "bad_request", body=length),
    ]


def _asking(**fields: Any) -> bytes:
    return json.dumps({"messages": [{"role": "user", "content": "What?"}], **fields}).encode()


def _data(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
