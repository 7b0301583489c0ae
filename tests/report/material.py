"""A whole run as the stages publish it, of clips drawn in memory and captions that err a little."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from share4video.config import (
    BriefConfig,
    CaptionConfig,
    Config,
    DatasetConfig,
    DedupConfig,
    EvaluateConfig,
    GateConfig,
    KeyframeConfig,
    ProbeConfig,
)
from share4video.curation.keyframes import jpeg_bytes
from share4video.dataset.manifest import StageRef
from share4video.dataset.shards import ShardSet, table_from_rows
from share4video.evaluation.gate import decide
from share4video.evaluation.results import CONTROL, PROTOCOL, RESULTS, Answer, Results
from share4video.media.sampling import every
from share4video.store import Store
from share4video.synthetic import language
from share4video.synthetic.caption_scores import brief_times
from share4video.synthetic.render import render
from share4video.synthetic.truth import write_truth
from share4video.synthetic.world import Clip, sample_clip

FPS = 8.0
DECISION = "decision.json"
TASKS = {
    "colour": "static",
    "shape": "static",
    "count": "static",
    "direction": "temporal",
    "order": "temporal",
    "moving_count": "temporal",
}
Row = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """The references of a run, and the folder of its clips' truth."""

    refs: dict[str, StageRef]
    truth: Path


