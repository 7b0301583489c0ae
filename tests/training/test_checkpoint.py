"""States of a training in the store: the newest one that is whole counts."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from share4video.store import Store
from share4video.training.checkpoint import KEPT_STATES, Interrupted, StopSignal, TrainingStates


def _state(folder: Path, text: str) -> Path:
    (folder / "sub").mkdir(parents=True, exist_ok=True)
    (folder / "trained.safetensors").write_text(text, encoding="utf-8")
    (folder / "sub" / "optimizer.pt").write_text(text * 2, encoding="utf-8")
    return folder


def _fetched(states: TrainingStates, folder: Path) -> str | None:
    found = states.fetch_newest(folder)
    if found is None:
        return None
    text = (found / "trained.safetensors").read_text(encoding="utf-8")
    assert (found / "sub" / "optimizer.pt").read_text(encoding="utf-8") == text * 2
    return text


def test_the_newest_state_is_fetched_and_old_ones_go(any_store: Store, tmp_path: Path) -> None:
    states = TrainingStates(any_store, "key")
    assert states.fetch_newest(tmp_path / "none") is None
    for step in (5, 9, 10, 100):
        states.push(_state(tmp_path / "state", f"step {step}"), step)
    assert _fetched(states, tmp_path / "fetched") == "step 100"
    manifests = [key for key in any_store.list("training-states/key") if key.endswith("manifest.json")]
    assert len(manifests) == KEPT_STATES
    assert TrainingStates(any_store, "other").fetch_newest(tmp_path / "other") is None
    states.clear()
    assert not list(any_store.list("training-states"))


@pytest.mark.parametrize("damage", ["truncated", "missing", "no manifest", "bad manifest"])
def test_a_state_that_is_not_whole_does_not_count(store: Store, tmp_path: Path, damage: str) -> None:
    states = TrainingStates(store, "key")
    states.push(_state(tmp_path / "a", "old"), 10)
    states.push(_state(tmp_path / "b", "new"), 20)
    newest = "training-states/key/step-00000020"
    match damage:
        case "truncated":
            store.put(f"{newest}/sub/optimizer.pt", b"new")
        case "missing":
            store.delete(f"{newest}/trained.safetensors")
        case "no manifest":
            store.delete(f"{newest}/manifest.json")
        case "bad manifest":
            store.put(f"{newest}/manifest.json", b"{")
    assert _fetched(states, tmp_path / "fetched") == "old"


def test_a_stop_signal_is_noted_and_the_old_handler_comes_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopSignal() as stop:
        assert not stop.agreed()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.agreed()
    assert signal.getsignal(signal.SIGTERM) == before
    assert Interrupted(3).code == 143
