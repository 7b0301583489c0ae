"""The released captioner's prompts byte for byte, and its layouts as they go over the wire."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from share4video.captioning.client import ChatClient, Endpoint
from share4video.captioning.clip import ClipRole, stream_captions
from share4video.captioning.engine import resolve
from share4video.captioning.roles import (
    Difference,
    Fast,
    First,
    KeyFrame,
    Recaption,
    Summary,
    TimedCaption,
    messages,
)
from share4video.config import CaptionConfig, EngineSpec
from tests.engines import picture
from tests.serving.upstream_host import UpstreamHost, upstream_host

COLOURS = ("red", "lime", "blue", "yellow", "magenta", "cyan")
WHITE = (255, 255, 255)

# Texts a template engine would stumble over: placeholders, escapes, line breaks, nothing at all.
ODD_TEXTS = (
    "",
    " ",
    "{prev}",
    "{{}}",
    "%s %d %%",
    "$before ${text}",
    "a\nb\r\n",
    "\\n",
    "a: b, “c”",
    "狗\u200d",
)
odd_texts = st.sampled_from(ODD_TEXTS) | st.text()
whole_seconds = st.integers(0, 100_000)


def said(role_input: Any) -> str:
    (message,) = messages("sharecaptioner", role_input)
    return "".join(part["text"] for part in message["content"] if part["type"] == "text")


def frame(number: int, timestamp_s: float, colour: str = "red", size: tuple[int, int] = (16, 12)) -> KeyFrame:
    return KeyFrame(number, timestamp_s, picture(colour, size))


FIRST, SECOND = frame(1, 0.0), frame(2, 2.0)


def test_the_prompts_that_have_no_place_for_anything() -> None:
    assert said(First(FIRST)) == "This is the first frame of a video, describe it in detail."
    assert said(Fast((FIRST,))) == "Here are a few key frames of a video, discribe this video in detail."


@given(i=st.integers(1, 10_000), prev=odd_texts.filter(bool))
def test_the_sliding_prompt(i: int, prev: str) -> None:
    """On the release's own grid of two seconds our true times print as its template does."""
    pair = Difference(KeyFrame(i, 2.0 * i, FIRST.image), KeyFrame(i + 1, 2.0 * (i + 1), FIRST.image), prev)
    assert said(pair) == (
        f"Here are the Video frame {i} at {2 * i}.00 Second(s) and Video frame {i + 1} at {2 * (i + 1)}.00 "
        f"Second(s) of a video, describe what happend between them. What happend before is: {prev}"
    )


@given(lines=st.lists(st.tuples(st.integers(1, 999), whole_seconds, odd_texts), max_size=5))
def test_the_summary_prompt(lines: list[tuple[int, int, str]]) -> None:
    captions = tuple(TimedCaption(k, float(t), caption) for k, t, caption in lines)
    assert said(Summary(captions)) == "Summarize the following per frame descriptions:\n" + "".join(
        f"Video frame {k} at {t}.00 Second(s) description: {caption}\n" for k, t, caption in lines
    )


@given(text=odd_texts)
def test_the_recaption_prompt(text: str) -> None:
    assert said(Recaption(text)) == f"Translate this brief generation prompt into a detailed caption: {text}"


@pytest.fixture(scope="module")
def upstream() -> Iterator[UpstreamHost]:
    with upstream_host() as host:
        yield host


def sent(upstream: UpstreamHost, frames: list[KeyFrame], role: ClipRole) -> list[tuple[str, Image.Image]]:
    """Caption frames over HTTP; return each call's text and the picture that arrived."""
    upstream.reset()
    spec = resolve(EngineSpec(url=upstream.base_url, model="m"))

    async def run() -> None:
        async with ChatClient(Endpoint(upstream.base_url, "m", spec)) as client:
            async for _ in stream_captions(
                frames, [role], captioner=client, config=CaptionConfig(mode="reference")
            ):
                pass

    asyncio.run(run())
    return [_arrived(body) for body in upstream.seen]


def _arrived(body: dict[str, Any]) -> tuple[str, Image.Image]:
    (message,) = body["messages"]
    shown, text = message["content"]  # one picture, then the text
    assert shown["image_url"]["url"].startswith("data:image/jpeg;base64,")
    data = base64.b64decode(shown["image_url"]["url"].partition(",")[2], validate=True)
    return text["text"], Image.open(io.BytesIO(data)).convert("RGB")


