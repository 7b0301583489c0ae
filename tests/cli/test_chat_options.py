"""``share4video chat``: endpoints that take no clips, pictures, drawn answers, models in this process."""

from __future__ import annotations

import base64
import fcntl
import io
import os
import shutil
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from click.testing import Result
from PIL import Image, ImageChops
from typer.testing import CliRunner

import share4video
from serving.gateway.process import Gateway, free_port, gateway_process
from serving.gateway.settings import GatewaySettings
from share4video.chat import PRE_QUERY
from share4video.cli.main import app
from share4video.media.compose import frame_grid
from share4video.media.decode import uniform_frames
from share4video.models.chat_session import Decoding, load_chat_model
from share4video.synthetic.clips import sample_clip
from share4video.synthetic.clips import write_clip as write_synthetic
from tests.serving.clips import write_clip, write_noise
from tests.serving.upstream_host import MODEL, MODEL_NAME, WORDS, UpstreamHost

ANSWER = "".join(WORDS)
NANO = Path(share4video.__file__).parent / "synthetic" / "weights" / "nano-base"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("chat")


@pytest.fixture(scope="module")
def clip(folder: Path) -> Path:
    return write_clip(folder / "clip.mp4")


@pytest.fixture(scope="module")
def synthetic(folder: Path) -> Path:
    write_synthetic(folder / "synthetic.mp4", sample_clip(5, duration_s=(10.0, 10.0)))
    return folder / "synthetic.mp4"


@pytest.fixture(scope="module")
def gateway(running_upstream: UpstreamHost, folder: Path) -> Iterator[Gateway]:
    settings = GatewaySettings(
        upstream_url=running_upstream.base_url,
        upstream_model=MODEL,
        model_name=MODEL_NAME,
        host="127.0.0.1",
        port=free_port(),
    )
    with gateway_process(settings, log=folder / "gateway.log") as running:
        yield running


def ask(*arguments: str, stdin: str = "") -> Result:
    return CliRunner().invoke(app, ["chat", *arguments], input=stdin)


def shown(upstream: UpstreamHost) -> Image.Image:
    """The picture the endpoint was sent."""
    (part,) = [part for part in upstream.seen[-1]["messages"][0]["content"] if part["type"] == "image_url"]
    head, _, data = part["image_url"]["url"].partition(",")
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def same(one: Image.Image, other: Image.Image) -> bool:
    return one.size == other.size and ImageChops.difference(one.convert("RGB"), other).getbbox() is None


@pytest.mark.parametrize("option", ["--url", "--model"])
def test_an_endpoint_that_takes_no_clips_is_sent_the_grid(
    upstream: UpstreamHost, clip: Path, option: str
) -> None:
    run = ask("--video", str(clip), option, upstream.base_url, "--query", "What happens?")
    assert (run.exit_code, run.stdout) == (0, f"{ANSWER}\n")
    assert upstream.seen[0]["model"] == MODEL
    assert upstream.seen[0]["messages"][0]["content"][1]["text"] == PRE_QUERY + "What happens?"
    assert same(shown(upstream), frame_grid([frame.image for frame in uniform_frames(clip, 16)]))


def test_a_gateway_is_sent_the_clip_unless_something_else_is_asked(
    upstream: UpstreamHost, gateway: Gateway, clip: Path
) -> None:
    grids = {
        frames: frame_grid([frame.image for frame in uniform_frames(clip, frames)]) for frames in (16, 4)
    }
    for options, frames in (((), 16), (("--send", "frames-grid"), 16), (("--frames", "4"), 4)):
        run = ask("--video", str(clip), "--url", gateway.url, "-q", "What?", *options)
        assert (run.exit_code, run.stdout) == (0, f"{ANSWER}\n")
        assert same(shown(upstream), grids[frames])  # the gateway's own grid, and ours, are the same
        assert upstream.seen[-1]["messages"][0]["content"][1]["text"] == PRE_QUERY + "What?"


