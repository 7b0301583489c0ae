"""What the S3 store does when the server, the network or the credentials are not as they should be."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from share4video.errors import UserError
from share4video.store import Store

Answer = Callable[["Request"], None]


class Request(BaseHTTPRequestHandler):
    """One request to the scripted server; every one is kept in ``seen``."""

    protocol_version = "HTTP/1.1"
    answer: Answer
    seen: list[Request]

    def handle_any(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.seen.append(self)
        if self.path == "/bucket" and self.command == "HEAD":
            self.reply(200)
        else:
            self.answer()

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = handle_any

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def fail(self, status: int, code: str) -> None:
        self.reply(status, f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode())

    def hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(2)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def _server(answer: Answer, environment: pytest.MonkeyPatch) -> Iterator[list[Request]]:
    handler = type("Scripted", (Request,), {"answer": answer, "seen": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{server.server_address[1]}")
    try:
        yield handler.seen
    finally:
        server.shutdown()
        server.server_close()


def test_a_missing_bucket_is_named(s3_root: str) -> None:
    with pytest.raises(UserError, match="there is no bucket nowhere"):
        Store.open("s3://nowhere/prefix")


def test_missing_credentials_are_named(s3_root: str, s3_environment: pytest.MonkeyPatch) -> None:
    s3_environment.delenv("AWS_ACCESS_KEY_ID")
    s3_environment.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(UserError, match="no usable S3 credentials"):
        Store.open(s3_root)


def test_an_unknown_profile_is_named(s3_root: str, s3_environment: pytest.MonkeyPatch) -> None:
    s3_environment.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(UserError, match="nobody"):
        Store.open(s3_root)


def test_a_server_that_does_not_answer_is_named(s3_environment: pytest.MonkeyPatch) -> None:
    s3_environment.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="cannot reach the S3 server"):
        Store.open("s3://bucket")


def test_a_refusal_is_named(s3_environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"data")
    with _server(lambda request: request.fail(403, "AccessDenied"), s3_environment):
        store = Store.open("s3://bucket")
        for use in (
            lambda: store.get("key"),
            lambda: store.exists("key"),
            lambda: store.put("key", b""),
            lambda: store.put_if_absent("key", b""),
            lambda: list(store.list("")),
            lambda: store.download("key", tmp_path / "target"),
            lambda: store.upload(tmp_path / "file", "key"),
        ):
            with pytest.raises(UserError, match="S3 refuses access"):
                use()


def test_a_server_without_conditional_writes_is_named(s3_environment: pytest.MonkeyPatch) -> None:
    with (
        _server(lambda request: request.fail(501, "NotImplemented"), s3_environment),
        pytest.raises(UserError, match="conditional writes"),
    ):
        Store.open("s3://bucket").put_if_absent("key", b"")


def test_a_body_that_breaks_off_is_read_again(s3_environment: pytest.MonkeyPatch) -> None:
    broken = iter([True, True, False])

    def answer(request: Request) -> None:
        if next(broken):
            request.send_response(200)
            request.send_header("Content-Length", "9")
            request.end_headers()
            request.wfile.write(b"half")
            request.hang_up()
        else:
            request.reply(200, b"all of it")

    with _server(answer, s3_environment):
        assert Store.open("s3://bucket").get("key") == b"all of it"


def test_a_file_that_always_breaks_off_is_said(s3_environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def answer(request: Request) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "9")
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(b"half")
            request.hang_up()

    with _server(answer, s3_environment), pytest.raises(UserError, match="breaks off"):
        Store.open("s3://bucket").download("key", tmp_path / "file")
    assert not list(tmp_path.iterdir())


def test_a_put_if_absent_whose_answer_was_lost_has_won(s3_environment: pytest.MonkeyPatch) -> None:
    kept: list[str] = []

    def answer(request: Request) -> None:
        if request.command == "PUT" and not kept:
            kept.append(request.headers["x-amz-meta-writer"])
            request.hang_up()
        elif request.command == "PUT":
            request.fail(412, "PreconditionFailed")
        else:
            request.reply(200, x_amz_meta_writer=kept[0])

    with _server(answer, s3_environment):
        store = Store.open("s3://bucket")
        assert store.put_if_absent("key", b"data")
        assert not store.put_if_absent("key", b"data")


def test_overlapping_conditional_writes_are_tried_again(s3_environment: pytest.MonkeyPatch) -> None:
    conflicts = iter([True, True, False])

    def answer(request: Request) -> None:
        if next(conflicts):
            request.fail(409, "ConditionalRequestConflict")
        else:
            request.reply(200)

    with _server(answer, s3_environment):
        assert Store.open("s3://bucket").put_if_absent("key", b"data")


def test_servers_other_than_aws_get_no_checksum_they_may_not_know(s3_environment: pytest.MonkeyPatch) -> None:
    with _server(lambda request: request.reply(200), s3_environment) as seen:
        Store.open("s3://bucket/prefix").put("key", b"data")
    assert seen[-1].path == "/bucket/prefix/key"
    assert seen[-1].body == b"data"
    assert not [name for name in seen[-1].headers if "checksum" in name.lower() or "trailer" in name.lower()]


def test_folders_that_consoles_leave_behind_are_not_keys(s3_store: Store, s3_root: str) -> None:
    import boto3

    bucket, _, prefix = s3_root.removeprefix("s3://").partition("/")
    boto3.client("s3").put_object(Bucket=bucket, Key=f"{prefix}/folder/", Body=b"")
    s3_store.put("folder/key", b"")
    assert list(s3_store.list("")) == ["folder/key"]


def test_a_listing_goes_past_one_page(s3_environment: pytest.MonkeyPatch) -> None:
    def answer(request: Request) -> None:
        page = int(parse_qs(urlsplit(request.path).query).get("continuation-token", ["0"])[0])
        keys = "".join(f"<Contents><Key>prefix/many/{page}{index}</Key></Contents>" for index in range(3))
        more = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{page + 1}</NextContinuationToken>"
        request.reply(200, f"<ListBucketResult>{keys}{more if page < 2 else ''}</ListBucketResult>".encode())

    with _server(answer, s3_environment):
        found = list(Store.open("s3://bucket/prefix").list("many"))
    assert found == [f"many/{page}{index}" for page in range(3) for index in range(3)]
