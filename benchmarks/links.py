"""How well sentences of summaries are linked to the differential captions they rest on, where that is known.

    python benchmarks/links.py --clips 300

A synthetic clip's differential captions and its summary tell the same changes, each in wordings chosen anew:
which differential a sentence of the summary repeats is known. Into each summary goes a sentence about another
clip's thing, which rests on nothing. Where ``stated_times`` are left out the sentences say no time, which
leaves words and order alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import typer

from share4video.dataset.links import Seen, link, sentences
from share4video.synthetic import language
from share4video.synthetic.known_facts import sampled_times
from share4video.synthetic.world import Clip, sample_clip

_OTHER = 1_000_000  # between the seeds of a clip, of its summary, and of the clip a sentence is taken from


@dataclass
class LinkScore:
    """Counts over all summaries.

    Attributes:
        right: links to the differential that a sentence repeats; ``wrong`` to another, ``missed`` not made.
        unsupported: true sentences that were linked to nothing.
        made_up: sentences about another clip's thing; ``made_up_found`` of them were linked to nothing.
    """

    sentences: int = 0
    right: int = 0
    wrong: int = 0
    missed: int = 0
    unsupported: int = 0
    made_up: int = 0
    made_up_found: int = 0

    @property
    def precision(self) -> float:
        return self.right / max(1, self.right + self.wrong)

    @property
    def recall(self) -> float:
        return self.right / max(1, self.right + self.missed)


def measure(clips: int, *, stated_times: bool, first_seed: int = 0) -> LinkScore:
    """Link the summaries of some clips and count what is right."""
    score = LinkScore()
    for seed in range(first_seed, first_seed + clips):
        _add(score, seed, stated_times)
    return score


def _add(score: LinkScore, seed: int, stated_times: bool) -> None:
    clip = sample_clip(seed)
    captions = _captions(clip, np.random.default_rng(seed))
    seen = [Seen(number, time_s, text) for number, (time_s, text) in enumerate(captions)]
    said: list[str] = []
    truth: list[int | None] = []
    for number, (time_s, text) in enumerate(_captions(clip, np.random.default_rng(seed + _OTHER))):
        if not language.is_nothing(text):
            own = sentences(text)
            own[0] = f"At {time_s:.2f} seconds: {own[0]}" if stated_times else own[0]
            said += own
            truth += [number] * len(own)
    foreign = _foreign(captions, sample_clip(seed + _OTHER))
    if foreign is not None:
        said.insert(len(said) // 2, foreign)
        truth.insert(len(truth) // 2, None)
    for found, true in zip(link(" ".join(said), seen), truth, strict=True):
        linked = {frame.index for frame in found.frames}
        score.wrong += len(linked - {true})
        if true is None:
            score.made_up += 1
            score.made_up_found += not linked
            continue
        score.sentences += 1
        score.right += true in linked
        score.missed += true not in linked
        score.unsupported += not linked


def _captions(clip: Clip, rng: np.random.Generator) -> list[tuple[float, str]]:
    times_s = sampled_times(clip)
    changes = language.clip_changes(clip, times_s)
    told = [language.differential_caption(change, rng) for change in changes]
    return list(zip(times_s, [language.first_caption(clip.state_at(0.0), rng), *told], strict=True))


def _foreign(captions: list[tuple[float, str]], other: Clip) -> str | None:
    """Return a sentence about a thing of ``other`` that the captions never name."""
    things = {fact.object for time_s, text in captions for fact in language.parse(text, time_s)}
    for changes in language.clip_changes(other, sampled_times(other)):
        for sentence in sentences(language.differential_caption(changes)):
            facts = language.parse(sentence, 0.0)
            if facts and facts[0].object not in things:
                return sentence
    return None


def main(clips: Annotated[int, typer.Option(help="How many clips.")] = 300) -> None:
    """Print precision and recall with the times that summaries state, and without."""
    for stated_times in (True, False):
        score = measure(clips, stated_times=stated_times)
        typer.echo(
            f"{'times stated' if stated_times else 'no times':<14} {score.sentences} sentences:"
            f" precision {score.precision:.3f}, recall {score.recall:.3f},"
            f" {score.unsupported} linked to nothing;"
            f" of {score.made_up} made-up sentences {score.made_up_found} found"
        )


if __name__ == "__main__":
    typer.run(main)