def publish_run(
    store: Store,
    folder: Path,
    *,
    clips: int = 4,
    errors: float = 0.2,
    seed: int = 500,
    side: int = 96,
    duration_s: tuple[float, float] = (10.0, 16.0),
    spoken: str = "",
) -> Run:
    """Publish every stage of a run but the training.

    Args:
        errors: the share of differential captions that say that nothing changes.
        spoken: is put behind every caption, sentence and name that comes from outside.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = [
        _captioned(sample_clip(seed + n, duration_s=duration_s), n, errors, side, spoken)
        for n in range(clips)
    ]
    for number, one in enumerate(made):
        write_truth(folder / f"clip-{number:04d}.json", one.clip)
    rows = [one.row for one in made]
    doubles = [{**rows[0], "clip_id": "d" * 32, "row_id": "double", "source_uri": "double.mp4"}]
    rejects = [
        _reject(f"bad-{i:03d}.mp4{spoken}", "probe", "too_short", spoken, 3.0, 10.0) for i in range(15)
    ]
    near = _reject("double.mp4", "dedup", "near_duplicate", spoken, 0.97, 0.9)
    ids = [row["clip_id"] for row in rows]
    pairs = _pairs([*ids, "d" * 32])
    compared = _publish(
        store, "neighbours", DedupConfig(), {"neighbours": pairs.pop("neighbours")}, metrics={"floor": 0.5}
    )
    refs = {
        "probe": _publish(
            store,
            "probe",
            ProbeConfig(),
            {"clips": rows + doubles, "rejects": rejects},
            metrics={"kept_s": 1.0},
        ),
        "brief": _publish(
            store, "brief", BriefConfig(), {"brief_captions": _briefs(ids)}, rows_out=len(ids) + 1
        ),
        "dedup": _publish(
            store,
            "dedup",
            DedupConfig(),
            {"clips": rows, "rejects": [near], **pairs},
            identity={"neighbours": str(compared)},
        ),
        "keyframes": _publish(
            store,
            "keyframes",
            KeyframeConfig(),
            {"keyframes": [row for one in made for row in one.keyframes]},
            rows_out=clips,
            metrics={"key_frames": sum(len(one.keyframes) for one in made)},
        ),
        "caption": _publish(
            store,
            "caption",
            CaptionConfig(),
            {"differentials": [row for one in made for row in one.differentials]},
            rows_out=clips,
        ),
        "dataset": _publish(
            store,
            "dataset",
            DatasetConfig(),
            {
                "clips": rows,
                "differentials": [row for one in made for row in one.differentials],
                "captions": [row for one in made for row in one.captions],
            },
            metrics={"captions": sum(len(one.captions) for one in made)},
        ),
        **publish_evaluations(store),
    }
    return Run(refs, folder)


@dataclass(frozen=True)
class _Captioned:
    clip: Clip
    row: Row
    keyframes: list[Row]
    differentials: list[Row]
    captions: list[Row]


def _captioned(clip: Clip, number: int, errors: float, side: int, spoken: str) -> _Captioned:
    rng = np.random.default_rng([clip.seed, 77])
    clip_id = f"{number:032x}"
    times_s = every(clip.duration_s, 2.0)
    states = [clip.state_at(time_s) for time_s in times_s]
    first = (0.0, language.first_caption(states[0]))
    told = [first]
    for before, after, time_s in zip(states, states[1:], times_s[1:], strict=False):
        changes = language.changes_between(before, after, time_s)
        if changes or time_s == times_s[-1]:
            said = language.differential_caption(changes) if rng.random() >= errors else "Nothing changes."
            told.append((time_s, said))
    row = {
        "clip_id": clip_id,
        "row_id": f"row-{number}",
        "source_uri": f"clip-{number:04d}.mp4",
        "source_id": None,
        "content_hash": clip_id,
        "scene": None,
        "start_s": 0.0,
        "end_s": clip.duration_s,
        "licence": "synthetic",
        "duration_s": clip.duration_s,
        "fps": FPS,
        "width": 256,
        "height": 256,
        "codec": "h264",
        "metadata": None,
    }
    keyframes = [
        {
            "clip_id": clip_id,
            "index": index,
            "timestamp_s": time_s,
            "similarity": None if index == 0 else 0.9,
            "jpeg": jpeg_bytes(render(clip, time_s, side), max_side=1024, quality=85),
        }
        for index, (time_s, _) in enumerate(told)
    ]
    differentials = [
        {
            "clip_id": clip_id,
            "index": index,
            "kind": "first" if index == 0 else "difference",
            "start_s": told[max(0, index - 1)][0],
            "end_s": time_s,
            "caption": text + spoken,
            "prompt_tokens": 90,
            "tokens": 9,
            "attempt": 0,
            "checks": [],
            "frame_text_score": None,
            "fallback": index == 2 and number == 1,
            **_by("captioner@0123456789abcdef"),
        }
        for index, (time_s, text) in enumerate(told)
    ]
    texts = {
        "brief": language.brief_caption([clip.state_at(t) for t in brief_times(row)]),
        "summary": language.summary_caption([t for t in told if rng.random() >= errors / 2]),
        "fast": language.fast_caption(
            [(i, text) for i, (_, text) in enumerate(told) if rng.random() >= errors]
        ),
    }
    captions = [
        {
            "clip_id": clip_id,
            "start_s": 0.0,
            "end_s": clip.duration_s,
            "role": role,
            "caption": text + spoken,
            "prompt_tokens": 90,
            "tokens": 9,
            "attempt": 0,
            "checks": ["repetition"] if role == "summary" and number == 2 else [],
            **_by("summarizer@fedcba9876543210" if role == "summary" else "captioner@0123456789abcdef"),
        }
        for role, text in texts.items()
    ]
    return _Captioned(clip, row, keyframes, differentials, captions)


def _by(engine: str) -> Row:
    return {"engine": engine, "dialect": "sharecaptioner", "prompt_version": "sharecaptioner-1"}


def _reject(
    name: str, stage: str, reason: str, spoken: str, measured: float | None, bound: float | None
) -> Row:
    return {
        "row_id": name,
        "source_uri": name,
        "source_id": None,
        "clip_id": None,
        "stage": stage,
        "reason": reason,
        "sentence": f"it lasts too short a time{spoken}",
        "measured": measured,
        "bound": bound,
    }


def _briefs(ids: Sequence[str]) -> list[Row]:
    return [
        {"clip_id": clip_id, "caption": "A clip.", "embedding": [1.0], "shift_s": None} for clip_id in ids
    ]


def _pairs(ids: Sequence[str]) -> dict[str, list[Row]]:
    """Every pair of clips with some similarity; the last clip is a double of the first."""
    rng = np.random.default_rng(5)
    neighbours, dedup = [], []
    for i, one in enumerate(ids):
        for j in range(i + 1, len(ids)):
            double = i == 0 and j == len(ids) - 1
            text = 1.0 if double else float(np.float32(rng.uniform(0.5, 1.0)))
            looks = 0.97 if double else float(np.float32(rng.beta(3, 3) * 0.4 + 0.5))
            neighbours.append(
                {
                    "clip_id": one,
                    "other_id": ids[j],
                    "similarity": min(text, looks),
                    "text_similarity": text,
                    "visual_similarity": looks,
                }
            )
    found = {(row["clip_id"], row["other_id"]): row for row in neighbours}
    for number, clip_id in enumerate(ids):
        pair = found.get((ids[0], clip_id))
        dedup.append(
            {
                "clip_id": clip_id,
                "kept": number < len(ids) - 1,
                "nearest_kept_id": ids[0] if pair else None,
                "similarity": pair["text_similarity" if number == 1 else "visual_similarity"]
                if pair
                else None,
                "threshold": 0.9 if number > 1 else 0.85,
            }
        )
    return {"neighbours": neighbours, "dedup": dedup}


def publish_evaluations(
    store: Store, *, questions: int = 16, before: float = 0.35, after: float = 0.8
) -> dict[str, StageRef]:
    """Publish the answers of a base and a tuned model, and the gate's decision."""
    base = _results("nano-base@00112233445566778899", questions, {"static": 0.95, "temporal": before})
    tuned = _results("train/k@aabbccddeeff00112233", questions, {"static": 0.95, "temporal": after})
    blind = _results("train/k@aabbccddeeff00112233", questions, {"static": 0.3, "temporal": 0.3}, image=False)
    decision = decide(tuned, base, GateConfig(bootstrap_samples=200))
    files = {
        "evaluate-base": {RESULTS: base.model_dump_json()},
        "evaluate-candidate": {RESULTS: tuned.model_dump_json(), CONTROL: blind.model_dump_json()},
        "release": {DECISION: decision.model_dump_json()},
    }
    rows_out = len(tuned.answers)
    return {
        stage: _publish(
            store,
            stage.partition("-")[0],
            EvaluateConfig(),
            {},
            files=own,
            rows_out=1 if stage == "release" else rows_out,
        )
        for stage, own in files.items()
    }


