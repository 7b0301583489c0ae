"""Captions that are fine and captions that are not, as models write them of real video."""

# ruff: noqa: RUF001  # other scripts look like others

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from share4video.captioning.checks import CheckContext, failed_checks, loops
from share4video.captioning.client import Completion
from share4video.captioning.conversations import checked
from share4video.captioning.differential import Caption, Step
from share4video.captioning.role_inputs import TimedCaption
from share4video.captioning.roles import leaks
from share4video.captioning.step_context import context_of
from share4video.config import ChecksConfig
from share4video.synthetic import language
from share4video.synthetic.twins import changed_clip, reversed_clip
from share4video.synthetic.world import Clip, sample_clip
from tests.synthetic.true_captions import true_captions

CONFIG = ChecksConfig()


def failed(text: str, *, truncated: bool = False, **known: Any) -> tuple[str, ...]:
    return failed_checks(text, truncated=truncated, context=CheckContext(**known))


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
def test_form(text: str, truncated: bool, codes: tuple[str, ...]) -> None:
    assert failed(text, truncated=truncated, leaks=leaks("sharecaptioner")) == codes


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
    events = " ".join(
        f"At {n}.00 s the red circle moves left and the blue square moves up." for n in range(20)
    )
    assert not loops(events)
    assert failed(events) == ()


ONE = "A man in a blue jacket stands at the counter and hands a paper bag to the woman across from him."
TWO = "Behind them the street is wet with rain, and a tram passes from right to left with its lights on."


@pytest.mark.parametrize(
    ("text", "fails"),
    [
        (f"{ONE} {TWO}", False),
        (f"{ONE} {TWO} {ONE}", False),
        (f"{ONE} {TWO} {ONE} {TWO} {ONE}", True),
        (f"{ONE} {ONE}", False),  # too short to say
        (f"{ONE} He smiles. {ONE} She nods. {ONE} They part. {ONE}", True),
    ],
)
def test_the_same_account_over_and_over(text: str, fails: bool) -> None:
    assert ("repeated_ngrams" in failed(text)) is fails


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with identifying people in this image.",
        "I\u2019m sorry, I cannot assist with that request.",
        "I cannot provide a description of the person in the frame.",
        "As an AI language model, I do not see the video itself.",
        "I'm unable to view images. Please provide the image so that I can describe it.",
        "No image was provided, so there is nothing to describe.",
        "I am not able to describe this video because it violates my guidelines.",
        "Sorry, I can't see the second frame.",
    ],
)
def test_refusals(text: str) -> None:
    assert failed(text) == ("refusal",)


@pytest.mark.parametrize(
    "text",
    [
        'A sign on the door reads "I\'m sorry, I cannot assist you today".',
        "The man looks sorry and cannot lift the box.",
        "A robot with a screen for a face helps a child, who cannot reach the shelf.",
        "A woman presents a talk about AI; the slide is titled \u201cAs an AI language model\u201d.",
        "The guard provides images of the suspect to the officer, and no video is playing on the monitor.",
        "As an AI researcher explains the model, the audience takes notes.",
        "The policy document lies on the desk beside an uploaded photo.",
    ],
)
def test_captions_that_only_sound_like_refusals(text: str) -> None:
    assert failed(text) == ()


@pytest.mark.parametrize(
    ("text", "asked", "fails"),
    [
        ("A woman crosses the street with a dog on a leash.", "en", False),
        ("Nothing changes.", "en", False),
        ("Red circle, blue square, green triangle.", "en", False),
        ("一位女士牵着一条狗过马路，背景是高楼大厦。", "en", True),
        ("A woman crosses the street, 她牵着一条狗，背景是高楼大厦和许多行人。", "en", True),
        ('A shop sign reads "欢迎光临本店 欢迎光临本店", and a man walks past it.', "en", False),
        ("The presenter, named Müller, stands before the Café de l'Opéra in Montréal.", "en", False),
        (
            "A tortilla, a taco al pastor and a jar of salsa de la casa stand on the table of the café.",
            "en",
            False,
        ),
        ("Une femme traverse la rue avec un chien, et les voitures sont dans le fond.", "en", True),
        ("Eine Frau geht mit dem Hund über die Straße, und das Auto wird langsamer.", "en", True),
        ("Una mujer cruza la calle con el perro mientras los coches se acercan.", "en", True),
        ("Женщина переходит улицу с собакой на поводке.", "en", True),
        ("Eine Frau geht mit dem Hund über die Straße, und das Auto wird langsamer.", "de", False),
        ("The woman crosses the street with her dog, which is on a leash.", "de", True),
        ("一位女士牵着一条狗过马路，背景是高楼大厦。", "zh", False),
        ("A woman crosses the street with a dog on a leash.", "zh", True),
        ("女性が犬を連れて道を渡り、背景には高い建物がある。", "ja", False),
        ("Anything goes, 任何 язык.", None, False),
    ],
)
def test_language(text: str, asked: str | None, fails: bool) -> None:
    config = ChecksConfig.model_validate({"language": asked})
    assert failed(text, config=config) == (("language",) if fails else ())


