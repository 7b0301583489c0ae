"""A key reaches the host it is for, and no other."""

from __future__ import annotations

import asyncio

import pytest

from share4video.demo_ui.keys import api_keys
from share4video.demo_ui.served import ServedModel
from tests.serving.media_host import media_host

ALL, CHAT, CAPTION = "SHARE4VIDEO_API_KEY", "SHARE4VIDEO_CHAT_API_KEY", "SHARE4VIDEO_CAPTION_API_KEY"


@pytest.mark.parametrize(
    ("addresses", "environment", "keys"),
    [
        ({"chat": "https://a/v1", "captioner": "https://a:443/x/v1"}, {ALL: "k"}, ["k", "k"]),
        ({"chat": "https://a/v1", "captioner": "https://b/v1"}, {ALL: "k"}, ["none", "none"]),
        ({"chat": "https://a/v1", "captioner": "http://a/v1"}, {ALL: "k"}, ["none", "none"]),
        ({"chat": "https://a/v1", "captioner": "https://b/v1"}, {ALL: "k", CHAT: "c"}, ["c", "none"]),
        ({"chat": "https://a/v1", "captioner": "https://b/v1"}, {CHAT: "c", CAPTION: "d"}, ["c", "d"]),
        ({"chat": "https://a/v1", "captioner": "https://a/v1"}, {ALL: "k", CHAT: "c"}, ["c", "c"]),
        (
            {"chat": "https://a/v1", "captioner": "https://b/v1", "summarizer": "https://b/v1"},
            {CAPTION: "d"},
            ["none", "d", "d"],
        ),
        ({"captioner": "https://b/v1"}, {}, ["none"]),
    ],
)
def test_which_address_is_sent_which_key(
    addresses: dict[str, str], environment: dict[str, str], keys: list[str]
) -> None:
    assert list(api_keys(addresses, environment).values()) == keys


def test_a_server_is_sent_its_own_key_and_not_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ALL, "secret")
    with media_host() as host:
        host.files["/v1/models"] = ("application/json", b'{"data": [{"id": "m"}]}')
        url = f"http://127.0.0.1:{host.port}/v1"
        for model, key in ((ServedModel(url), "none"), (ServedModel(url, api_key="its own"), "its own")):
            host.seen.clear()
            assert asyncio.run(model.greeting()) == f"m at {url}"
            assert asyncio.run(model.endpoint()).api_key == key
            sent = [
                value
                for _, head in host.seen
                for name, value in head.items()
                if name.lower() == "authorization"
            ]
            assert sent == [f"Bearer {key}"] * len(host.seen) != []
