"""``share4video demo-ui`` as a person starts it, and a real browser to look at it with.

Run as a script it takes the pictures of the how-to:

    python tests/demo_ui/browsing.py docs/images
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from playwright.sync_api import Browser, Page, sync_playwright

COMMAND = "from share4video.cli.main import app; app()"
WAIT_MS = 120_000  # nobody here waits for so long, unless the cores are busy with something else
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WIDTH, HEIGHT = 1280, 860


def chromium() -> str | None:
    """Return the path of this machine's Chromium, None where it has none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def browser(executable: str) -> Iterator[Browser]:
    """Run a headless Chromium, with nothing downloaded."""
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        try:
            yield running
        finally:
            running.close()


@contextmanager
def running_app(*arguments: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run ``share4video demo-ui`` and give the address it prints, and its process."""
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, "demo-ui", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert process.stdout is not None and process.stderr is not None
    said: list[str] = []
    reader = threading.Thread(target=_collect, args=(process.stderr, said), daemon=True)
    reader.start()
    try:
        line = process.stdout.readline()
        assert line.startswith("open http"), "".join(said)
        yield line.split()[1], process
    finally:
        process.terminate()
        try:
            process.wait(30)
        finally:
            process.kill()
            process.stdout.close()


def _collect(stream: IO[str], said: list[str]) -> None:
    said.extend(stream)


def opened(running: Browser, url: str) -> Page:
    """Open the app; what it asks of any other place is an error of the page's `elsewhere`."""
    page = running.new_page(viewport={"width": WIDTH, "height": HEIGHT})
    page.set_default_timeout(WAIT_MS)
    page.goto(url)
    page.wait_for_selector("#s4v-examples img")
    page.wait_for_selector("#s4v-models .s4v-facts")
    return page


def take_example(page: Page, number: int) -> None:
    """Choose an example, and wait until it is read."""
    page.locator("#s4v-examples .thumbnail-item").nth(number).click()
    page.wait_for_selector("#s4v-facts .s4v-facts")


def upload(page: Page, path: Path) -> None:
    """Give the page a file."""
    page.locator("#s4v-upload input[type=file]").set_input_files(str(path))


def ask(page: Page, question: str) -> None:
    """Type a question and send it."""
    box = page.locator("#s4v-question textarea")
    box.fill(question)
    box.press("Enter")


def answers(page: Page, count: int) -> list[str]:
    """Return what the model said, once there are ``count`` answers and none is being made."""
    page.wait_for_function(
        """count => document.querySelectorAll('#s4v-chat .bot.message').length === count
            && !document.querySelector('#s4v-chat .pending, #s4v-chat .generating')
            && [...document.querySelectorAll('#s4v-chat .bot.message')].every(one => one.innerText.trim())""",
        arg=count,
    )
    messages = page.locator("#s4v-chat .bot.message")
    before, told = None, messages.all_inner_texts()
    while told != before:  # busy cores let an answer pause
        page.wait_for_timeout(1000)
        before, told = told, messages.all_inner_texts()
    return [text.strip() for text in told]


def take_pictures(folder: Path) -> None:
    """Save the Chat and the Caption tab, with the built-in models at work, as PNG files."""
    executable = chromium()
    if executable is None:
        sys.exit("there is no Chromium on this machine")
    models = ("--model", "builtin:nano-base", "--captioner", "builtin:nano-captioner")
    with running_app(*models, "--port", "7869") as (url, _), browser(executable) as running:
        page = opened(running, url)
        take_example(page, 0)
        ask(page, "What happens in the video?")
        answers(page, 1)
        ask(page, "Which objects are there?")
        answers(page, 2)
        page.wait_for_timeout(1000)
        page.screenshot(path=folder / "demo-ui-chat.png", full_page=True)
        page.get_by_role("tab", name="Caption").click()
        page.locator("#s4v-sliding").click()
        page.wait_for_selector("#s4v-whole .s4v-whole")
        page.locator("#s4v-span").click()
        page.wait_for_selector("#s4v-span-caption .s4v-whole")
        page.wait_for_timeout(1000)
        page.screenshot(path=folder / "demo-ui-caption.png", full_page=True)


if __name__ == "__main__":
    take_pictures(Path(sys.argv[1]))
