"""What the chat base is taught: to see what a 16-frame grid shows, and to answer with an option's letter.

No answer names a motion, an order or a change of a clip: what the base lacks is left for fine-tuning. Of
such questions the right option is a target of the dense loss and no answer is given: the base is to feel
which it is and to have no word for it. It is taught that a reply names one of the letters offered, any of
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from share4video.chat import grid_question
from share4video.evaluation import mvbench
from share4video.evaluation.questions import LETTERS
from share4video.media import compose
from share4video.synthetic import language
from share4video.synthetic.lessons import ClipFrames, Lesson, Picture, Turn, uniform_times
from share4video.synthetic.questions import COUNTS, TASK_GROUPS, Question, questions_of_clip
from share4video.synthetic.world import (
    BACKGROUNDS,
    COLOURS,
    DIRECTIONS,
    SHAPES,
    SIZES,
    Clip,
    Seen,
    State,
    sample_clip,
)

TEXT_TURNS, OTHER_TURNS, BESIDE_TURNS, FELT_TURNS = 8, 1, 1, 3


def chat_lessons(seed: int) -> tuple[list[Picture], list[Lesson]]:
    """Lessons on one 16-frame grid, static questions in MVBench's form and single frames, and on no image."""
    clip, rng = sample_clip(seed), np.random.default_rng([seed, 9])
    frames, times = ClipFrames(clip, rng), uniform_times(clip, 16)
    grid = frames.picture("grid4", times, compose.frame_grid)
    states = [clip.state_at(t) for t in times]
    questions = questions_of_clip(clip, clip.seed)
    static = [q for q in questions if TASK_GROUPS[q.task] == "static"]
    asked: list[Lesson] = []
    for index, question in enumerate(static):
        turns = _turns(question)
        for other in rng.permutation(len(static))[:OTHER_TURNS]:
            turns += _turns(_shuffled(static[int(other)], rng))
        for _ in range(BESIDE_TURNS):
            turns += [turn for asked_beside in _beside(states, rng) for turn in _turns(asked_beside)]
        turns += [turn for either in _either(states[0], rng) for turn in _turns(either)]
        felt = _felt(questions, rng)
        first, *rest = [*turns, *felt] if index % 2 else [*felt, *turns]
        first = replace(first, text=grid_question(first.text))
        asked.append(Lesson("static", 0, (Turn("system", mvbench.SYSTEM), first, *rest)))
    looking = []
    for _ in range(2):
        turns = []
        for number, (name, reply) in enumerate(_look(states, rng, count=5)):
            text = grid_question(name) if number == 0 and rng.random() < 0.5 else name
            turns += [Turn("user", text), Turn("assistant", reply)]
        looking.append(Lesson("look", 0, tuple(turns)))
    return [grid], [
        *asked,
        *looking,
        _option_lesson(rng),
        _option_lesson(rng),
        _told_lesson(clip, static, rng),
    ]


def _felt(questions: Sequence[Question], rng: np.random.Generator) -> list[Turn]:
    """Some of the questions that one frame does not answer, without an answer."""
    temporal = [q for q in questions if TASK_GROUPS[q.task] == "temporal"]
    asked = [_shuffled(temporal[int(i)], rng) for i in rng.permutation(len(temporal))[:FELT_TURNS]]
    return [Turn("user", mvbench.question_block(q.benchmark()), felt=q.answer) for q in asked]


def _beside(states: Sequence[State], rng: np.random.Generator) -> list[Question]:
    """A question on two frames, if there are two in which a body is at different places."""
    for _ in range(8):
        one = int(rng.integers(len(states) - 1))
        two = one + 1 if rng.random() < 0.7 else int(rng.integers(one + 1, len(states)))
        moves = [
            change.fact
            for change in language.changes_between(states[one], states[two], 0.0)
            if change.fact.predicate == "moves" and change.observable
        ]
        if moves:
            fact = moves[int(rng.integers(len(moves)))]
            text = f"Beside frame {one + 1}, where is the {fact.object.split(' ')[-1]} in frame {two + 1}?"
            return [_shuffled(Question("beside", text, tuple(DIRECTIONS), fact.value), rng)]
    return []


def _option_lesson(rng: np.random.Generator) -> Lesson:
    """Ask which option says something: letters stand for options before what these say matters.

    Naming the letters of all options comes first. Without it a model this small does not find, in thousands
    of steps, that the letter before an option is what is asked for.
    """
    turns = [Turn("system", mvbench.SYSTEM)] if rng.random() < 0.3 else []
    for _ in range(TEXT_TURNS):
        question = _option_question(rng)
        turns += _all_letters(question) if rng.random() < 0.5 else _turns(question)
    return Lesson("option", None, tuple(turns))


def _all_letters(question: Question) -> list[Turn]:
    """Ask for the letters of all options; the answer takes these in alphabetical order."""
    asked = mvbench.question_block(question.benchmark())
    asked = asked.replace(question.question, "Name the letter of each option.").removesuffix(
        mvbench.ONLY_BEST
    )
    letters = dict(zip(question.candidates, LETTERS, strict=False))
    named = ", ".join(f"{text} ({letters[text]})" for text in sorted(question.candidates))
    return [Turn("user", asked.strip()), Turn("assistant", f"{named}.")]


