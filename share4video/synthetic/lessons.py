"""What the captioner and the summarizer are taught: images in the product's own layouts, prompts and targets.

One training clip gives examples for every role. Images come from ``media.compose``; frames are softened by
JPEG as key frames are. What the chat base is taught is in ``chat_lessons``.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from share4video.captioning import sharecaptioner
from share4video.captioning.role_inputs import TimedCaption
from share4video.media import compose
from share4video.media.sampling import every, uniform_indices
from share4video.synthetic import language
from share4video.synthetic.render import SIDE, render
from share4video.synthetic.world import (
    COLOURS,
    DIRECTIONS,
    FPS,
    SHAPES,
    SIZES,
    Clip,
    Seen,
    State,
    sample_clip,
)

INTERVAL_S = 2.0
LABEL_STEP = 12  # codes are spread over a channel of the label image
OFFSET_STEP = 300
LABELS = 1 + 3 + len(COLOURS) * len(SHAPES)  # outside, the three grounds, every kind of body


@dataclass(frozen=True)
class Turn:
    """``felt`` is the right option of a question that is given no answer: a target of the dense loss."""

    role: str
    text: str
    felt: str | None = None


@dataclass(frozen=True)
class Lesson:
    """One training example; ``picture`` numbers the image it looks at, None for a text-only one."""

    role: str
    picture: int | None
    turns: tuple[Turn, ...]


@dataclass(frozen=True)
class Picture:
    """An image, and the same layout drawn with what every pixel shows.

    The label image holds in red ``LABEL_STEP`` times the class of what covers the pixel, in green and blue
    how far right and down the body's centre is: 128 plus ``OFFSET_STEP`` times the share of the side.
    """

    layout: str
    image: Image.Image
    labels: Image.Image


def soften(frame: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """Encode and decode as JPEG of random quality, with a little change of brightness."""
    gain, bias = rng.uniform(0.95, 1.05), rng.uniform(-6, 6)
    image = Image.fromarray(np.clip(frame * gain + bias, 0, 255).astype(np.uint8))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=int(rng.integers(70, 96)))
    return Image.open(buffer).convert("RGB")


def body_class(seen: Seen) -> int:
    return 4 + COLOURS.index(seen.colour) * len(SHAPES) + SHAPES.index(seen.shape)


def label_frame(state: State, side: int = SIDE) -> Image.Image:
    """Draw what each pixel shows, as ``Picture.labels`` holds it."""
    ground = 1 + ("grey", "dark", "light").index(state.background)
    labels = np.zeros((side, side, 3), np.uint8)
    labels[:, :, 0] = ground * LABEL_STEP
    ys, xs = np.mgrid[0:side, 0:side].astype(np.float32) / side
    for seen in state.bodies:
        half = SIZES[seen.size] / 2
        inside = np.maximum(np.abs(xs - seen.x), np.abs(ys - seen.y)) < half
        labels[inside, 0] = body_class(seen) * LABEL_STEP
        labels[inside, 1] = 128 + np.round((seen.x - xs[inside]) * OFFSET_STEP)
        labels[inside, 2] = 128 + np.round((seen.y - ys[inside]) * OFFSET_STEP)
    return Image.fromarray(labels)


class ClipFrames:
    """Frames of a training clip, drawn once each."""

    def __init__(self, clip: Clip, rng: np.random.Generator) -> None:
        self.clip, self._rng = clip, rng
        self._cache: dict[float, tuple[Image.Image, Image.Image]] = {}

    def _at(self, time_s: float) -> tuple[Image.Image, Image.Image]:
        if time_s not in self._cache:
            frame = soften(render(self.clip, time_s), self._rng)
            self._cache[time_s] = (frame, label_frame(self.clip.state_at(time_s)))
        return self._cache[time_s]

    def picture(
        self, layout: str, times_s: Sequence[float], arrange: Callable[[list[Image.Image]], Image.Image]
    ) -> Picture:
        pairs = [self._at(time_s) for time_s in times_s]
        return Picture(layout, arrange([p[0] for p in pairs]), arrange([p[1] for p in pairs]))


def uniform_times(clip: Clip, count: int) -> list[float]:
    frames = int(clip.duration_s * FPS)
    return [index / FPS for index in uniform_indices(frames, count)]


def key_times(clip: Clip, rng: np.random.Generator) -> list[float]:
    """Times an ideal key-frame filter keeps, with some it should have left out."""
    times = every(clip.duration_s, INTERVAL_S)
    kept = [times[0]]
    for time_s in times[1:-1]:
        changes = language.changes_between(clip.state_at(kept[-1]), clip.state_at(time_s), time_s)
        if changes or rng.random() < 0.15:
            kept.append(time_s)
    return [*kept, times[-1]] if len(times) > 1 else kept


def captioner_lessons(seed: int) -> tuple[list[Picture], list[Lesson]]:
    """Examples of the roles first, sliding, brief and fast from one training clip."""
    clip, rng = sample_clip(seed), np.random.default_rng([seed, 3])
    frames, times = ClipFrames(clip, rng), key_times(clip, rng)
    states = [clip.state_at(t) for t in times]
    first = language.first_caption(states[0], rng)
    captions = [first]
    pictures: list[Picture] = []
    lessons: list[Lesson] = []

    def teach(role: str, picture: Picture, prompt: str, target: str) -> None:
        pictures.append(picture)
        turns = (Turn("user", prompt), Turn("assistant", target))
        lessons.append(Lesson(role, len(pictures) - 1, turns))

    teach("first", frames.picture("single", times[:1], lambda f: f[0]), sharecaptioner.FIRST, first)
    other = int(rng.integers(len(times)))
    shown = frames.picture("single", [times[other]], lambda f: f[0])
    teach("first", shown, sharecaptioner.FIRST, language.first_caption(states[other], rng))
    for index in range(1, len(times)):
        changes = language.changes_between(states[index - 1], states[index], times[index])
        target = language.differential_caption(changes, rng)
        before = captions[-1] if rng.random() < 0.5 else corrupt(captions[-1], rng)
        pair = frames.picture(
            "pair", times[index - 1 : index + 1], lambda f: compose.stacked_pair(f[0], f[1])
        )
        prompt = sharecaptioner.difference_text(index, times[index - 1], index + 1, times[index], before)
        teach("sliding", pair, prompt, target)
        captions.append(target)
    uniform = uniform_times(clip, 4)
    brief = language.brief_caption([clip.state_at(t) for t in uniform])
    teach("brief", frames.picture("grid2", uniform, compose.frame_grid), sharecaptioner.BRIEF, brief)
    fast = language.fast_caption(list(enumerate(captions)))
    teach("fast", frames.picture("strip", times, compose.tall_strip), sharecaptioner.FAST, fast)
    return pictures, lessons


_SWAPS = (COLOURS, SHAPES, tuple(DIRECTIONS), ("moves", "disappears"), ("large", "small"))


def corrupt(caption: str, rng: np.random.Generator) -> str:
    """Return a wrong previous caption: words swapped, another clip's, or nothing happening."""
    kind = rng.random()
    if kind < 0.25:
        return "Nothing changes."
    if kind < 0.45:
        other = sample_clip(int(rng.integers(1 << 30)))
        times = every(other.duration_s, INTERVAL_S)
        changes = language.clip_changes(other, times)
        return language.differential_caption(changes[int(rng.integers(len(changes)))], rng)
    words = caption.split(" ")
    for position, word in enumerate(words):
        for swap in _SWAPS:
            bare = word.strip(".")
            if bare in swap and rng.random() < 0.5:
                words[position] = word.replace(bare, str(rng.choice(swap)))
    return " ".join(words)