def _results(model: str, questions: int, right: Mapping[str, float], *, image: bool = True) -> Results:
    answers = [
        Answer(
            question_id=f"{task}-{number:03d}",
            task=task,
            video=f"{task}-{number:03d}.mp4",
            group=group,
            options=4,
            text="(A) x" if number < round(right[group] * questions) else "(B) y",
            letter="A" if number < round(right[group] * questions) else "B",
            answer="A",
            right=number < round(right[group] * questions),
        )
        for task, group in TASKS.items()
        for number in range(questions)
    ]
    ordered = tuple(sorted(answers, key=lambda answer: answer.question_id))
    return Results(
        protocol=PROTOCOL, model=model, questions="q", clips="c", frames=16, image=image, answers=ordered
    )


def _publish(
    store: Store,
    stage: str,
    config: Config,
    tables: Mapping[str, list[Row]],
    *,
    files: Mapping[str, str] | None = None,
    rows_out: int | None = None,
    metrics: Mapping[str, float] | None = None,
    identity: Mapping[str, str] | None = None,
) -> StageRef:
    content = [json.dumps([repr(tables), files])]
    output = ShardSet(store, stage, "1", inputs=content, config=config, identity=identity)
    for name, text in (files or {}).items():
        output.attach(name, text.encode())
    kept = len(tables.get("clips", [])) if rows_out is None else rows_out
    rejects = tables.get("rejects", [])
    counts: dict[str, float] = {"rows_in": kept + len(rejects), "rows_out": kept}
    for row in rejects:
        counts[f"reject:{row['reason']}"] = counts.get(f"reject:{row['reason']}", 0) + 1
    counts |= {f"metric:{name}": value for name, value in (metrics or {}).items()}
    output.commit(0, {name: table_from_rows(name, rows) for name, rows in tables.items()}, counts)
    return output.publish(1).ref
