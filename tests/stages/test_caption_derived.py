"""Short prompts and JSON captions, made in the caption stage of what it has captioned."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from share4video.captioning.client import Completion
from share4video.captioning.conversations import CaptionPlan, ClipConversation
from share4video.captioning.derived import DerivedConversation, DerivedPlan
from share4video.captioning.steps import without_digest
from share4video.captioning.structured import json_schema
from share4video.config import CaptionConfig, EngineSpec
from share4video.errors import UserError
from share4video.stages.caption import CaptionInputs, run_stage
from share4video.store import LocalStore
from tests.engines import FakeEngine, frames
from tests.serving.upstream_host import UpstreamHost, upstream_host
from tests.stages.caption_material import publish_inputs, rows_of

CONFIG = CaptionConfig(short_prompts=True, structured=True, shards=1)
RECORD = {"setting": "a field", "subjects": [], "actions": [], "camera": []}
SPAN = {"caption": "It stands.", "start_s": 0.0}


@pytest.fixture
def upstream() -> Iterator[UpstreamHost]:
    with upstream_host() as host:
        host.answer = answer
        yield host


def role_of(body: dict[str, Any]) -> str:
    """Tell the role by the system text."""
    system = body["messages"][0]["content"]
    return "structured" if "JSON" in system else "prompt" if "writing prompts" in system else "other"


def answer(body: dict[str, Any]) -> str:
    if role_of(body) == "other":
        return "Something stands there."
    given = body["messages"][1]["content"][0]["text"]
    if role_of(body) == "prompt":
        return f"A short one: {given}"
    last_s = float(given.splitlines()[-1].split(" at ")[1].split(" s:")[0])
    return "```json\n" + json.dumps({**RECORD, "spans": [{**SPAN, "end_s": last_s}]}) + "\n```"


def spec(upstream: UpstreamHost, **given: Any) -> EngineSpec:
    fields = {"model": "m", "revision": "1", "dialect": "teacher", "retries": 0, **given}
    return EngineSpec(url=upstream.base_url, **fields)


def run(store: LocalStore, engine: EngineSpec, config: CaptionConfig = CONFIG) -> dict[str, dict[str, Any]]:
    """Caption one clip of three key frames; return the captions' rows by role."""
    result = run_stage(CaptionInputs(*publish_inputs(store, [3]), engine), config, store)
    assert (result.rows_in, result.rows_out) == (1, 1)
    return {row["role"]: row for row in rows_of(store, result, "captions")}


def test_both_are_made_of_what_was_captioned(
    store: LocalStore, upstream: UpstreamHost, work_root: Path
) -> None:
    rows = run(store, spec(upstream))
    assert rows["prompt"]["caption"] == f"A short one: {rows['summary']['caption']}"
    stored = rows["structured"]["caption"]
    assert json.loads(stored) == {**RECORD, "spans": [{**SPAN, "end_s": 5.0}]}
    assert stored == json.dumps(json.loads(stored), sort_keys=True, separators=(",", ":"))
    for row in rows.values():
        assert (row["start_s"], row["end_s"], row["checks"], row["attempt"]) == (0.0, 30.0, [], 0)
        assert row["prompt_version"] == "teacher-2"
    assert len(upstream.seen) == 3 + 1 + 2
    assert all("response_format" not in body for body in upstream.seen)
    told = [body for body in upstream.seen if role_of(body) == "structured"]
    assert [len(body["messages"][1]["content"][0]["text"].splitlines()) for body in told] == [3]


def test_neither_is_made_unless_asked_for(store: LocalStore, upstream: UpstreamHost, work_root: Path) -> None:
    assert set(run(store, spec(upstream), CaptionConfig(shards=1))) == {"summary"}
    assert len(upstream.seen) == 4


def test_a_schema_goes_to_engines_that_take_one(
    store: LocalStore, upstream: UpstreamHost, work_root: Path
) -> None:
    run(store, spec(upstream, json_schema=True))
    for body in upstream.seen:
        asked = body.get("response_format")
        if role_of(body) == "structured":
            assert asked["type"] == "json_schema"
            assert asked["json_schema"]["schema"] == json_schema()
        else:
            assert asked is None


def test_a_malformed_object_is_asked_for_once_more(
    store: LocalStore, upstream: UpstreamHost, work_root: Path
) -> None:
    seen: list[dict[str, Any]] = []

    def malformed_at_first(body: dict[str, Any]) -> str:
        if role_of(body) != "structured":
            return answer(body)
        seen.append(body)
        return "no JSON" if len(seen) == 1 else answer(body)

    upstream.answer = malformed_at_first
    row = run(store, spec(upstream))["structured"]
    assert (row["attempt"], row["checks"], len(seen)) == (1, [], 2)
    assert (seen[0]["temperature"], "seed" in seen[0]) == (0.0, False)
    assert seen[1]["temperature"] > 0 and "seed" in seen[1]


def test_what_stays_malformed_is_flagged_and_costs_nothing_else(
    store: LocalStore, upstream: UpstreamHost, work_root: Path
) -> None:
    late = json.dumps({**RECORD, "spans": [{**SPAN, "end_s": 5.5}]})  # half a second after the last key frame
    upstream.answer = lambda body: late if role_of(body) == "structured" else answer(body)
    rows = run(store, spec(upstream))
    assert rows["structured"]["checks"] == ["malformed"]
    assert rows["structured"]["caption"] == late
    assert rows["prompt"]["checks"] == rows["summary"]["checks"] == []