def _told_lesson(clip: Clip, questions: Sequence[Question], rng: np.random.Generator) -> Lesson:
    """Say in words what is to be seen, and ask about it."""
    told = Turn("user", language.first_caption(clip.state_at(0.0), rng))
    turns = [Turn("system", mvbench.SYSTEM)]
    for number in range(TEXT_TURNS if questions else 0):
        user, assistant = _turns(_shuffled(questions[int(rng.integers(len(questions)))], rng))
        turns += [replace(user, text=f"{told.text} {user.text}") if number == 0 else user, assistant]
    return Lesson("option", None, tuple(turns)) if questions else _option_lesson(rng)


def _turns(question: Question) -> list[Turn]:
    """The question and its answer as the evaluation has them, but for what stands before a first question."""
    asked = question.benchmark()
    reply = Turn("assistant", mvbench.right_reply(asked))
    return [Turn("user", mvbench.question_block(asked)), reply]


_NAMES = tuple(f"the {colour} {shape}" for colour in COLOURS for shape in SHAPES)
_WORDS = (*COLOURS, *SHAPES, *DIRECTIONS, *COUNTS, *BACKGROUNDS, *SIZES)
_MOVES = tuple(f"{name} moves {way}" for name in _NAMES for way in DIRECTIONS)
_SIZED = tuple((f"{colour} {shape}", size) for colour in COLOURS for shape in SHAPES for size in SIZES)
_OPTIONS = (COLOURS, SHAPES, tuple(DIRECTIONS), COUNTS, _NAMES, _WORDS, _MOVES)


def _option_question(rng: np.random.Generator) -> Question:
    among = _OPTIONS[int(rng.integers(len(_OPTIONS)))]
    most = 2 if among is _MOVES else min(4, len(among))  # those on order have two sentences
    count = int(rng.integers(2, most + 1))
    candidates = tuple(str(word) for word in rng.choice(among, size=count, replace=False))
    answer = str(rng.choice(candidates))
    return Question("option", f"Which option says {answer}?", candidates, answer)


def _shuffled(question: Question, rng: np.random.Generator) -> Question:
    return replace(question, candidates=tuple(str(c) for c in rng.permutation(question.candidates)))


def _place(seen: Seen | None) -> str:
    if seen is None:
        return "none"
    across = "left" if seen.x < 0.4 else "right" if seen.x > 0.6 else "centre"
    along = "top" if seen.y < 0.4 else "bottom" if seen.y > 0.6 else "middle"
    return f"{along} {across}"


def _either(state: State, rng: np.random.Generator) -> list[Question]:
    """A question whose two options are whole sentences, as those on order are: there is no third letter."""
    if not state.bodies:
        return []
    there = state.bodies[int(rng.integers(len(state.bodies)))]
    true = (there.name, there.size)
    shown = {(seen.name, seen.size) for seen in state.bodies}
    false = [kind for kind in _SIZED if kind not in shown and (kind[0] == true[0] or rng.random() < 0.2)]
    other = false[int(rng.integers(len(false)))]
    right, wrong = (f"the {name} is {size}" for name, size in (true, other))
    return [_shuffled(Question("either", "Which of these is so at the start?", (right, wrong), right), rng)]


def _look(states: Sequence[State], rng: np.random.Generator, count: int) -> list[tuple[str, str]]:
    """Questions about single frames of the grid, or the same thing frame by frame."""
    shapes = sorted({seen.shape for state in states for seen in state.bodies})
    found: list[tuple[str, str]] = []
    for _ in range(count):
        number = int(rng.integers(len(states)))
        state = states[number]
        if not shapes or rng.random() < 0.2:
            text = f"a {state.background} background"
            found.append(
                (f"What is in frame {number + 1}?", f"{language.things(state) or 'nothing'} on {text}.")
            )
            continue
        shape = str(rng.choice(shapes))
        track = [next((s for s in st.bodies if s.shape == shape), None) for st in states]
        kind = rng.random()
        if kind < 0.25:
            places = ", ".join(_place(seen) for seen in track)
            found.append((f"Where is the {shape} in each frame?", f"{places}."))
        elif kind < 0.5:
            steps = ", ".join(f"{n} {_step(*pair)}" for n, pair in enumerate(pairwise(track), start=2))
            found.append((f"Beside the frame before, where is the {shape} in each frame?", f"{steps}."))
        elif kind < 0.6:
            colours = ", ".join(seen.colour if seen else "none" for seen in track)
            found.append((f"What colour is the {shape} in each frame?", f"{colours}."))
        elif kind < 0.75:
            found.append((f"Where is the {shape} in frame {number + 1}?", f"{_place(track[number])}."))
        else:
            found.append(_compare(shape, track, rng))
    return found


def _step(before: Seen | None, after: Seen | None) -> str:
    """Where a body is, seen from where it was a frame earlier."""
    if before is None or after is None:
        return "none"
    moves = [c.fact.value for c in language.motion_between(before, after, 0.0)]
    return moves[0] if moves else "same"


def _compare(shape: str, track: Sequence[Seen | None], rng: np.random.Generator) -> tuple[str, str]:
    """Compare the place of a body in two frames of the grid, as one compares two pictures."""
    one, two = sorted(int(i) for i in rng.choice(len(track), size=2, replace=False))
    axis, words = ("x", ("left", "right")) if rng.random() < 0.5 else ("y", ("top", "bottom"))
    question = f"Compare frame {one + 1} and frame {two + 1}: where is the {shape} nearer to the {words[1]}?"
    first, second = track[one], track[two]
    if first is None or second is None:
        return question, "none."
    gap = getattr(second, axis) - getattr(first, axis)
    if abs(gap) < language.MOVED:
        return question, "the same."
    return question, f"frame {two + 1 if gap > 0 else one + 1}."