@pytest.mark.parametrize(
    ("text", "span_s", "fails"),
    [
        ("At 4.00 seconds the man sits down.", (2.0, 4.0), False),
        ("At 14.00 seconds the man sits down.", (2.0, 4.0), True),
        ("At 1.5 seconds into the pair the man sits down.", (20.0, 22.0), False),
        ("At 12 seconds the man sits down.", (20.0, 22.0), True),
        ("At 0:03 the door opens.", (0.0, 4.0), False),
        ("At 1:05 the door opens.", (0.0, 30.0), True),
        ("From 0 to 45 seconds the band plays.", (0.0, 30.0), True),
        ("Between 2 and 6 seconds the band plays.", (0.0, 30.0), False),
        ("By the 50-second mark the cake is done.", (0.0, 30.0), True),
        ("[00:00 - 01:30] The host greets the audience.", (0.0, 30.0), True),
        ("The clock on the wall shows that it is at 10:45.", (0.0, 30.0), False),
        ("The scoreboard is at 45:00 and the score is 2:1.", (0.0, 30.0), False),
        ("The shop is busy at 8:30 pm.", (0.0, 30.0), False),
        ("A timer counts down from 60 seconds to 10 seconds.", (0.0, 30.0), False),
        ("The man holds his breath for 90 seconds.", (0.0, 30.0), False),
        ("The film was shot at 60 frames per second in 16:9.", (0.0, 30.0), False),
        ("The wheel turns at 90 seconds per round.", (0.0, 30.0), False),
        ('A caption reads "at 90 seconds".', (0.0, 30.0), False),
        ("About 100 people run at 9 in the morning.", (0.0, 5.0), False),
    ],
)
def test_times(text: str, span_s: tuple[float, float], fails: bool) -> None:
    assert failed(text, span_s=span_s) == (("time_out_of_range",) if fails else ())


@pytest.mark.parametrize(
    ("text", "fails"),
    [
        ("Between frame 4 and frame 5 the man sits down.", False),
        ("From frame 1 to frame 2 the man sits down.", False),
        ("In video frame 9 the man has sat down.", True),
        ("In Image 12 the man has sat down.", True),
        ("A picture frame 30 cm wide hangs on the wall.", False),
        ("The camera has a frame rate of 60, and image quality is 4K.", False),
        ("The frame 5x7 hangs there.", False),
    ],
)
def test_frame_numbers(text: str, fails: bool) -> None:
    context = context_of(Step("difference", 4), (6.0, 8.0), 6, "teacher", CONFIG)
    codes = failed_checks(text, truncated=False, context=context)
    assert codes == (("frame_number",) if fails else ())


@pytest.mark.parametrize(
    "text",
    [
        "The man walks to the left. The man walks to the right.",
        "The camera pans left, and the camera pans right.",
        "The red circle appears. The red circle disappears.",
        "The camera zooms in on the stage while the singer dances, and the camera zooms out.",
        "The gate opens, while the gate closes.",
    ],
)
def test_a_caption_that_contradicts_itself(text: str) -> None:
    assert failed(text, span_s=(2.0, 4.0)) == ("contradiction",)


@pytest.mark.parametrize(
    "text",
    [
        "The man walks to the left, then the man walks to the right.",
        "The man in red walks to the left. The man in blue walks to the right.",
        "The man walks to the left. Another man walks to the right.",
        "The man turns his head to the left. The man walks to the right.",
        "The camera pans left and right across the crowd.",
        "A man walks to the left. A man walks to the right.",
        "The people walk to the left, and the people walk to the right.",
        "The flag moves up and down in the wind.",
        "The car moves left. The car does not move right.",
        "The dancer steps to her left. The dancer steps to the right.",
        "The left door opens. The right door closes.",
        "The swing moves forward and back.",
        "First the elevator rises. After a stop the elevator descends.",
    ],
)
def test_captions_of_more_than_one_motion(text: str) -> None:
    assert failed(text, span_s=(2.0, 4.0)) == ()


@pytest.mark.parametrize(
    ("before", "text", "fails"),
    [
        ("The cyclist leaves the frame.", "The cyclist moves to the right.", True),
        ("The red circle disappears.", "The red circle moves down.", True),
        ("The red circle disappears.", "The red circle appears. The red circle moves down.", False),
        ("The red circle disappears.", "A small red circle appears. The red circle moves down.", False),
        ("The cyclist leaves the frame.", "The cyclist returns and moves to the right.", False),
        ("The cyclist leaves the frame.", "Another cyclist moves to the right.", False),
        (
            "The cyclist leaves the frame, and a second cyclist follows.",
            "The cyclist moves to the right.",
            False,
        ),
        ("The cyclist partially disappears behind a bus.", "The cyclist moves to the right.", False),
        ("The cyclist leaves the frame.", "The bus moves to the right.", False),
        ("The cyclist leaves the frame.", "The cyclist is no longer visible.", False),
        ("The scene cuts. The man disappears.", "The scene cuts back. The man walks to the left.", False),
        ("The boy moves left.", "The boy moves right.", False),
    ],
)
def test_going_on_after_the_end(before: str, text: str, fails: bool) -> None:
    assert failed(text, span_s=(2.0, 4.0), before=before) == (("contradiction",) if fails else ())