def test_a_call_that_fails_for_good_is_flagged(
    store: LocalStore, upstream: UpstreamHost, work_root: Path
) -> None:
    def refuses(body: dict[str, Any]) -> str:
        upstream.refuse_with = (400, {"error": "no"}) if role_of(body) == "prompt" else None
        return answer(body)

    upstream.answer = refuses  # from the short prompt on, which is the first to be derived
    rows = run(store, spec(upstream))
    assert rows["prompt"]["checks"] == []
    assert (rows["structured"]["caption"], rows["structured"]["checks"]) == ("", ["call_failed"])
    assert rows["summary"]["caption"]


def test_calls_that_all_fail_are_no_clips_fault(
    store: LocalStore, fake_engine: FakeEngine, work_root: Path
) -> None:
    """As those of an engine that takes no schema: nothing is published, and what was answered is kept."""
    fake_engine.settings(bad_prompt="JSON object")
    engine = fake_engine.spec(dialect="teacher", json_schema=True)
    inputs = CaptionInputs(*publish_inputs(store, [2, 3], parts=1), engine)
    with pytest.raises(
        UserError, match=r"every call for role structured failed \(fake\): set its json_schema"
    ):
        run_stage(inputs, CONFIG, store)
    fake_engine.settings()
    assert run_stage(inputs, CONFIG, store).rows_out == 2
    assert all("JSON object" in call["prompt"] for call in fake_engine.calls())


def test_a_stopped_run_goes_on_with_what_is_derived(
    store: LocalStore, upstream: UpstreamHost, work_root: Path
) -> None:
    def stops(body: dict[str, Any]) -> str:
        upstream.refuse_with = (401, {"error": "no"}) if role_of(body) == "prompt" else None
        return answer(body)

    upstream.answer = stops
    with pytest.raises(UserError, match="refused the key"):
        run(store, spec(upstream))
    upstream.reset()
    upstream.answer = answer
    rows = run(store, spec(upstream))
    assert [role_of(body) for body in upstream.seen] == ["structured"]
    assert rows["prompt"]["caption"].startswith("A short one")


@pytest.mark.parametrize("setting", ["short_prompts", "structured"])
def test_prompts_without_the_role_are_refused_before_anything_is_asked(
    store: LocalStore, upstream: UpstreamHost, work_root: Path, setting: str
) -> None:
    config = CaptionConfig(shards=1, **{setting: True})
    with pytest.raises(UserError, match="sharecaptioner prompts have no role"):
        run(store, spec(upstream, dialect="sharecaptioner"), config)
    assert upstream.seen == []


def test_own_prompts_are_named_in_rows_and_keys(
    store: LocalStore, upstream: UpstreamHost, work_root: Path
) -> None:
    """The captioner's are one person's, the summarizer's another dialect's."""

    def own(words: str) -> EngineSpec:
        roles = {"difference": {"user": f"{words} Before: {{before}}"}}
        return spec(upstream, prompts={"name": "mine", "base": "teacher", "roles": roles})

    config = CaptionConfig(shards=1)
    refs = publish_inputs(store, [3])
    keys = []
    for words in ("What is new?", "What has changed?"):
        inputs = CaptionInputs(*refs, own(words), spec(upstream, model="words", dialect="sharecaptioner"))
        result = run_stage(inputs, config, store)
        keys.append(result.ref.key)
        (version,) = {row["prompt_version"] for row in rows_of(store, result, "differentials")}
        assert re.fullmatch(r"mine-[0-9a-f]{12}", version)
        assert {row["dialect"] for row in rows_of(store, result, "differentials")} == {"mine"}
        assert {row["dialect"] for row in rows_of(store, result, "captions")} == {"sharecaptioner"}
        asked = [body["messages"][-1]["content"][-1]["text"] for body in upstream.seen[-3:-1]]
        assert [text.partition(" Before: ")[0] for text in asked] == [words] * 2
    assert keys[0] != keys[1]


def test_a_clip_out_of_time_keeps_what_it_has(
    store: LocalStore, upstream: UpstreamHost, work_root: Path
) -> None:
    """Its captions are there when its short prompt takes longer than the clip may."""

    def slow(body: dict[str, Any]) -> str:
        if role_of(body) == "prompt":
            time.sleep(3)
        return answer(body)

    upstream.answer = slow
    rows = run(store, spec(upstream), CONFIG.model_copy(update={"clip_timeout_s": 2.0}))
    assert rows["summary"]["caption"]
    assert not rows["summary"]["checks"]
    for role in ("prompt", "structured"):
        assert (rows[role]["caption"], rows[role]["checks"]) == ("", ["call_failed"])


def test_a_derived_call_is_named_by_what_it_is_derived_from(upstream: UpstreamHost) -> None:
    engine = spec(upstream)

    def keys(summary: str) -> list[str]:
        clip = ClipConversation("clip", frames(1), CaptionPlan.of(CONFIG, engine, None))
        talk = DerivedConversation(clip, DerivedPlan.of(CONFIG, engine))
        asked = []
        answers = iter(["A field.", summary, "A short one.", "no JSON", "no JSON"])
        while (call := talk.next()) is not None:
            asked.append(call.key)
            talk.take(call, Completion(next(answers), "stop", 1, 1))
        return asked

    first, again, other = keys("It is green."), keys("It is green."), keys("It is wide.")
    assert [without_digest(key) for key in first] == [
        "first-0-0",
        "summary-0",
        "prompt-0",
        "structured-0",
        "structured-1",
    ]
    assert first == again
    assert [one == two for one, two in zip(first, other, strict=True)] == [True, True, False, True, True]
