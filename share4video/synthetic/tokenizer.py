"""The nano models' tokenizer: byte-level BPE fitted to the synthetic language and the product's prompts."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from share4video import chat
from share4video.captioning import sharecaptioner
from share4video.captioning.role_inputs import TimedCaption
from share4video.evaluation import mvbench
from share4video.synthetic import language
from share4video.synthetic.questions import questions_of_clip
from share4video.synthetic.world import sample_clip

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

VOCABULARY = 800
CONTEXT = 2048
PAD, IMAGE, SYSTEM, USER, ASSISTANT, END = (
    "<pad>",
    "<image>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|end|>",
)
_CLIPS = 400

# Every prompt the nano models are asked with; what is asked of grids is worded in ``chat_lessons``.
_PROMPTS = (
    sharecaptioner.FIRST,
    sharecaptioner.BRIEF,
    sharecaptioner.FAST,
    sharecaptioner.difference_text(1, 0.0, 2, 2.0, ""),
    sharecaptioner.summary_text([TimedCaption(1, 0.0, "")]),
    sharecaptioner.recaption_text(""),
    mvbench.SYSTEM,
    mvbench.PREFILL,
    chat.SYSTEM_PROMPT,
    chat.PRE_QUERY,
    "Which option says none, one, two, three? What is in frame 3? nothing, empty.",
    "Where is the circle in each frame? top left, top centre, top right, middle left, middle centre, "
    "middle right, bottom left, bottom centre, bottom right, none. What colour is the circle in each frame?",
    "Compare frame 1 and frame 2: where is the circle nearer to the bottom? the same. Everything stays.",
)


def corpus() -> Iterator[str]:
    """Yield the texts the tokenizer is fitted to: captions of training clips, questions and prompts."""
    for seed in range(_CLIPS):
        clip = sample_clip(seed)
        rng = np.random.default_rng(seed)
        times = [float(t) for t in np.arange(0.0, clip.duration_s, 2.0)]
        first = language.first_caption(clip.state_at(0.0), rng)
        later = [language.differential_caption(c, rng) for c in language.clip_changes(clip, times)]
        yield language.summary_caption(list(zip(times, [first, *later], strict=True)))
        yield from later
        yield language.fast_caption(list(enumerate([first, *later])))
        yield language.brief_caption([clip.state_at(t) for t in times[::4]])
        for number, time_s in enumerate(times):
            yield f"Video frame {number + 1} at {time_s:.2f} Second(s) description: "
        for question in questions_of_clip(clip, seed):
            yield mvbench.question_block(question.benchmark())
        if seed % 4 == 0:  # often enough to keep their words whole
            yield from _PROMPTS


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return a new byte-level BPE tokenizer in which every word of the synthetic language is one token."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_fitted()),
        pad_token=PAD,
        eos_token=END,
        extra_special_tokens=[IMAGE, SYSTEM, USER, ASSISTANT],
        model_max_length=CONTEXT,
        padding_side="left",
    )


@cache
def _fitted() -> str:
    """Fit the tokenizer to the corpus, which takes seconds; returns it as JSON."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    words = Regex(r" ?[A-Za-z]+| ?\d+\.\d\d| ?\d+| ?[^\sA-Za-z\d]|\s")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(words, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        min_frequency=2,
        special_tokens=[PAD, IMAGE, SYSTEM, USER, ASSISTANT, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    written: str = tokenizer.to_str()
    return written
