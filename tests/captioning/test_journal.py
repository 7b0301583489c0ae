from __future__ import annotations

import multiprocessing
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from share4video.captioning import journal as journal_module
from share4video.captioning.client import Completion
from share4video.captioning.journal import open_journal
from share4video.errors import UserError

ANSWER = Completion("A ball, “red”.\nIt rolls.", "stop", 12, 9)


def keep(path_hint: str, *records: tuple[str, str, Completion]) -> Path:
    with open_journal(path_hint) as journal:
        for record in records:
            journal.record(*record)
        return journal.path


def test_what_was_recorded_is_there_again(work_root: Path) -> None:
    empty = Completion("", "length", 12, 0)
    keep("out/1", ("clip", "first-0-0", ANSWER), ("clip", "summary-0", empty))
    with open_journal("out/1") as journal:
        assert journal.get("clip", "first-0-0") == ANSWER
        assert journal.get("clip", "summary-0") == empty
        assert journal.get("clip", "first-0-1") is None
        assert len(journal) == 2
    with open_journal("out/2") as other:
        assert len(other) == 0


def test_a_removed_journal_starts_anew(work_root: Path) -> None:
    with open_journal("out") as journal:
        journal.record("clip", "call", ANSWER)
        journal.remove()
    with open_journal("out") as journal:
        assert len(journal) == 0


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(st.integers(1, 2000))
def test_a_file_cut_anywhere_keeps_its_whole_lines_and_goes_on(work_root: Path, cut: int) -> None:
    records = [("clip", f"call-{n}", Completion(f"text {n}", "stop", n, n)) for n in range(5)]
    path = keep(f"cut/{cut}", *records)
    data = path.read_bytes()[:cut]
    path.write_bytes(data)
    whole = data.count(b"\n")
    with open_journal(f"cut/{cut}") as journal:
        assert len(journal) == whole
        journal.record("clip", "later", ANSWER)
    with open_journal(f"cut/{cut}") as journal:
        assert len(journal) == whole + 1
        assert journal.get("clip", "later") == ANSWER
    path.unlink()


LINES = 6


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(st.data())
def test_damage_anywhere_costs_the_calls_it_touches_and_alters_none(
    work_root: Path, data: st.DataObject
) -> None:
    records = [(f"clip-{n}", "call", Completion(f"text {n}\n", "stop", n, n)) for n in range(LINES)]
    path = keep("damaged", *records)
    whole = path.read_bytes()
    begins = data.draw(st.integers(0, len(whole) - 1))
    ends = data.draw(st.integers(begins, min(len(whole), begins + 80)))
    path.write_bytes(whole[:begins] + data.draw(st.binary(max_size=80)) + whole[ends:])
    lines = whole.splitlines(keepends=True)
    places = [sum(map(len, lines[:n])) for n in range(LINES + 1)]
    try:
        with open_journal("damaged") as journal:
            for n, (clip, call, answer) in enumerate(records):
                untouched = places[n + 1] < begins or places[n] > ends
                assert journal.get(clip, call) in ([answer] if untouched else [answer, None])
            journal.record("clip", "later", ANSWER)
        with open_journal("damaged") as journal:
            assert journal.get("clip", "later") == ANSWER
    finally:
        path.unlink()


def test_a_changed_letter_is_damage(work_root: Path) -> None:
    path = keep("out", *[("clip", f"call-{n}", ANSWER) for n in range(3)])
    lines = path.read_bytes().splitlines(keepends=True)
    assert b"rolls" in lines[1]
    path.write_bytes(lines[0] + lines[1].replace(b"rolls", b"falls") + lines[2])
    with open_journal("out") as journal:
        assert [journal.get("clip", f"call-{n}") is not None for n in range(3)] == [True, False, True]


def test_what_answers_took_is_known_after_a_stop(work_root: Path) -> None:
    with open_journal("out") as journal:
        journal.record("clip", "one", Completion("a", "stop", 5, 2), "captioner")
        journal.record("clip", "two", Completion("b", "stop", 3, 1), "summarizer")
        spent = journal.spent.counts()
    with open_journal("out") as journal:
        assert journal.spent.counts() == spent
        assert journal.spent.tokens == 11


def test_answers_are_not_kept_in_memory(work_root: Path) -> None:
    answer = Completion("x" * 10_000, "stop", 1, 1)
    with open_journal("out") as journal:
        journal.record("clip", "call", answer)
        tracemalloc.start()
        for n in range(2000):
            journal.record(f"clip-{n}", "call", answer)
        grown, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert journal.get("clip-1999", "call") == answer
    assert grown < 200_000


def test_nothing_is_left_of_a_journal_that_is_done_with(work_root: Path) -> None:
    with open_journal("out") as journal:
        journal.record("clip", "call", ANSWER)
        journal.remove()
    assert list((work_root / "journals").iterdir()) == []


def _hold(started: Callable[[], None], wait: Callable[[], None]) -> None:
    with open_journal("out") as journal:
        journal.record("clip", "call", ANSWER)
        started()
        wait()


def test_a_journal_has_one_writer(work_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = multiprocessing.get_context("fork")
    started, release = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(started.set, release.wait))
    holder.start()
    assert started.wait(20)
    monkeypatch.setattr(journal_module, "_LOCK_TIMEOUT_S", 0.3)
    with pytest.raises(UserError, match="another run"), open_journal("out"):
        pass
    holder.kill()  # the kernel frees the lock, whatever became of its holder
    holder.join()
    with open_journal("out") as journal:
        assert journal.get("clip", "call") == ANSWER


def test_a_full_disk_is_said(work_root: Path) -> None:
    with open_journal("out") as journal:
        journal.record("clip", "first", ANSWER)
        (number,) = [
            int(link.name)
            for link in Path("/proc/self/fd").iterdir()
            if os.path.realpath(link) == str(journal.path.resolve())
        ]
        kept, full = os.dup(number), os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, number)
        with pytest.raises(UserError, match="the disk is full"):
            journal.record("clip", "second", ANSWER)
        os.dup2(kept, number)
        os.close(kept)
        os.close(full)
        assert journal.get("clip", "second") is None
    with open_journal("out") as journal:
        assert journal.get("clip", "first") == ANSWER
