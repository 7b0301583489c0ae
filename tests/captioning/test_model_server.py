"""Against a real ``transformers serve``; one server for the whole file."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import psutil
import pytest

from share4video.captioning.client import ChatClient, ChatRequest, Completion, image_part, text_part
from share4video.captioning.engine import (
    ENDPOINTS_VARIABLE,
    answer_all,
    connect,
    connect_all,
    identity,
    resolve,
)
from share4video.captioning.model_server import SERVER_VARIABLE, ModelServer, running_server, serve_models
from share4video.config import EngineSpec
from share4video.errors import UserError
from tests.engines import FakeEngine, picture


def request(text: str, colour: str | None = None, max_tokens: int = 6) -> ChatRequest:
    images = [image_part(picture(colour))] if colour else []
    return ChatRequest([{"role": "user", "content": [*images, text_part(text)]}], max_tokens)


def spec(folder: Path) -> EngineSpec:
    return EngineSpec(model_path=str(folder), request_timeout_s=60, retries=0)


def test_two_models_answer_from_one_process(model_server: ModelServer, checkpoints: dict[str, Path]) -> None:
    with connect_all([spec(path) for path in checkpoints.values()]) as endpoints:
        assert {endpoint.base_url for endpoint in endpoints} == {model_server.base_url}
        answers = [answer_all(endpoint, {"a": lambda: request("hello")})["a"] for endpoint in endpoints]
    assert all(isinstance(answer, Completion) and answer.prompt_tokens for answer in answers)
    assert answers[0] != answers[1]


def test_images_reach_the_model_and_greedy_answers_are_repeatable(
    model_server: ModelServer, checkpoints: dict[str, Path]
) -> None:
    with connect(spec(checkpoints["captioner"])) as endpoint:
        requests = {
            name: partial(request, "what?", colour, 24)
            for name, colour in [("red", "red"), ("blue", "blue"), ("red again", "red"), ("none", None)]
        }
        answers = answer_all(endpoint, requests)
    assert answers["red"] == answers["red again"]
    red, none = answers["red"], answers["none"]
    assert isinstance(red, Completion)
    assert isinstance(none, Completion)
    assert red.prompt_tokens > none.prompt_tokens + 36  # the tower's patches


def test_a_prefill_opens_the_answer(model_server: ModelServer, checkpoints: dict[str, Path]) -> None:
    from share4video.synthetic.nano import load_processor

    folder = checkpoints["captioner"]

    async def talk() -> tuple[Completion, Completion]:
        with connect(spec(folder)) as endpoint:
            async with ChatClient(endpoint) as client:
                messages = [{"role": "user", "content": "which?"}]
                plain = await client.chat(messages, max_tokens=4)
                return plain, await client.chat(messages, max_tokens=4, prefill="Best option:(")

    plain, opened = asyncio.run(talk())
    tokenizer = load_processor(folder).tokenizer
    assert opened.prompt_tokens == plain.prompt_tokens + len(tokenizer("Best option:(")["input_ids"])


def test_a_second_attempt_differs_and_is_repeatable(
    model_server: ModelServer, checkpoints: dict[str, Path]
) -> None:
    """The server decodes these models greedily at any temperature; the penalty is what it honours."""
    plain = request("hello", "green", max_tokens=24)
    again = ChatRequest(plain.messages, 24, temperature=0.7, seed=11, frequency_penalty=9.0)
    with connect(spec(checkpoints["captioner"])) as endpoint:
        answers = answer_all(endpoint, {"plain": lambda: plain, "1": lambda: again, "2": lambda: again})
    assert answers["1"] == answers["2"] != answers["plain"]


def test_a_limit_is_a_limit(model_server: ModelServer, checkpoints: dict[str, Path]) -> None:
    with connect(spec(checkpoints["captioner"])) as endpoint:
        answer = answer_all(endpoint, {"a": lambda: request("go on", max_tokens=3)})["a"]
    assert isinstance(answer, Completion)
    assert answer.truncated
    assert answer.completion_tokens == 3


def test_a_later_model_is_loaded_into_the_running_server_by_a_child(
    model_server: ModelServer, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    later = tmp_path / "tuned@1:2"  # characters that mean something in the server's model names
    shutil.copytree(checkpoints["summarizer"], later)
    (later / "note.txt").write_text("another revision")
    code = f"""
from share4video.captioning.engine import ChatRequest, answer_all, connect
from share4video.config import EngineSpec
with connect(EngineSpec(model_path={str(later)!r})) as endpoint:
    request = ChatRequest([{{"role": "user", "content": "hi"}}], 4)
    print(endpoint.base_url, answer_all(endpoint, {{"a": lambda: request}})["a"].completion_tokens)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == model_server.base_url


