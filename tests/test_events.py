"""Events travel whole: whatever is cut, mixed or foreign in the file, no event is lost or made up."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from share4video.events import EVENTS_VARIABLE, EventReader, StageEvent, append_event

EVENTS = st.builds(
    StageEvent,
    stage=st.text(max_size=8),
    kind=st.sampled_from(["started", "progress", "finished", "failed"]),
    label=st.text(max_size=20),
    done=st.integers(0, 9),
    rejects=st.dictionaries(st.text(max_size=5), st.integers(0, 9), max_size=2),
    metrics=st.dictionaries(
        st.text(max_size=5), st.floats(allow_nan=False, allow_infinity=False), max_size=2
    ),
)


@given(events=st.lists(EVENTS, max_size=6), cuts=st.lists(st.integers(0, 2000), max_size=6))
def test_a_reader_sees_every_event_once_however_the_file_grows(
    events: list[StageEvent], cuts: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("events") / "events.jsonl"
    lines = [event.model_dump_json(exclude_defaults=True) + "\n" for event in events]
    data = "".join(["not an event\n", *lines]).encode()
    reader, seen, written = EventReader(path), [], 0
    for end in [*sorted(min(cut, len(data)) for cut in cuts), len(data)]:
        with path.open("ab") as file:
            file.write(data[written:end])
        written = end
        seen += reader.read()
    assert seen == events
    assert reader.read() == []


def _write(path: str, stage: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(EVENTS_VARIABLE, path)
        for index in range(200):
            append_event(StageEvent(stage=stage, kind="progress", done=index, label="x" * 200))


def test_processes_side_by_side_do_not_mix_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    writers = [multiprocessing.Process(target=_write, args=(str(path), name)) for name in ("a", "b")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    seen = EventReader(path).read()
    assert len(seen) == 400
    for name in ("a", "b"):
        assert [event.done for event in seen if event.stage == name] == list(range(200))


def test_nothing_is_written_where_nobody_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(EVENTS_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    append_event(StageEvent(stage="a", kind="started"))
    assert not list(tmp_path.iterdir())