def is_filled(image: Image.Image, colour: str | tuple[int, int, int], box: tuple[int, int, int, int]) -> bool:
    """Whether a part of a decoded JPEG is of one colour, a few pixels off its edges."""
    left, top, right, bottom = box
    shown = np.asarray(image.crop((left + 4, top + 4, right - 4, bottom - 4)), int)
    wanted = np.asarray(Image.new("RGB", (1, 1), colour), int)
    return bool(shown.size) and int(np.abs(shown - wanted).max()) <= 8


def test_sliding_sends_both_frames_with_their_true_times(upstream: UpstreamHost) -> None:
    """The release's batch script sends the later frame alone and counts two seconds per frame."""
    times = (0.0, 1.96, 8.5, 59.997)
    shots = [frame(n, t, COLOURS[n - 1], (160, 90)) for n, t in enumerate(times, 1)]
    first, *pairs = sent(upstream, shots, "sliding")
    assert first[1].size == (160, 90)
    assert is_filled(first[1], "red", (0, 0, 160, 90))
    printed = ("0.00", "1.96", "8.50", "60.00")
    for k, (text, image) in enumerate(pairs, 1):
        assert text.startswith(
            f"Here are the Video frame {k} at {printed[k - 1]} Second(s) and Video frame {k + 1} at "
            f"{printed[k]} Second(s) of a video, describe what happend between them. "
        )
        assert image.size == (160, 90 + 50 + 90)
        assert is_filled(image, COLOURS[k - 1], (0, 0, 160, 90))
        assert is_filled(image, WHITE, (0, 90, 160, 140))
        assert is_filled(image, COLOURS[k], (0, 140, 160, 230))


def test_a_pair_of_unequal_frames_is_padded_not_scaled(upstream: UpstreamHost) -> None:
    shots = [frame(1, 0.0, "red", (160, 90)), frame(2, 2.0, "blue", (100, 120))]
    _, (_, image) = sent(upstream, shots, "sliding")
    assert image.size == (160, 90 + 50 + 120)
    assert is_filled(image, "blue", (0, 140, 100, 260))
    assert is_filled(image, WHITE, (100, 140, 160, 260))


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    """Sizes the released code gave; a copy of what the layouts below need of ``golden/composition.json``."""
    return {
        "tall_strip": [
            {"frames": 1, "frame_wh": [640, 360], "out_wh": [820, 400]},
            {"frames": 5, "frame_wh": [640, 360], "out_wh": [820, 1920]},
            {"frames": 6, "frame_wh": [360, 640], "out_wh": [480, 3980]},
            {"frames": 15, "frame_wh": [320, 240], "out_wh": [440, 3920]},
        ],
        # The sizes of stacked pairs are among those the HD transform was run on.
        "pairs": [{"frame_wh": [1280, 720], "out_wh": [1280, 1490]}],
    }


def test_the_copied_sizes_are_the_golden_ones(golden: dict[str, Any], data_root: Path) -> None:
    released = json.loads((data_root / "golden" / "composition.json").read_text())
    assert golden["tall_strip"] == released["tall_strip"]
    transformed = [case["in_wh"] for case in released["hd_transform"]]
    assert all(case["out_wh"] in transformed for case in golden["pairs"])


def test_the_strip_as_it_is_sent(upstream: UpstreamHost, golden: dict[str, Any]) -> None:
    for case in golden["tall_strip"]:
        width, height = case["frame_wh"]
        shots = [frame(n, 2.0 * n, COLOURS[n % 6], (width, height)) for n in range(1, case["frames"] + 1)]
        ((_, image),) = sent(upstream, shots, "fast")
        assert list(image.size) == case["out_wh"]
        column = max(width // 4, 100)
        for n in range(1, case["frames"] + 1):
            top = 10 + (n - 1) * (height + 20)
            assert is_filled(image, COLOURS[n % 6], (column, top, column + width, top + height))
            label = np.asarray(
                image.crop((0, top + height // 2, column, top + height // 2 + 24)).convert("L")
            )
            assert label.min() < 64 and label.mean() > 128  # black letters on white
            if n > 1:
                rule = np.asarray(image.crop((column, top - 12, column + width, top - 8)).convert("L"))
                assert rule.min(axis=0).max() < 64  # a black line all the way between two frames


def test_the_pair_as_it_is_sent(upstream: UpstreamHost, golden: dict[str, Any]) -> None:
    for case in golden["pairs"]:
        width, height = case["frame_wh"]
        shots = [frame(n, 2.0 * n, COLOURS[n], (width, height)) for n in (1, 2)]
        _, (_, image) = sent(upstream, shots, "sliding")
        assert list(image.size) == case["out_wh"]
