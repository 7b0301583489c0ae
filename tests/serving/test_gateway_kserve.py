"""The gateway as KServe sees it: health, readiness, metrics, ``:predict``, and the doors that stay shut."""

from __future__ import annotations

import time

import httpx
import openai

from serving.gateway.process import Gateway
from share4video.chat import PRE_QUERY
from tests.serving.upstream_host import MODEL_NAME, WORDS, UpstreamHost


def get(gateway: Gateway, route: str) -> httpx.Response:
    return httpx.get(gateway.url + route, timeout=30, trust_env=False)


def test_models_answer_both_protocols(gateway: Gateway) -> None:
    for prefix in ("/v1", "/openai/v1"):
        client = openai.OpenAI(base_url=gateway.url + prefix, api_key="none")
        assert [model.id for model in client.models.list()] == [MODEL_NAME]
    assert get(gateway, "/v1/models").json()["models"] == [MODEL_NAME]


def test_ready_only_while_the_model_behind_it_is(gateway: Gateway, upstream: UpstreamHost) -> None:
    routes = ("/v2/health/ready", f"/v2/models/{MODEL_NAME}/ready", f"/v1/models/{MODEL_NAME}")
    time.sleep(1.1)  # an answer of the upstream is kept for a second
    assert [get(gateway, route).status_code for route in routes] == [200] * 3
    upstream.healthy = False
    time.sleep(1.1)
    assert [get(gateway, route).status_code for route in routes] == [503] * 3
    assert get(gateway, "/v2/health/live").status_code == 200
    upstream.healthy = True
    time.sleep(1.1)
    assert [get(gateway, route).status_code for route in routes] == [200] * 3


def test_predict(gateway: Gateway, upstream: UpstreamHost, clip_uri: str) -> None:
    instances = [
        {"id": "b", "video_url": clip_uri, "question": "Which colour?", "max_tokens": 5},
        {"id": "a", "video_url": {"url": clip_uri}, "question": "Where to?"},
        {"question": "No clip?"},
    ]
    answer = httpx.post(
        f"{gateway.url}/v1/models/{MODEL_NAME}:predict",
        json={"instances": instances},
        timeout=30,
        trust_env=False,
    )
    assert answer.status_code == 200
    text = "".join(WORDS)
    expected = [{"id": "b", "answer": text}, {"id": "a", "answer": text}, {"answer": text}]
    assert answer.json() == {"predictions": expected}
    first = upstream.seen[0]
    assert first["messages"][0]["content"][1]["text"] == PRE_QUERY + "Which colour?"
    assert first["max_tokens"] == 5


def test_predict_refuses_with_a_sentence(gateway: Gateway, clip_uri: str) -> None:
    url = f"{gateway.url}/v1/models/{MODEL_NAME}:predict"
    for instances in (None, [], [{}], [{"question": 1}], [{"question": "q", "role": "x"}]):
        answer = httpx.post(url, json={"instances": instances}, trust_env=False)
        assert answer.status_code == 400
        assert "instance" in answer.json()["error"]
    foreign = [{"question": "q", "video_url": "file:///etc/passwd"}]
    answer = httpx.post(url, json={"instances": foreign}, trust_env=False)
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "media_file"
    other = httpx.post(f"{gateway.url}/v1/models/other:predict", json={"instances": []}, trust_env=False)
    assert other.status_code == 404


def test_predict_bounds_the_answer(gateway: Gateway, upstream: UpstreamHost) -> None:
    url = f"{gateway.url}/v1/models/{MODEL_NAME}:predict"
    for max_tokens in (257, 0, "lots", 1.5):
        instances = [{"question": "q", "max_tokens": max_tokens}]
        answer = httpx.post(url, json={"instances": instances}, timeout=30, trust_env=False)
        assert answer.status_code == 400
        assert "max_tokens" in answer.json()["error"]["message"]
    assert upstream.seen == []


def test_metrics(gateway: Gateway, upstream: UpstreamHost, clip_uri: str) -> None:
    httpx.get(f"{gateway.url}/made/up/path", trust_env=False)
    text = get(gateway, "/metrics").text
    assert 'share4video_gateway_requests_total{route="/v1/models",status="200"}' in text
    assert 'share4video_gateway_refusals_total{code="media_file"}' in text
    assert 'share4video_gateway_phase_seconds_count{phase="decode"}' in text
    assert "request_predict_seconds" in text
    assert "made/up" not in text


def test_nobody_unloads_the_model(gateway: Gateway) -> None:
    for verb in ("load", "unload"):
        answer = httpx.post(f"{gateway.url}/v2/repository/models/{MODEL_NAME}/{verb}", trust_env=False)
        assert answer.status_code == 403
    assert get(gateway, f"/v1/models/{MODEL_NAME}").status_code == 200
