from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from share4video.dataset.mixture import TimedCaption
from share4video.evaluation.mvbench import PREFILL
from share4video.evaluation.questions import read_questions
from share4video.synthetic import language
from share4video.synthetic.clips import choose_questions, write_questions
from share4video.synthetic.known_facts import sampled_times
from share4video.synthetic.qa import SyntheticQuestionWriter
from share4video.synthetic.questions import TASK_GROUPS, questions_of_clip
from share4video.synthetic.world import Clip, sample_clip

NAMED = [(f"{seed}.mp4", sample_clip(seed, "combination")) for seed in range(150)]


def _captions(clip: Clip) -> list[TimedCaption]:
    times = sampled_times(clip)
    texts = [language.first_caption(clip.state_at(0.0))]
    texts += [language.differential_caption(c) for c in language.clip_changes(clip, times)]
    return [TimedCaption(max(0.0, t - 2.0), t, text) for t, text in zip(times, texts, strict=True)]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1 << 20))
def test_the_answer_is_one_of_the_candidates(seed: int) -> None:
    for question in questions_of_clip(sample_clip(seed), seed):
        assert question.candidates.count(question.answer) == 1
        assert question.task in TASK_GROUPS


def test_letters_and_answers_are_balanced() -> None:
    chosen = choose_questions(NAMED, 48, seed=0)
    assert set(chosen) == set(TASK_GROUPS)
    for task, rows in chosen.items():
        letters = Counter(q.candidates.index(q.answer) for _, q in rows)
        assert max(letters.values()) - min(letters.values()) <= 1, task
        if task != "order":
            answers = Counter(q.answer for _, q in rows)
            assert max(answers.values()) - min(answers.values()) <= 1, task


def test_no_answer_has_a_letter_of_its_own() -> None:
    for task, rows in choose_questions(NAMED, 48, seed=0).items():
        places = range(len(rows[0][1].candidates))
        cells = Counter((q.answer, q.candidates.index(q.answer)) for _, q in rows)
        for answer in {q.answer for _, q in rows} if task != "order" else ():
            counts = [cells[answer, place] for place in places]
            assert max(counts) - min(counts) <= 1, (task, answer)


def test_no_wording_of_a_static_question_tells_the_answer() -> None:
    chosen = choose_questions(NAMED, 48, seed=0)
    for task in ("colour", "shape", "count"):
        cells = Counter((q.question, q.answer) for _, q in chosen[task])
        best: Counter[str] = Counter()
        for (wording, _), count in cells.items():
            best[wording] = max(best[wording], count)
        assert best.total() / cells.total() <= 1 / len(chosen[task][0][1].candidates) + 0.05, task


def test_the_evaluation_reads_the_files(tmp_path: Path) -> None:
    chosen = choose_questions(NAMED, 8, seed=0)
    write_questions(tmp_path, chosen)
    read = read_questions(tmp_path)
    assert len(read) == sum(len(rows) for rows in chosen.values())
    record = json.loads((tmp_path / "direction.json").read_text())[0]
    assert set(record) == {"video", "question", "candidates", "answer"}


def test_true_captions_give_questions_with_true_answers() -> None:
    writer = SyntheticQuestionWriter()
    seen: Counter[str] = Counter()
    for _, clip in NAMED[:60]:
        true = {(q.task, q.question): q.answer for q in questions_of_clip(clip, clip.seed)}
        for qa in writer(_captions(clip), ""):
            seen[qa.task] += 1
            asked = qa.question.split("Question: ")[1].split("\n")[0]
            answer = qa.answer.removeprefix(PREFILL)[3:]
            if (qa.task, asked) in true and qa.task != "order":
                assert true[qa.task, asked] == answer
    assert set(seen) == set(TASK_GROUPS)


def test_equal_captions_give_equal_questions() -> None:
    captions = _captions(NAMED[0][1])
    assert SyntheticQuestionWriter()(captions, "") == SyntheticQuestionWriter()(captions, "other")
    assert SyntheticQuestionWriter()([], "") == []