def test_only_what_is_sent_as_it_is_must_be_small(
    upstream: UpstreamHost, clip: Path, synthetic: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plain endpoint is sent a grid, and a model in this process reads the file itself."""
    monkeypatch.setattr("share4video.chat_visuals.MAX_INLINE_BYTES", 2)
    assert ask("--video", str(clip), "--url", upstream.base_url, "What?").stdout == f"{ANSWER}\n"
    here = ("--model", str(NANO), "--runtime", "reference", "--max-tokens", "4")
    assert ask("--video", str(synthetic), *here, "What?").exit_code == 0
    run = ask("--video", str(synthetic), "--model", str(NANO), "--frames", "8", "What?")
    assert (run.exit_code, run.stdout) == (2, "")
    assert "at most 2 can be sent" in run.stderr
    assert "loading" not in run.stderr


def test_an_architecture_without_a_reference_runtime_names_the_option_that_asks_for_it(
    tmp_path: Path,
) -> None:
    shutil.copytree(NANO, tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text('{"model_type": "smolvlm"}')
    run = ask("--model", str(tmp_path / "model"), "--temperature", "0.7", "What?")
    assert (run.exit_code, run.stdout) == (2, "")
    assert "--temperature" in run.stderr
    assert "'smolvlm'" in run.stderr


def test_a_second_turn_holds_the_first_with_its_grid(upstream: UpstreamHost, clip: Path) -> None:
    run = ask("--video", str(clip), "--url", upstream.base_url, stdin="First?\nSecond?\n")
    assert run.stdout == f"{ANSWER}\n" * 2
    first, second = (request["messages"] for request in upstream.seen)
    assert second[:2] == [*first, {"role": "assistant", "content": ANSWER}]
    assert second[2:] == [{"role": "user", "content": "Second?"}]


def test_a_picture_and_words_alone(upstream: UpstreamHost, folder: Path) -> None:
    picture = folder / "picture.png"
    Image.new("RGB", (30, 20), "red").save(picture)
    assert ask("--image", str(picture), "--url", upstream.base_url, "What?").stdout == f"{ANSWER}\n"
    assert same(shown(upstream), Image.new("RGB", (30, 20), "red"))
    assert upstream.seen[-1]["messages"][0]["content"][1]["text"] == "What?"
    assert ask("--url", upstream.base_url, "Who?").stdout == f"{ANSWER}\n"
    assert upstream.seen[-1]["messages"] == [{"role": "user", "content": "Who?"}]


def test_how_an_answer_is_drawn_is_passed_on(upstream: UpstreamHost) -> None:
    ask("--url", upstream.base_url, "Who?")
    assert upstream.seen[-1]["temperature"] == 0
    assert not {"seed", "top_p", "stop"} & set(upstream.seen[-1])
    ask("--url", upstream.base_url, "Who?", "--temperature", "0.7", "--top-p", "0.9", "--seed", "3")
    assert [upstream.seen[-1][name] for name in ("temperature", "top_p", "seed")] == [0.7, 0.9, 3]


def test_a_stop_string_cuts_the_answer_and_what_is_remembered(upstream: UpstreamHost) -> None:
    run = ask("--url", upstream.base_url, "--stop", "d cir", "--stop", "zzz", stdin="First?\nSecond?\n")
    assert run.stdout == "a re\na re\n"
    assert upstream.seen[1]["messages"][1] == {"role": "assistant", "content": "a re"}


@pytest.mark.parametrize("listed", [[], None])  # transformers serve without a cache lists an error
def test_a_server_that_lists_no_model_needs_its_name(
    upstream: UpstreamHost, listed: list[str] | None
) -> None:
    upstream.models = listed
    run = ask("--url", upstream.base_url, "Who?")
    assert run.exit_code == 2
    assert "--name" in run.stderr
    assert ask("--url", upstream.base_url, "--name", "mine", "Who?").stdout == f"{ANSWER}\n"
    assert upstream.seen[-1]["model"] == "mine"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--url", "{url}", "--query", "a", "b"], "given twice"),
        (["--url", "{url}", "--video", "{clip}", "--image", "{clip}", "a"], "one clip or one picture"),
        (["--url", "{url}", "--frames", "4", "a"], "--frames is about a clip"),
        (["--url", "{url}", "--send", "video", "a"], "--send is about a clip"),
        (["--url", "{url}", "--video", "{clip}", "--send", "video", "--frames", "4", "a"], "chosen by the"),
        (["--url", "{url}", "--video", "https://x/clip.mp4", "a"], "takes no clips"),
        (["--url", "{url}", "--image", "{folder}/none.png", "a"], "cannot read the picture"),
        (["--url", "{url}", "--stop", "", "a"], "no empty string"),
        (["--url", "{url}", "--top-p", "0", "a"], "top_p is 0"),
        (["--url", "{url}", "--visual-path", "thumbnail", "a"], "--visual-path thumbnail is for a model"),
        (["--url", "{url}", "--device", "cpu", "a"], "--device is for a model"),
        (["--model", "{url}", "--runtime", "reference", "a"], "--runtime reference is for a model"),
        (
            ["--model", "builtin:nano-base", "--runtime", "http", "--dtype", "float16", "a"],
            "does not do --dtype",
        ),
        (
            ["--model", "builtin:nano-base", "--runtime", "reference", "--video", "https://x/y.mp4", "a"],
            "local files alone",
        ),
        (
            [
                "--model",
                "builtin:nano-base",
                "--runtime",
                "reference",
                "--video",
                "{clip}",
                "--send",
                "video",
                "a",
            ],
            "--send is for a model that is served",
        ),
    ],
)
def test_mistakes_are_one_sentence(
    upstream: UpstreamHost, folder: Path, clip: Path, options: list[str], sentence: str
) -> None:
    run = ask(*[one.format(url=upstream.base_url, clip=clip, folder=folder) for one in options])
    assert run.exit_code == 2
    assert sentence in run.stderr.splitlines()[-1]
    assert run.stdout == ""
    assert upstream.seen == []


def test_an_original_checkpoint_is_to_be_converted(folder: Path) -> None:
    original = folder / "original"
    original.mkdir()
    (original / "config.json").write_text('{"model_type": "llava_llama", "mm_vision_tower": "clip"}')
    for runtime in ("http", "reference"):
        run = ask("--model", str(original), "--runtime", runtime, "What?")
        assert (run.exit_code, run.stdout) == (2, "")
        assert "share4video convert" in run.stderr


def test_a_model_in_this_process_holds_a_conversation(synthetic: Path) -> None:
    questions = ("What happens in the video?", "What colour is it?")
    session = load_chat_model(NANO).open(synthetic)
    expected = ["".join(session.ask(one, Decoding(max_tokens=16))) for one in questions]
    options = ("--model", "builtin:nano-base", "--runtime", "reference", "--max-tokens", "16")
    run = ask("--video", str(synthetic), *options, stdin="\n".join(questions))
    assert (run.exit_code, run.stdout.splitlines()) == (0, expected)


def test_what_no_server_does_is_done_in_this_process(synthetic: Path, folder: Path) -> None:
    model = ("--model", "builtin:nano-base", "--max-tokens", "4", "What happens?")
    run = ask("--video", str(synthetic), "--visual-path", "thumbnail", *model)
    assert run.exit_code == 0
    assert "needed for --visual-path thumbnail" in run.stderr
    drawn = [ask("--video", str(synthetic), "--temperature", "1", "--seed", "5", *model) for _ in range(2)]
    assert "needed for --temperature" in drawn[0].stderr
    assert drawn[0].stdout == drawn[1].stdout
    foreign = ask("--video", str(write_noise(folder / "noise.mp4")), "--visual-path", "thumbnail", *model)
    assert foreign.exit_code == 2
    assert "nano-base knows only the synthetic clips" in foreign.stderr


class Terminal:
    """``share4video chat`` at a terminal of its own."""

    def __init__(self, *arguments: str) -> None:
        self.keyboard, screen = os.openpty()

        def take_terminal() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            [sys.executable, "-c", "from share4video.cli.main import app; app()", "chat", *arguments],
            stdin=screen,
            stdout=screen,
            stderr=screen,
            start_new_session=True,
            preexec_fn=take_terminal,
        )
        os.close(screen)
        self.seen = ""

    def wait_for(self, text: str) -> None:
        while text not in self.seen:
            self.seen += os.read(self.keyboard, 4096).decode()
        self.seen = self.seen.partition(text)[2]

    def type(self, keys: str) -> None:
        """Press keys once the command waits: a signal that comes just before a read is seen after it."""
        while psutil.Process(self.process.pid).status() != psutil.STATUS_SLEEPING:
            time.sleep(0.01)
        os.write(self.keyboard, keys.encode())


@pytest.mark.parametrize("last", ["\x04", "\x03"])
def test_a_conversation_at_a_terminal_ends_cleanly(upstream: UpstreamHost, last: str) -> None:
    """With the end of the input, and with Ctrl-C at the prompt."""
    terminal = Terminal("--url", upstream.base_url)
    terminal.wait_for("> ")
    terminal.type("Who?\n")
    terminal.wait_for(ANSWER)
    terminal.wait_for("> ")
    terminal.type(last)
    assert terminal.process.wait(30) == 0
    os.close(terminal.keyboard)


def test_ctrl_c_ends_the_answer_and_not_the_conversation(upstream: UpstreamHost) -> None:
    upstream.step = threading.Semaphore(1)
    terminal = Terminal("--url", upstream.base_url)
    terminal.wait_for("> ")
    terminal.type("First?\n")
    terminal.wait_for(WORDS[0] + WORDS[1])
    terminal.type("\x03")
    terminal.wait_for("not remembered")
    terminal.wait_for("> ")
    upstream.step.release(20)
    terminal.type("Second?\n")
    terminal.wait_for(ANSWER)
    terminal.wait_for("> ")
    terminal.type("\n")
    assert terminal.process.wait(30) == 0
    os.close(terminal.keyboard)
    assert upstream.seen[-1]["messages"] == [{"role": "user", "content": "Second?"}]
