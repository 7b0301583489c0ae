"""The app: a clip on the left, chat and captions on the right; and the server it runs in."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from share4video.captioning.engine import environment_of
from share4video.demo_ui.examples import Example, examples_in, synthetic_examples
from share4video.demo_ui.page import Page
from share4video.demo_ui.settings import Bounds

if TYPE_CHECKING:
    import gradio as gr

_TITLE = "share4video"
_SWEEP_S = 300  # how often uploads that are too old are looked for
_HEADER = (
    '<div class="s4v-header"><h1>share4video</h1>'
    "<p>Ask a video chat model about a clip, or have it captioned densely.</p></div>"
)
# Everything the page needs comes from this app: a script, a font or a picture from elsewhere does not load.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; frame-ancestors 'self'"
)


@dataclass(frozen=True)
class Folders:
    """Where the app keeps files while it runs.

    Attributes:
        uploads: what visitors gave and what the page shows; Gradio removes what is old.
        examples: the synthetic clips, and the posters of all examples.
    """

    uploads: Path
    examples: Path


@contextmanager
def work_folders() -> Iterator[Folders]:
    """Make the app's folders, and remove them in the end. Inside the block Gradio asks nobody anything."""
    with tempfile.TemporaryDirectory(prefix="share4video-demo-ui-") as name:
        root = Path(name).resolve()
        folders = Folders(root / "uploads", root / "examples")
        folders.uploads.mkdir()
        folders.examples.mkdir()
        values = {
            "GRADIO_TEMP_DIR": str(folders.uploads),
            "GRADIO_ANALYTICS_ENABLED": "False",
            "HF_HUB_OFFLINE": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        with environment_of(values):
            yield folders


def make_examples(folders: Folders, own: Path | None, bounds: Bounds) -> list[Example]:
    """Return the examples of a folder of the user's, and after them a few synthetic ones, which are made.

    Raises:
        UserError: there is no such folder, or no video in it.
    """
    mine = examples_in(own, folders.examples, bounds.limits) if own is not None else []
    return [*mine, *synthetic_examples(folders.examples)]


def build(page: Page, examples: Sequence[Example]) -> gr.Blocks:
    """Return the app, which is not served yet."""
    import gradio as gr

    from share4video.demo_ui import markup
    from share4video.demo_ui.caption_tab import CaptionTab
    from share4video.demo_ui.chat_tab import ChatTab
    from share4video.demo_ui.clip_panel import ClipPanel
    from share4video.demo_ui.session import Session

    bounds = page.bounds

    async def status() -> str:
        return markup.facts("\n".join(await page.greeting()))

    with gr.Blocks(
        title=_TITLE, analytics_enabled=False, delete_cache=(_SWEEP_S, bounds.kept_s), fill_width=True
    ) as blocks:
        session = gr.State(Session(), time_to_live=bounds.kept_s)
        with gr.Row(elem_classes="s4v-top"):
            gr.HTML(_HEADER)
            models = gr.HTML(elem_id="s4v-models")
        with gr.Row():
            with gr.Column(scale=4, min_width=320, elem_classes="s4v-clip"):
                clip = ClipPanel(page, examples, session)
            with gr.Column(scale=9, min_width=480), gr.Tabs():
                with gr.Tab("Chat", id="chat"):
                    chat = ChatTab(page, session)
                with gr.Tab("Caption", id="caption"):
                    captions = CaptionTab(page, session)
        clip.connect(
            chat.frames,
            [*chat.shown, *captions.shown],
            lambda shown: [*chat.begin(shown), *captions.begin(shown)],
            [*chat.running, *captions.running],
        )
        blocks.load(status, None, [models], api_visibility="private", show_progress="hidden")
    blocks.queue(max_size=bounds.waiting, default_concurrency_limit=bounds.at_once, api_open=False)
    built: gr.Blocks = blocks
    return built


@contextmanager
def serving_app(
    blocks: gr.Blocks, *, host: str, port: int, page: Page, examples: Sequence[Example]
) -> Iterator[str]:
    """Serve the app until the block ends, and give its address.

    Files that may be read through it: uploads, what was made for the page, and the examples, each by name.
    """
    import gradio as gr
    from starlette.middleware import Middleware

    served = [str(file) for one in examples for file in (one.path, one.poster)]
    theme = gr.themes.Soft(
        primary_hue="indigo",
        neutral_hue="slate",
        radius_size="md",
        font=["ui-sans-serif", "system-ui", "sans-serif"],
    )
    # secondary text, at least 4.5 to 1 on every ground it stands on; the theme's own has 2.6 on white
    theme.set(body_text_color_subdued="*neutral_600", input_placeholder_color="*neutral_500")
    with environment_of(_without_proxy(host)):
        _, url, _ = blocks.launch(
            server_name=host,
            server_port=port,
            share=False,
            quiet=True,
            inbrowser=False,
            prevent_thread_lock=True,
            show_error=False,
            max_file_size=page.bounds.max_bytes,
            allowed_paths=served,
            footer_links=[],
            run_history=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            enable_monitoring=False,
            strict_cors=True,
            theme=theme,
            css_paths=[Path(__file__).with_name("style.css")],
            app_kwargs={"middleware": [Middleware(OwnOrigin)]},
        )
    try:
        yield url.rstrip("/")
    finally:
        blocks.close(verbose=False)


class OwnOrigin:
    """Tells the browser to load nothing from elsewhere, whatever the page asks for."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", ()), (b"content-security-policy", _POLICY.encode())]
                headers += [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive, send_with_policy if scope["type"] == "http" else send)


def _without_proxy(host: str) -> dict[str, str]:
    """Return the environment in which Gradio reaches the server it has just started, proxy or no proxy."""
    own = ["127.0.0.1", "localhost", "::1", host]
    return {
        name: ",".join([*filter(None, [os.environ.get(name)]), *own]) for name in ("NO_PROXY", "no_proxy")
    }