def test_weights_that_do_not_fit_the_architecture_are_refused(
    model_server: ModelServer, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    from safetensors.numpy import load_file, save_file

    broken = tmp_path / "broken"
    shutil.copytree(checkpoints["captioner"], broken)
    tensors = load_file(broken / "model.safetensors")
    name = next(name for name in tensors if "q_proj" in name)
    del tensors[name]
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="1 missing") as caught, connect(spec(broken)):
        pass
    assert "q_proj" in caught.value.what
    assert caught.value.where == str(broken)
    assert str(model_server.log) in caught.value.fix
    with connect(spec(checkpoints["captioner"])):  # the server is none the worse
        pass


def test_models_asked_for_at_once_are_all_loaded(
    model_server: ModelServer, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    copies = []
    for number in range(4):
        folder = tmp_path / f"copy-{number}"
        shutil.copytree(checkpoints["summarizer"], folder)
        (folder / "share4video.json").write_text(f'{{"domain": "synthetic", "copy": {number}}}')
        copies.append(folder)
    with ThreadPoolExecutor(4) as pool:
        names = list(pool.map(model_server.load, copies))
    assert all(names)


def test_an_address_in_the_environment_goes_first(
    model_server: ModelServer,
    checkpoints: dict[str, Path],
    fake_engine: FakeEngine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    named = spec(checkpoints["captioner"])
    monkeypatch.setenv(ENDPOINTS_VARIABLE, json.dumps({identity(named): f"{fake_engine.base_url}#other"}))
    with connect(named) as endpoint:
        assert (endpoint.base_url, endpoint.model) == (fake_engine.base_url, "other")
    gone = json.dumps({identity(named): "http://127.0.0.1:9/v1#other"})
    monkeypatch.setenv(ENDPOINTS_VARIABLE, gone)
    with connect(named) as endpoint:
        assert endpoint.base_url == model_server.base_url


def test_identity_names_content_not_place(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    here = spec(checkpoints["captioner"])
    there = tmp_path / "captioner"
    shutil.copytree(checkpoints["captioner"], there)
    assert identity(here) == identity(spec(there))
    assert identity(resolve(here)) == identity(here)
    assert str(tmp_path) not in identity(spec(there))
    assert identity(EngineSpec(url="http://somewhere/v1", model="m")) == "m@unversioned"
    with pytest.raises(UserError, match="not named"):
        resolve(EngineSpec(url="http://somewhere/v1"))


def test_a_port_in_use_is_said_before_anything_starts(work_root: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"cannot listen on port {port}"), serve_models([], port=port):
            pass


def test_a_missing_folder_is_said_before_anything_starts(work_root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such model folder"), connect(spec(tmp_path / "nothing")):
        pass
    assert not (work_root / "logs").exists()


def test_a_server_that_dies_at_its_start_is_said_with_its_log(
    work_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "path" / "transformers"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('no such luck')")
    monkeypatch.setenv("PYTHONPATH", str(broken.parent))
    with pytest.raises(UserError, match="no such luck") as caught, serve_models([]):
        pass
    assert "no such luck" in Path(caught.value.where).read_text()


def test_a_stale_address_is_passed_over(tmp_path: Path) -> None:
    fields = {"base_url": "http://127.0.0.1:9/v1", "log": "x"}
    (tmp_path / "server.json").write_text(json.dumps(fields))
    assert running_server({SERVER_VARIABLE: str(tmp_path)}) is None
    assert running_server({SERVER_VARIABLE: str(tmp_path / "gone")}) is None
    assert running_server({}) is None


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_no_server_outlives_its_owner(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    code = f"""
import time
from functools import partial
from pathlib import Path
from share4video.captioning.model_server import serve_models
with serve_models([Path({str(checkpoints["summarizer"])!r})]) as server:
    print(server.base_url, flush=True)
    time.sleep(600)
"""
    environment = {**os.environ, "SHARE4VIDEO_WORK": str(tmp_path)}
    owner = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert owner.stdout is not None
    assert owner.stdout.readline().startswith("http://127.0.0.1:")
    family = psutil.Process(owner.pid).children(recursive=True)
    assert len(family) >= 2
    owner.kill()
    owner.communicate(timeout=15)
    deadline = time.monotonic() + 8
    while any(process.is_running() for process in family) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [process for process in family if process.is_running()]
    assert list(tmp_path.glob("logs/model-server-*.log"))


def test_two_settings_of_one_checkpoint_share_its_server(
    model_server: ModelServer, checkpoints: dict[str, Path]
) -> None:
    one = spec(checkpoints["summarizer"])
    other = one.model_copy(update={"max_in_flight": 9, "dialect": "teacher"})
    with connect_all([one, other]) as (first, second):
        assert (first.base_url, first.model) == (second.base_url, second.model)
        assert (first.spec.max_in_flight, second.spec.max_in_flight) == (4, 9)
        assert (first.spec.wording, second.spec.wording) == ("sharecaptioner", "teacher")
