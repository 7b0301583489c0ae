"""Submitting, against a server that speaks Kubeflow Pipelines' HTTP API."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from typer.testing import CliRunner

from pipelines.submit import submit_pipeline
from share4video.cli.main import app
from share4video.errors import UserError

API = "/apis/v2beta1"
IMAGE = "registry.example/share4video@sha256:" + "1" * 64


class Kubeflow(ThreadingHTTPServer):
    """Keeps what is uploaded and started; ``status`` other than 200 refuses everybody."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status = 200
        self.pipelines: dict[str, str] = {}
        self.versions: list[dict[str, str]] = []
        self.uploads: list[bytes] = []
        self.runs: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Kubeflow

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def reply(self, body: Any, status: int = 200) -> None:
        payload = json.dumps(body).encode()
        self.send_response(status if self.server.status == 200 else self.server.status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def do_GET(self) -> None:
        path = urlsplit(self.path).path.removeprefix(API)
        if path == "/healthz":
            self.reply({"multi_user": False})
        elif path == "/pipelines":
            found = [{"pipeline_id": i, "display_name": n} for n, i in self.server.pipelines.items()]
            self.reply({"pipelines": found} if found else {})
        elif path.endswith("/versions"):
            self.reply({"pipeline_versions": self.server.versions})
        elif path == "/experiments":
            self.reply({})
        else:
            self.reply({"error": f"no route {path}"}, 404)

    def do_POST(self) -> None:
        url = urlsplit(self.path)
        given = {key: values[0] for key, values in parse_qs(url.query).items()}
        body = self.rfile.read(int(self.headers["content-length"] or 0))
        path = url.path.removeprefix(API)
        if path == "/pipelines/upload":
            self.server.pipelines[given["name"]] = "p1"
            self.reply({"pipeline_id": "p1", "display_name": given["name"]})
        elif path == "/pipelines/upload_version":
            self.server.uploads.append(body)
            version = {"display_name": given["name"], "pipeline_version_id": f"v{len(self.server.versions)}"}
            self.server.versions.append(version)
            self.reply(version)
        elif path == "/experiments":
            self.reply({"experiment_id": "e1", "display_name": "share4video"})
        elif path == "/runs":
            self.server.runs.append(json.loads(body))
            self.reply({"run_id": f"r{len(self.server.runs)}"})
        else:
            self.reply({"error": f"no route {path}"}, 404)


@pytest.fixture
def kubeflow() -> Iterator[Kubeflow]:
    server = Kubeflow()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_version_is_uploaded_once_and_every_submission_runs(kubeflow: Kubeflow) -> None:
    command = ["pipeline", "submit", "curate", "--host", kubeflow.url, "--image", IMAGE]
    command += ["--source", "s3://videos/raw", "--store", "s3://data/store"]
    for number in (1, 2):
        result = CliRunner().invoke(app, command)
        assert result.exception is None, result.output
        assert f"{kubeflow.url}/#/runs/details/r{number}" in result.stdout
    assert len(kubeflow.uploads) == 1
    assert IMAGE.encode() in kubeflow.uploads[0]
    (version,) = kubeflow.versions
    run = kubeflow.runs[1]
    assert run["pipeline_version_reference"] == {"pipeline_id": "p1", "pipeline_version_id": "v0"}
    assert run["display_name"] == version["display_name"]
    assert run["runtime_config"]["pipeline_root"] == "s3://data/store"  # artifacts point into it
    parameters = run["runtime_config"]["parameters"]
    assert parameters["source"] == "s3://videos/raw"
    assert json.loads(parameters["probe_config"])["max_duration_s"] == 120.0


@pytest.mark.parametrize(
    ("status", "said"), [(403, "the host answers with status 403"), (502, "the host answers with status 502")]
)
def test_a_host_that_refuses_is_a_sentence(kubeflow: Kubeflow, status: int, said: str) -> None:
    kubeflow.status = status
    with pytest.raises(UserError, match=said):
        submit_pipeline("curate", {}, host=kubeflow.url, image=IMAGE, pipeline_root="s3://b")


@pytest.mark.parametrize("host", ["http://127.0.0.1:9", "http://no-such-host.invalid", "not a host"])
def test_a_host_that_is_down_is_a_sentence(host: str) -> None:
    with pytest.raises(UserError, match="Kubeflow Pipelines does not answer"):
        submit_pipeline("curate", {}, host=host, image=IMAGE, pipeline_root="s3://b")
