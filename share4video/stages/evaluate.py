"""Evaluate one model on a folder of multiple-choice questions about a folder of clips.

Published files: ``results.json`` (every answer, see `share4video.evaluation.results`), ``control.json`` with
the same questions asked without images where the configuration wants it, and ``answers/*.json``, the shards a
killed run goes on from.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice, zip_longest
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from share4video.captioning import engine
from share4video.captioning.checkpoints import checkpoint_folder
from share4video.captioning.domain_guard import domain_of, refuse_foreign_clip
from share4video.config import EngineSpec, EvaluateConfig
from share4video.dataset.manifest import StageRef, canonical_json
from share4video.dataset.shards import ShardSet
from share4video.errors import reading
from share4video.evaluation.grids import Inspect, Span, locate
from share4video.evaluation.mvbench import Session
from share4video.evaluation.questions import Question, questions_hash, read_questions
from share4video.evaluation.results import CONTROL, PROTOCOL, RESULTS, Answer, Failure, Results
from share4video.model_registry import MODEL_SCHEME, fetch_checkpoint, resolve
from share4video.stages.contract import Progress, StageResult
from share4video.store import Store
from share4video.synthetic.questions import TASK_GROUPS

STAGE, VERSION = "evaluate", "2"
QUESTIONS_PER_SHARD = 64


@dataclass(frozen=True)
class EvaluateInputs:
    """A model, and what it is asked.

    Attributes:
        model: a checkpoint a stage published, or an engine (a local folder, ``builtin:<name>``, an endpoint).
        questions: a folder of MVBench task files, or one such file.
        clips: the folder below which the questions' videos are.
        shelf: the store that holds a published checkpoint, where it is not the one the answers go to.
    """

    model: StageRef | EngineSpec
    questions: str
    clips: str
    shelf: Store | None = None


@dataclass(frozen=True)
class _Part:
    """The questions of one shard, and whether they are asked with images."""

    image: bool
    questions: tuple[Question, ...]


class _Shard(BaseModel):
    """What a shard of questions came to, as its attached file holds it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    answers: tuple[Answer, ...]
    failures: tuple[Failure, ...]


def parse_model(text: str, store: Store) -> StageRef | EngineSpec:
    """Read how a person names a model: train/KEY@HASH, models:/NAME@ALIAS, builtin:NAME or a folder.

    Raises:
        UserError: the registry does not know it.
    """
    if text.startswith(MODEL_SCHEME):
        return resolve(text, store).checkpoint
    if text.startswith("train/") and "@" in text and not Path(text).exists():
        return StageRef.parse(text)
    return EngineSpec(model_path=text)


def run_stage(
    inputs: EvaluateInputs, config: EvaluateConfig, store: Store, progress: Progress | None = None
) -> StageResult:
    """Ask the model every question and publish its answers. Rows are questions; failed calls are rejects.

    Raises:
        UserError: questions, clips or model are missing or wrong, the engine does not answer, or more
            questions than the configuration allows got no answer.
    """
    questions = limit_questions(read_questions(Path(inputs.questions)), config.limit)
    spans = locate(questions, Path(inputs.clips))
    asked = {"questions": questions_hash(questions), "clips": _clips_hash(questions, spans)}
    model = _identity(inputs.model)
    output = ShardSet(
        store,
        STAGE,
        VERSION,
        inputs=list(asked.values()),
        config=config,
        identity={"model": model, "protocol": PROTOCOL},
    )
    plan = _plan(questions, spans, control=config.control)
    if (manifest := output.published()) is not None:
        return StageResult.from_manifest(manifest, computed_shards=0, total_shards=len(plan))
    computed = _ask(inputs, config, store, output, plan, spans, progress)
    counts: dict[str, float] = {}
    with output.writing(len(plan)) as finished:  # the last shard holds what was asked in the others
        if finished is None:
            for image, name, prefix in ((True, RESULTS, ""), (False, CONTROL, "control_")):
                shards = [_read_shard(output, i) for i, part in enumerate(plan) if part.image == image]
                if not shards:
                    continue
                results = Results(
                    protocol=PROTOCOL,
                    model=model,
                    frames=config.frames,
                    image=image,
                    answers=tuple(sorted(chain(*(s.answers for s in shards)), key=lambda a: a.question_id)),
                    failures=tuple(sorted(chain(*(s.failures for s in shards)), key=lambda f: f.question_id)),
                    **asked,
                )
                output.attach(name, _encode(results), shard=len(plan))
                counts |= {f"metric:{key}": value for key, value in results.metrics(prefix).items()}
                if image:
                    counts |= _row_counts(results)
            output.commit(len(plan), {}, counts)
    manifest = output.publish(len(plan) + 1)
    return StageResult.from_manifest(manifest, computed_shards=max(computed, 1), total_shards=len(plan))


def limit_questions(questions: Sequence[Question], limit: int | None) -> list[Question]:
    """Return at most ``limit`` questions, taken from the tasks by turns; all of them where it is None."""
    if limit is None:
        return list(questions)
    tasks: dict[str, list[Question]] = defaultdict(list)
    for question in questions:
        tasks[question.task].append(question)
    turns = chain.from_iterable(zip_longest(*tasks.values()))
    return list(islice((question for question in turns if question is not None), limit))