NOTES = (
    'A woman in a red coat stands before a shop with the sign "Golden Lion Bakery".',
    "The woman walks to the left. The camera pans left.",
    "The woman enters the shop. The camera remains static.",
)


@pytest.mark.parametrize(
    ("summary", "codes"),
    [
        ("A woman in a red coat walks to the left and enters a shop.", ()),
        ("The woman walks to the left past the Golden Lion Bakery, then enters it.", ()),
        ('The sign reads "The Golden Lion Bakery".', ()),
        ('The sign reads "Silver Eagle Books".', ("unsupported_quote",)),
        ('A so-called "selfie" moment.', ()),
        ("The woman walks to the right and enters the shop.", ("summary_contradiction",)),
        ("The camera pans right.", ("summary_contradiction",)),
        ("The man walks to the right.", ()),
        ("At 4.00 seconds the woman enters the shop.", ()),
        ("At 44.00 seconds the woman enters the shop.", ("time_out_of_range",)),
        ("In frame 7 the woman enters the shop.", ("frame_number",)),
    ],
)
def test_summaries(summary: str, codes: tuple[str, ...]) -> None:
    captions = tuple(TimedCaption(n + 1, 2.0 * n, note) for n, note in enumerate(NOTES))
    context = context_of(Step("summary", captions=captions), (0.0, 4.0), 3, "teacher", CONFIG)
    assert failed_checks(summary, truncated=False, context=context) == codes


def test_a_caption_that_does_not_fit_its_frame() -> None:
    config = ChecksConfig(frame_text_encoder="open_clip:x", min_frame_text_score=0.2)
    assert failed("A dog.", config=config, frame_text_score=0.1) == ("frame_text",)
    assert failed("A dog.", config=config, frame_text_score=0.3) == ()
    assert failed("A dog.", config=config) == ()
    with pytest.raises(ValueError, match="frame_text_encoder"):
        ChecksConfig(min_frame_text_score=0.2)


def test_a_check_can_be_turned_off() -> None:
    text = "I'm sorry, I cannot assist with that request."
    assert failed(text, config=ChecksConfig(off=("refusal",))) == ()
    assert failed("A ball", truncated=True, config=ChecksConfig(off=("truncated",))) == ()
    with pytest.raises(ValueError):
        ChecksConfig.model_validate({"off": ["empty"]})


def assert_sound(clip: Clip, seed: int) -> int:
    """Check that no true caption of a clip fails, its summary and fast caption included."""
    times = [float(t) for t in range(0, int(clip.duration_s), 2)]
    said = true_captions(clip, times, seed)
    summary = language.summary_caption(list(zip(times, said, strict=True)))
    fast = language.fast_caption(list(enumerate(said)))
    notes = tuple(TimedCaption(n + 1, t, text) for n, (t, text) in enumerate(zip(times, said, strict=True)))
    steps = [Step("first", 0)]
    steps += [Step("difference", n, before=said[n - 1]) for n in range(1, len(said))]
    steps += [Step("summary", captions=notes), Step("fast")]
    for step, text in zip(steps, [*said, summary, fast], strict=True):
        whole = times[0], times[-1]
        span_s = whole if step.frame < 0 else (times[max(0, step.frame - 1)], times[step.frame])
        context = context_of(step, span_s, len(times), "sharecaptioner", CONFIG)
        assert failed_checks(text, truncated=False, context=context) == (), (step.kind, text)
    return len(steps)


def test_true_captions_pass() -> None:
    judged = 0
    for seed in range(150):
        clip = sample_clip(seed)
        judged += assert_sound(clip, seed) + assert_sound(reversed_clip(clip), seed)
        if (twin := changed_clip(clip, seed)) is not None:
            judged += assert_sound(twin, seed)
    assert judged > 3000


@given(st.text(), st.booleans())
def test_any_text_gets_an_answer(text: str, truncated: bool) -> None:
    codes = failed(
        text, truncated=truncated, leaks=leaks("teacher"), span_s=(0.0, 1.0), before=text, notes=(text,)
    )
    assert list(codes) == sorted(set(codes))
    assert ("truncated" in codes) is truncated
    if not text.strip():
        assert "empty" in codes


@given(st.lists(st.sampled_from("abcdefgh"), min_size=4, max_size=12), st.integers(3, 6))
def test_whatever_comes_three_times_on_end_is_a_loop(words: list[str], times: int) -> None:
    assert loops(" ".join(words * times))


@given(st.permutations(list("abcdefghijklmnopqrstuvwxyz")))
def test_words_that_never_recur_are_no_loop(words: list[str]) -> None:
    assert not loops(" ".join(words))


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "piece", ["\u201ca ", "at 1", "The man moves slowly back to the left of ", "[00:", "I'm sorry, but "]
)
def test_an_endless_answer_is_judged_in_bounded_time(piece: str) -> None:
    text = piece * 50_000
    assert (
        failed(text, span_s=(0.0, 2.0), before="The man leaves the frame. " * 9000, notes=(text,)) is not None
    )
