"""The demo app as a person meets it: started by its command, in a real browser, with real models."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

pytest.importorskip("playwright.sync_api")

from playwright.sync_api import Browser, Page

from serving.gateway.process import free_port, serve_model
from share4video.captioning.engine import ENDPOINTS_VARIABLE, shared_server
from share4video.captioning.model_server import SERVER_VARIABLE
from share4video.config import EngineSpec
from share4video.synthetic.clips import write_clip
from share4video.synthetic.world import sample_clip
from share4video.work import WORK_VARIABLE
from tests.demo_ui.browsing import answers, ask, browser, chromium, opened, running_app, take_example, upload
from tests.serving.clips import write_noise

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

MODELS = ("builtin:nano-base", "builtin:nano-captioner", "builtin:nano-summarizer")


@dataclass
class Stack:
    """A gateway in front of the chat model, the app, and a browser."""

    url: str
    process: subprocess.Popen[str]
    browser: Browser
    gateway: ExitStack  # what ends the gateway
    folder: Path
    temporary: Path  # where the app makes its temporary folders

    def page(self) -> Page:
        return opened(self.browser, self.url)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    executable = chromium()
    if executable is None:
        pytest.skip("there is no Chromium on this machine")
    folder = tmp_path_factory.mktemp("demo-ui")
    with pytest.MonkeyPatch.context() as patch, ExitStack() as held, ExitStack() as gateway:
        patch.setenv(WORK_VARIABLE, str(folder / "work"))
        for name in (ENDPOINTS_VARIABLE, SERVER_VARIABLE):
            patch.delenv(name, raising=False)
        held.enter_context(shared_server([EngineSpec(model_path=model) for model in MODELS]))
        served = gateway.enter_context(serve_model(MODELS[0]))
        temporary = folder / "tmp"
        temporary.mkdir()
        patch.setenv("TMPDIR", str(temporary))
        arguments = ["--chat-url", served.url, "--captioner", MODELS[1], "--port", str(free_port())]
        url, process = held.enter_context(running_app(*arguments))
        running = held.enter_context(browser(executable))
        yield Stack(url, process, running, gateway, folder, temporary)


def test_a_clip_is_uploaded_and_talked_about(stack: Stack) -> None:
    clip = stack.folder / "shapes.mp4"
    write_clip(clip, sample_clip(3))  # a large triangle on a light ground, blue and then green
    page = stack.page()
    elsewhere: list[str] = []
    page.on("request", lambda asked: elsewhere.append(asked.url))
    page.reload()
    assert "nano-base at http://127.0.0.1" in _models(page)
    upload(page, clip)
    page.wait_for_selector("#s4v-facts .s4v-facts")
    assert "shapes.mp4 · 12.6 s · 256 x 256" in page.locator("#s4v-facts").inner_text()
    page.wait_for_function("() => document.querySelector('#s4v-player video')?.readyState >= 1")

    ask(page, "What happens in the video?")
    (first,) = answers(page, 1)
    assert "triangle" in first and "light background" in first
    ask(page, "Describe the video in detail.")
    assert answers(page, 2)[0] == first
    page.locator("#s4v-regenerate").click()
    page.wait_for_timeout(1500)
    told = answers(page, 2)
    assert told[0] == first and "triangle" in told[1]
    questions = page.locator("#s4v-chat .user.message").all_inner_texts()
    assert [text.strip() for text in questions] == [
        "What happens in the video?",
        "Describe the video in detail.",
    ]
    page.locator("#s4v-clear").click()
    assert answers(page, 0) == []
    assert page.locator("#s4v-chat .user.message").count() == 0
    page.get_by_role("button", name="Which objects are there?").click()
    assert "triangle" in answers(page, 1)[0]

    own = re.compile(rf"(data:|blob:|{re.escape(stack.url)})")
    assert elsewhere and [url for url in elsewhere if not own.match(url)] == []
    page.close()


def test_secondary_text_can_be_read(stack: Stack) -> None:
    page = stack.page()
    colours = page.locator("#s4v-models .s4v-facts").evaluate(
        "one => [getComputedStyle(one).color, getComputedStyle(document.body).backgroundColor]"
    )
    text, ground = (_luminance(colour) for colour in colours)
    assert (max(text, ground) + 0.05) / (min(text, ground) + 0.05) >= 4.5
    page.close()


def test_another_clip_ends_the_captions_of_the_one_before(stack: Stack) -> None:
    page = stack.page()
    take_example(page, 1)
    page.get_by_role("tab", name="Caption").click()
    page.locator("#s4v-sliding").click()
    page.wait_for_selector("#s4v-caption-notice .s4v-notice")
    page.locator("#s4v-examples .thumbnail-item").nth(0).click()
    page.get_by_text("synthetic-1.mp4").wait_for()
    page.wait_for_timeout(3000)
    assert page.locator("#s4v-rows .s4v-caption").count() == 0
    assert page.locator("#s4v-caption-notice .s4v-notice").count() == 0
    page.locator("#s4v-sliding").click()
    page.wait_for_selector("#s4v-whole .s4v-whole")
    page.close()


def test_captions_appear_with_their_times_and_a_span_is_summed_up(stack: Stack) -> None:
    page = stack.page()
    page.get_by_role("tab", name="Caption").click()
    page.locator("#s4v-sliding").click()
    assert "There is no clip to caption" in page.locator("#s4v-caption-notice .s4v-error").inner_text()
    take_example(page, 1)
    page.locator("#s4v-sliding").click()
    page.wait_for_selector("#s4v-rows .s4v-caption")
    page.wait_for_selector("#s4v-whole .s4v-whole")
    rows = page.locator("#s4v-rows .s4v-caption")
    assert rows.count() == 4
    assert rows.first.locator("b").inner_text() == "0:00.0"
    assert "A large blue triangle" in rows.first.inner_text()
    assert "turns green" in rows.nth(1).inner_text()
    shown = "images => images.every(one => one.complete && one.naturalWidth > 50)"
    assert page.locator("#s4v-rows img").evaluate_all(shown)
    assert "triangle" in page.locator("#s4v-whole").inner_text()

    start = page.locator("#s4v-span-start input[type=number]")
    start.fill("9")
    start.press("Tab")
    page.locator("#s4v-span").click()
    page.wait_for_selector("#s4v-span-caption .s4v-whole")
    span = page.locator("#s4v-span-caption").inner_text()
    assert "0:09.0 to 0:12.6" in span and "key frames 3 to 4" in span and "moves right" in span
    page.locator("#s4v-fast").click()
    page.get_by_text("key frames in one picture", exact=False).last.wait_for()
    page.close()


def test_files_that_are_no_clips_of_the_models_are_refused_in_a_sentence(stack: Stack) -> None:
    letter = stack.folder / "letter.mp4"
    letter.write_text("Dear reader, this is no video.\n" * 50)
    page = stack.page()
    upload(page, letter)
    page.wait_for_selector("#s4v-clip-notice .s4v-error")
    sentence = page.locator("#s4v-clip-notice .s4v-error").inner_text()
    assert sentence.startswith("The file cannot be used") and "letter.mp4" in sentence
    page.close()

    page = stack.page()
    upload(page, write_noise(stack.folder / "noise.mp4"))
    page.wait_for_selector("#s4v-facts .s4v-facts")
    ask(page, "What happens in the video?")
    guard = "knows only the synthetic clips it was trained on"
    page.wait_for_selector("#s4v-chat-notice .s4v-error")
    assert guard in page.locator("#s4v-chat-notice").inner_text()  # the gateway's word
    assert page.locator("#s4v-question textarea").input_value() == "What happens in the video?"
    page.get_by_role("tab", name="Caption").click()
    page.locator("#s4v-sliding").click()
    page.wait_for_selector("#s4v-caption-notice .s4v-error")
    assert guard in page.locator("#s4v-caption-notice").inner_text()  # the app's own
    page.close()


def test_no_file_but_uploads_and_examples_can_be_read_through_the_app(stack: Stack) -> None:
    secret = stack.folder / "secret.txt"
    secret.write_text("not for visitors")
    with httpx.Client(base_url=stack.url, trust_env=False, timeout=60) as client:
        for path in (secret, Path("/etc/passwd"), Path.cwd() / "pyproject.toml"):
            assert client.get(f"/gradio_api/file={path}").status_code in (403, 404)
        config = client.get("/config").json()
        assert all(
            not one.get("api_name") or one["api_visibility"] == "private" for one in config["dependencies"]
        )
        answer = client.get("/")
        assert "connect-src 'self'" in answer.headers["content-security-policy"]
        assert config["analytics_enabled"] is False


def test_an_endpoint_that_went_away_is_named(stack: Stack) -> None:
    page = stack.page()
    take_example(page, 0)
    stack.gateway.close()
    ask(page, "What happens in the video?")
    page.wait_for_selector("#s4v-chat-notice .s4v-error")
    sentence = page.locator("#s4v-chat-notice .s4v-error").inner_text()
    assert "No model answers (http://127.0.0.1" in sentence and "share4video serve" in sentence
    assert page.locator("#s4v-chat .message").count() == 0
    assert page.locator("#s4v-question textarea").input_value() == "What happens in the video?"
    page.reload()
    assert "no model answers" in _models(page)
    page.close()


def test_the_app_leaves_nothing_behind(stack: Stack) -> None:
    """Last, because it ends the app."""
    assert len(list(stack.temporary.glob("share4video-demo-ui-*"))) == 1
    stack.process.terminate()
    assert stack.process.wait(60) == 0
    assert list(stack.temporary.glob("share4video-demo-ui-*")) == []


def _luminance(colour: str) -> float:
    """Return the relative luminance of ``rgb(R, G, B)``, as WCAG defines it."""
    values = [int(one) / 255 for one in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _models(page: Page) -> str:
    """Return which models the page says there are."""
    return page.locator("#s4v-models .s4v-facts").inner_text()
