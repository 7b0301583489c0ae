"""The benchmark's protocol: prompts, the answer rule, and asking over real HTTP."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from share4video.captioning.client import Endpoint
from share4video.chat import PRE_QUERY
from share4video.config import EvaluateConfig
from share4video.errors import UserError
from share4video.evaluation import mvbench
from share4video.evaluation.grids import locate
from share4video.evaluation.mvbench import Session, names_option, parse_answer
from share4video.evaluation.questions import LETTERS, Question, read_questions
from tests.evaluation.engine_host import Body, EngineHost, engine_host, image_of, text_of
from tests.evaluation.material import HEIGHT, WIDTH, record, write_clip, write_questions

CONFIG = EvaluateConfig()


@pytest.fixture(scope="module")
def running() -> Iterator[EngineHost]:
    with engine_host() as host:
        yield host


@pytest.fixture
def host(running: EngineHost) -> EngineHost:
    running.seen.clear()
    running.peak = 0
    running.answer = lambda _: "A)"
    return running


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    write_clip(folder / "red.mp4", ["red"] * 2)
    write_clip(folder / "change.mp4", ["green", "blue"], seconds_each=2.0)
    (folder / "broken.mp4").write_bytes(b"not a video")
    return folder


@pytest.fixture
def questions(tmp_path: Path) -> list[Question]:
    colours = ["red", "green", "blue"]
    tasks = {
        "colour": [
            record("red.mp4", "What colour?", colours, "red"),
            record("change.mp4", "What colour first?", colours, "green", start=0.0, end=2.0),
            record("change.mp4", "What colour last?", colours, "blue", start=2.0, end=4.0),
        ],
        "order": [record("red.mp4", "What is first?", ["dark", "light"], "light")],
    }
    return read_questions(write_questions(tmp_path / "questions", tasks))


def session(host: EngineHost, *, allowed: int = 0, **spec: int) -> Session:
    resolved = host.spec(**spec)
    endpoint = Endpoint(str(resolved.url), resolved.model, resolved)
    return Session(endpoint, CONFIG, {"order": "temporal"}, allowed)


# ------------------------------------------------------------------ the answer rule


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("(A) red", "A"),
        ("(b", "B"),
        ("(C).", "C"),
        ("A", "A"),
        ("d.", "D"),
        ("(A)\nbecause", "A"),
        ("(A)(B)", None),  # names two
        ("(", None),
        ("", None),
        ("(1) red", None),
        ("(The", None),
        ("(H) none", None),
        ("(E) a fifth", None),  # of four candidates
        ("Answer (A)", None),  # the first word decides
    ],
)
def test_the_first_word_names_the_option(reply: str, letter: str | None) -> None:
    assert parse_answer(reply, 4) == letter


def reference_rule(pred: str, letter: str) -> bool:
    """The released check, on the first word."""
    words = pred.lower().split()
    option, truth = (words[0] if words else ""), f"({letter.lower()})"
    if not any(c in option for c in "abcdefg"):
        return False
    return option.strip(".") in truth or truth in option


@given(st.text(alphabet="abCDeg().: 1\n", max_size=8), st.integers(2, 7))
def test_parsing_follows_the_reference_wherever_one_option_is_named(reply: str, candidates: int) -> None:
    named = [x for x in LETTERS[:candidates] if reference_rule(reply, x)]
    assert parse_answer(reply, candidates) == (named[0] if len(named) == 1 else None)
    assert all(names_option(reply, x) == (x in named) for x in LETTERS[:candidates])


@given(st.text(max_size=30), st.integers(2, 7))
def test_any_reply_is_read(reply: str, candidates: int) -> None:
    assert parse_answer(reply, candidates) in {None, *LETTERS[:candidates]}


# ------------------------------------------------------------------ prompts


def test_the_prompt_is_the_benchmarks(questions: list[Question]) -> None:
    system, user = mvbench.messages(questions[0], None)
    assert system["content"].startswith(
        "Carefully watch the video and pay attention to the cause and sequence"
    )
    assert system["content"].endswith("that accurately addresses the question.\n")
    assert [part["text"] for part in user["content"]] == [
        PRE_QUERY
        + "Question: What colour?\nOptions:\n(A) red\n(B) green\n(C) blue\nOnly give the best option."
    ]


# ------------------------------------------------------------------ asking


def test_every_question_is_answered_from_its_own_span(
    host: EngineHost, questions: list[Question], clips: Path
) -> None:
    def look(body: Body) -> str:
        image = image_of(body)
        assert image is not None
        pixel = image.getpixel((10, 10))
        assert isinstance(pixel, tuple)
        options = text_of(body).partition("Options:\n")[2].splitlines()
        seen = ("red", "green", "blue")[pixel.index(max(pixel))]
        return next((line[1:] for line in options if line.endswith(seen)), "B) light")

    host.answer = look
    answers, failures = session(host).ask_all(questions, locate(questions, clips))
    assert failures == []
    assert all(answer.right for answer in answers)
    assert [a.question_id for a in answers] == sorted(q.id for q in questions)
    assert {a.task: a.group for a in answers} == {"colour": None, "order": "temporal"}


def test_requests_carry_the_grid_the_prefill_and_greedy_decoding(
    host: EngineHost, questions: list[Question], clips: Path
) -> None:
    session(host).ask_all(questions[:1], locate(questions, clips))
    (body,) = host.seen
    image = image_of(body)
    assert image is not None
    assert image.size == (4 * WIDTH + 3 * 50, 4 * HEIGHT + 3 * 50)
    assert body["messages"][1]["content"][0]["type"] == "image_url"
    assert body["messages"][2] == {"role": "assistant", "content": "Best option:("}
    assert (body["temperature"], body["max_tokens"]) == (0.0, 32)


def test_questions_about_one_span_share_one_decode(
    host: EngineHost, questions: list[Question], clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    composed = []
    grid = mvbench.grid
    monkeypatch.setattr(mvbench, "grid", lambda span, *rest: composed.append(span) or grid(span, *rest))
    session(host).ask_all(questions, locate(questions, clips))
    assert len(host.seen) == 4
    assert len(composed) == 3  # red.mp4 is asked about twice


def test_the_control_sees_no_image(host: EngineHost, questions: list[Question]) -> None:
    answers, _ = session(host).ask_all(questions, None)
    assert len(answers) == 4
    assert all(image_of(body) is None for body in host.seen)
    assert {text_of(body) for body in host.seen} == {
        PRE_QUERY + mvbench.question_block(question) for question in questions
    }


def test_requests_are_bounded(host: EngineHost, questions: list[Question]) -> None:
    def slow(_: Body) -> str:
        time.sleep(0.05)
        return "A)"

    host.answer = slow
    many = [question.model_copy(update={"id": f"{i:03d}"}) for i in range(8) for question in questions]
    answers, _ = session(host, max_in_flight=3).ask_all(many, None)
    assert len(answers) == len({question.id for question in many}) * 4
    assert host.peak == 3


def test_unreadable_replies_are_wrong_and_known(host: EngineHost, questions: list[Question]) -> None:
    host.answer = lambda _: "??"
    answers, failures = session(host).ask_all(questions, None)
    assert failures == []
    assert [(a.letter, a.right, a.text) for a in answers] == [(None, False, "(??")] * 4


def test_progress_counts_every_question(host: EngineHost, questions: list[Question]) -> None:
    steps: list[int] = []
    session(host).ask_all(questions, None, lambda: steps.append(1))
    assert len(steps) == 4


# ------------------------------------------------------------------ what fails


def test_a_failed_call_is_a_failure_and_no_wrong_answer(host: EngineHost, questions: list[Question]) -> None:
    host.answer = lambda body: 400 if "is first?" in text_of(body) else "A)"
    answers, failures = session(host, allowed=1).ask_all(questions, None)
    assert len(answers) == 3
    assert [(f.task, f.reason) for f in failures] == [("order", "engine_error")]


def test_too_many_failures_stop_the_evaluation(host: EngineHost, questions: list[Question]) -> None:
    host.answer = lambda body: 400
    with pytest.raises(UserError, match="2 questions got no answer where 1 may") as caught:
        session(host, allowed=1).ask_all(questions, None)
    assert "max_failed_share" in caught.value.fix


def test_failures_of_an_earlier_run_count(host: EngineHost, questions: list[Question]) -> None:
    host.answer = lambda body: 400 if "is first?" in text_of(body) else "A)"
    asking = session(host, allowed=1)
    asking.failed = 1
    with pytest.raises(UserError, match="2 questions got no answer"):
        asking.ask_all(questions, None)


def test_an_unreadable_video_is_a_failure_of_its_questions(
    host: EngineHost, clips: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tasks = {
        "t": [
            record("broken.mp4", "Which?", ["red", "blue"], "red"),
            record("red.mp4", "Which?", ["red", "blue"], "red"),
        ]
    }
    questions = read_questions(write_questions(tmp_path, tasks))
    answers, failures = session(host, allowed=1).ask_all(questions, locate(questions, clips))
    assert len(answers) == 1
    (failure,) = failures
    assert failure.reason == "unreadable_video"
    assert "broken.mp4: " in caplog.text


def test_an_engine_that_never_answers_is_named(questions: list[Question]) -> None:
    with engine_host() as gone:
        asking = session(gone, allowed=100)
    with pytest.raises(UserError, match="the engine does not answer") as caught:
        asking.ask_all(questions, None)
    assert caught.value.where == "tiny"


def test_an_inspector_may_refuse_a_clip(host: EngineHost, questions: list[Question], clips: Path) -> None:
    def refuse(frames: object, where: str) -> None:
        raise UserError("not this clip", where=where)

    asking = session(host)
    asking.inspect = refuse
    with pytest.raises(UserError, match="not this clip"):
        asking.ask_all(questions[:1], locate(questions, clips))
    assert host.seen == []
