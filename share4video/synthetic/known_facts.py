"""What is true of a synthetic clip at 2 s sampling, and what of it is too short to be surely seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from share4video.media.sampling import every
from share4video.synthetic import language
from share4video.synthetic.language import Change, Fact
from share4video.synthetic.questions import SAMPLING_S
from share4video.synthetic.world import Clip


@dataclass(frozen=True)
class KnownFact:
    """A true fact, and what sampling makes of it.

    Attributes:
        observable: sampling shows it without doubt.
        short: it belongs to a state too short for every sampling to show; whether this one does is chance.
    """

    fact: Fact
    observable: bool
    short: bool


def sampled_times(clip: Clip) -> list[float]:
    """The times at which sampling every 2 s looks, in seconds."""
    return every(clip.duration_s, SAMPLING_S)


def interval_changes(clip: Clip) -> list[Change]:
    """Every change between consecutive sampled frames, in order of time."""
    return [change for interval in language.clip_changes(clip, sampled_times(clip)) for change in interval]


def all_facts(clip: Clip) -> list[tuple[Fact, bool]]:
    """The facts that 2 s sampling sees, short ones too, each with whether it is observable without doubt."""
    first = [(fact, True) for fact in language.first_facts(clip.state_at(0.0), 0.0)]
    return first + [(change.fact, change.observable) for change in interval_changes(clip)]


def known_changes(clip: Clip, times_s: Sequence[float]) -> list[list[KnownFact]]:
    """The changes of each interval between ``times_s``, as `language.clip_changes` has them, with what is
    short."""
    gone = blinked(clip, times_s)
    shapes = {body.shape: index for index, body in enumerate(clip.bodies)}  # no two are alike
    found = []
    for number, changes in enumerate(language.clip_changes(clip, times_s)):
        short = {"disappears": gone[number + 1], "appears": gone[number], "size": gone[number]}
        found.append(
            [
                KnownFact(
                    change.fact,
                    change.observable,
                    shapes.get(change.fact.object.split(" ")[-1]) in short.get(change.fact.predicate, ()),
                )
                for change in changes
            ]
        )
    return found


def unseen_blinks(clip: Clip, times_s: Sequence[float]) -> list[KnownFact]:
    """The facts of the blinks that no frame at ``times_s`` shows, at the first of these times after them.

    Where no time follows, they have the time at which the blink is over.
    """
    gone = blinked(clip, times_s)
    facts = []
    for blink in clip.blinks:
        inside = (bodies for t, bodies in zip(times_s, gone, strict=True) if blink.start_s <= t < blink.end_s)
        if any(blink.body in bodies for bodies in inside):
            continue
        time_s = next((t for t in times_s if t >= blink.end_s), blink.end_s)
        for seen in clip.without_blinks().state_at(blink.end_s).bodies:
            if seen.body == blink.body:
                facts += [
                    Fact(seen.name, "disappears", "", time_s),
                    Fact(seen.name, "appears", "", time_s),
                    Fact(seen.name, "size", seen.size, time_s),
                ]
    return [KnownFact(fact, observable=False, short=True) for fact in facts]


def blinked(clip: Clip, times_s: Sequence[float]) -> list[set[int]]:
    """Return which bodies are out of view at each time because of a blink and nothing else.

    A body that blinks and is gone for good before it was seen again has disappeared: that is not short.
    """
    gone: list[set[int]] = [set() for _ in times_s]
    lasting = clip.without_blinks()
    visible = [{seen.body for seen in clip.state_at(t).bodies} for t in times_s]
    staying = [{seen.body for seen in lasting.state_at(t).bodies} for t in times_s]
    for body in range(len(clip.bodies)):
        run: list[int] = []
        for index in range(len(times_s) + 1):
            if index < len(times_s) and body not in visible[index]:
                run.append(index)
                continue
            # what is out of view from the first frame on has not disappeared
            if run and run[0] > 0 and all(body in staying[i] for i in run):
                for i in run:
                    gone[i].add(body)
            run = []
    return gone


def known_facts(clip: Clip) -> list[KnownFact]:
    """Every fact of a clip at 2 s sampling in order of time, blinks between two samples among them."""
    times_s = sampled_times(clip)
    first = language.first_facts(clip.state_at(0.0), 0.0)
    facts = [KnownFact(fact, observable=True, short=False) for fact in first]
    facts += [known for interval in known_changes(clip, times_s) for known in interval]
    facts += unseen_blinks(clip, times_s)
    return sorted(facts, key=lambda known: known.fact.time_s)