def _plan(questions: Sequence[Question], spans: Mapping[str, Span], *, control: bool) -> list[_Part]:
    """Cut the questions into shards so that those about one span stay together."""
    by_span: dict[Span, list[Question]] = defaultdict(list)
    for question in sorted(questions, key=lambda q: (q.video, q.start_s or 0.0, q.end_s or 0.0, q.id)):
        by_span[spans[question.id]].append(question)
    shards: list[list[Question]] = [[]]
    for together in by_span.values():
        if len(shards[-1]) >= QUESTIONS_PER_SHARD:
            shards.append([])
        shards[-1] += together
    kinds = (True, False) if control else (True,)
    return [_Part(image, tuple(shard)) for image in kinds for shard in shards]


def _ask(
    inputs: EvaluateInputs,
    config: EvaluateConfig,
    store: Store,
    output: ShardSet,
    plan: Sequence[_Part],
    spans: Mapping[str, Span],
    progress: Progress | None,
) -> int:
    """Ask the questions of every shard that is not committed, and return how many shards that were."""
    pending = [i for i in range(len(plan)) if output.committed(i) is None]
    if not pending:
        return 0
    total = sum(len(part.questions) for part in plan)
    done = total - sum(len(plan[i].questions) for i in pending)

    def step(label: str) -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(label, done, total)

    spec = _engine(inputs.model, inputs.shelf or store)
    computed = 0
    with engine.connect(spec) as endpoint:
        session = Session(
            endpoint,
            config,
            task_groups({question.task for part in plan for question in part.questions}),
            allowed_failures=int(config.max_failed_share * total),
            failed=sum(len(_read_shard(output, i).failures) for i in range(len(plan)) if i not in pending),
            inspect=_inspector(spec),
        )
        for i in pending:
            with output.writing(i) as finished:
                if finished is not None:
                    continue
                part = plan[i]
                label = "questions" if part.image else "questions without images"
                answers, failures = session.ask_all(
                    part.questions, spans if part.image else None, partial(step, label)
                )
                shard = _Shard(answers=tuple(answers), failures=tuple(failures))
                output.attach(_shard_name(i), _encode(shard), shard=i)
                output.commit(i, {})
                computed += 1
    return computed


def task_groups(tasks: Set[str]) -> dict[str, str]:
    """Return the group of each synthetic task; questions of any other origin have no groups."""
    return dict(TASK_GROUPS) if tasks <= TASK_GROUPS.keys() else {}


def _identity(model: StageRef | EngineSpec) -> str:
    """Return the model's name in results: of a published checkpoint without fetching it."""
    return str(model) if isinstance(model, StageRef) else engine.identity(engine.resolve(model))


def _engine(model: StageRef | EngineSpec, store: Store) -> EngineSpec:
    if isinstance(model, StageRef):
        return EngineSpec(model_path=str(fetch_checkpoint(store, model)))
    return model


def _inspector(spec: EngineSpec) -> Inspect | None:
    """Return what refuses clips the model does not know, None for a model that takes any."""
    if spec.model_path is None:
        return None
    folder = checkpoint_folder(spec.model_path)
    domain = domain_of(folder)
    if domain == "any":
        return None

    def inspect(frames: Sequence[NDArray[np.uint8]], where: str) -> None:
        refuse_foreign_clip(domain, frames, model=folder.name, where=where)

    return inspect


def _clips_hash(questions: Sequence[Question], spans: Mapping[str, Span]) -> str:
    """Hash the names and bytes of the videos that are asked about; two tasks' videos may share a name.

    Raises:
        UserError: one of them cannot be read.
    """
    total = hashlib.sha256()
    for video, path in sorted({(question.video, spans[question.id].path) for question in questions}):
        with reading("a video that is asked about", path):
            files = [path]
            if path.is_dir():
                files = sorted(file for file in path.iterdir() if file.name.endswith(".jpg"))
            for file in files:
                with file.open("rb") as stream:
                    digest = hashlib.file_digest(stream, "sha256").hexdigest()
                total.update(f"{video}\0{file.name}\0{digest}\n".encode())
    return total.hexdigest()


def _row_counts(results: Results) -> dict[str, float]:
    reasons = Counter(failure.reason for failure in results.failures)
    rows_out = len(results.answers)
    rejects = {f"reject:{reason}": float(count) for reason, count in sorted(reasons.items())}
    return {"rows_in": rows_out + len(results.failures), "rows_out": rows_out, **rejects}


def _shard_name(shard: int) -> str:
    return f"answers/{shard:05d}.json"


def _encode(content: BaseModel) -> bytes:
    return canonical_json(content.model_dump(mode="json"))


def _read_shard(output: ShardSet, shard: int) -> _Shard:
    return _Shard.model_validate_json(output.store.get(f"{output.prefix}/{_shard_name(shard)}"))
