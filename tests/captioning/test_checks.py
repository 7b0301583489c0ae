from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from share4video.captioning.checks import failed_checks, loops
from share4video.captioning.client import Completion
from share4video.captioning.conversations import checked
from share4video.captioning.differential import Caption
from share4video.captioning.roles import leaks
from share4video.synthetic import language
from share4video.synthetic.world import sample_clip


@pytest.mark.parametrize(
    ("text", "truncated", "codes"),
    [
        ("A red ball rolls down the hill.", False, ()),
        ("", False, ("empty",)),
        (" \n\t", True, ("empty", "truncated")),
        ("A red ball", True, ("truncated",)),
        ("the the the the the the", False, ("repetition",)),
        ("It is very, very, very good.", False, ()),
        ("The ball rolls on. " * 3, False, ("repetition",)),
        ("The ball rolls on. " * 2, False, ()),
        ("up and down and up and down and up and down and up and down", False, ("repetition",)),
        ("Here it is. What happend before is: nothing.", False, ("prompt_leak",)),
        ("what HAPPEND before is: nothing", False, ("prompt_leak",)),
        ("<image> a ball", False, ("prompt_leak",)),
        ("A ball.<|end|>", False, ("prompt_leak",)),
    ],
)
def test_checks(text: str, truncated: bool, codes: tuple[str, ...]) -> None:
    assert failed_checks(text, truncated=truncated, leaks=leaks("sharecaptioner")) == codes


def test_control_tokens_do_not_reach_the_next_prompt() -> None:
    for raw, text in [
        ("A ball.<|end|>", "A ball."),
        ("[UNUSED_TOKEN_145] it", "it"),
        ("<image>", ""),
        ("</s> it rolls ", "it rolls"),
    ]:
        caption = checked(Completion(raw, "stop", 1, 1), "sharecaptioner")
        assert isinstance(caption, Caption)
        assert caption.text == text
        assert "prompt_leak" in caption.failed
        assert ("empty" in caption.failed) is not bool(text)


def test_a_numbered_list_of_like_events_is_no_loop() -> None:
    events = (f"At {n}.00 s the red circle moves left and the blue square moves up." for n in range(20))
    assert not loops(" ".join(events))


@pytest.mark.parametrize("seed", range(20))
def test_reference_captions_pass(seed: int) -> None:
    clip, rng = sample_clip(seed), np.random.default_rng(seed)
    times = [float(t) for t in np.arange(0.0, clip.duration_s, 2.0)]
    first = language.first_caption(clip.state_at(0.0), rng)
    later = [language.differential_caption(change, rng) for change in language.clip_changes(clip, times)]
    summary = language.summary_caption(list(zip(times, [first, *later], strict=True)))
    for text in (first, *later, summary):
        assert failed_checks(text, truncated=False, leaks=leaks("sharecaptioner")) == (), text


@given(st.text(), st.booleans())
def test_any_text_gets_an_answer(text: str, truncated: bool) -> None:
    codes = failed_checks(text, truncated=truncated, leaks=leaks("teacher"))
    assert list(codes) == sorted(set(codes))
    assert ("truncated" in codes) is truncated
    assert ("empty" in codes) is not bool(text.strip())


@given(st.lists(st.sampled_from("abcdefgh"), min_size=4, max_size=12), st.integers(3, 6))
def test_whatever_comes_three_times_on_end_is_a_loop(words: list[str], times: int) -> None:
    assert loops(" ".join(words * times))


@given(st.permutations(list("abcdefghijklmnopqrstuvwxyz")))
def test_words_that_never_recur_are_no_loop(words: list[str]) -> None:
    assert not loops(" ".join(words))