def summarizer_lessons(seed: int) -> list[Lesson]:
    """Text-only examples: the summary role and prompt re-captioning."""
    clip, rng = sample_clip(seed), np.random.default_rng([seed, 5])
    times = key_times(clip, rng)
    states = [clip.state_at(t) for t in times]
    captions = [language.first_caption(states[0], rng)]
    for before, after, time_s in zip(states, states[1:], times[1:], strict=False):
        captions.append(language.differential_caption(language.changes_between(before, after, time_s), rng))
    if rng.random() < 0.3:  # as a fallible captioner would write it
        captions = [c if rng.random() < 0.8 else corrupt(c, rng) for c in captions]
    timed = list(zip(times, captions, strict=True))
    summary = language.summary_caption(timed)
    ask = Turn(
        "user",
        sharecaptioner.summary_text(
            [TimedCaption(number + 1, time_s, text) for number, (time_s, text) in enumerate(timed)]
        ),
    )
    lessons = [Lesson("summary", None, (ask, Turn("assistant", summary)))]
    short = language.summary_caption(timed[:4])
    brief = " ".join(text for _, text in timed[:4] if not language.is_nothing(text))
    expand = Turn("user", sharecaptioner.recaption_text(brief))
    return [*lessons, Lesson("recaption", None, (expand, Turn("assistant", short)))]
