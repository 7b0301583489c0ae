"""The stages one after another in this process: what the pipelines do, without a pipeline engine.

The command line's verbs run these. A stage's key depends on its inputs and settings alone, so they find
what a pipeline has published and the other way round; what is published already is not worked out again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from share4video.config import Config, RunConfig
from share4video.dataset.manifest import StageRef
from share4video.events import Emit, append_event
from share4video.stages.contract import StageResult
from share4video.stages.task import stage_task
from share4video.store import Store

if TYPE_CHECKING:
    from share4video.stages.release import ReleaseResult

DEFAULT_MODEL_NAME = "share4video-chat"
CURATE_STAGES = ("probe", "brief", "dedup", "keyframes")
CAPTION_STAGES = ("caption", "dataset")
TRAIN_STAGES = ("mixture", "train")
RELEASE_STAGES = ("evaluate-base", "evaluate-candidate", "evaluate-champion", "release")

I_contra = TypeVar("I_contra", contravariant=True)
C_contra = TypeVar("C_contra", bound=Config, contravariant=True)


@dataclass(frozen=True)
class Curated:
    """De-duplicated clips, the brief captions they were told apart by, and their key frames."""

    clips: StageRef
    brief_captions: StageRef
    keyframes: StageRef


@dataclass(frozen=True)
class Captioned:
    """The captions, and the dataset they were published as."""

    captions: StageRef
    dataset: StageRef


@dataclass(frozen=True)
class Chain:
    """Runs stages against one store with one configuration.

    Attributes:
        emit: where the stages' events go.
    """

    config: RunConfig
    store: Store
    emit: Emit = append_event

    def curate(self, source: str, published: StageRef | None = None) -> Curated:
        """Curate the videos of ``source``. Raises UserError for what the user can mend.

        Args:
            source: one source or several, as `share4video.media.sources.join_sources` writes them.
            published: clips that an earlier run kept; these stay, and neither they nor what is near them is
                kept again.
        """
        from share4video.stages import brief, dedup, keyframes, probe

        settings, engines = self.config, self.config.engines
        clips = self._run("probe", probe.run_stage, probe.ProbeInputs(source=source), settings.probe)
        brief_inputs = brief.BriefInputs(clips, source, engines.captioner, published)
        captions = self._run("brief", brief.run_stage, brief_inputs, settings.brief)
        dedup_inputs = dedup.DedupInputs(clips, captions, source, published)
        kept = self._run("dedup", dedup.run_stage, dedup_inputs, settings.dedup)
        frame_inputs = keyframes.KeyframesInputs(clips=kept, source=source)
        frames = self._run("keyframes", keyframes.run_stage, frame_inputs, settings.keyframes)
        return Curated(clips=kept, brief_captions=captions, keyframes=frames)

    def caption(self, curated: Curated, earlier: StageRef | None = None) -> Captioned:
        """Caption what was curated and publish the dataset, with the rows of an ``earlier`` one first."""
        from share4video.stages import caption, dataset

        engines = self.config.engines
        inputs = caption.CaptionInputs(
            clips=curated.clips,
            keyframes=curated.keyframes,
            captioner=engines.captioner,
            summarizer=engines.summarizer,
            published=earlier,
        )
        captions = self._run("caption", caption.run_stage, inputs, self.config.caption)
        joined = dataset.DatasetInputs(
            clips=curated.clips,
            brief=curated.brief_captions,
            keyframes=curated.keyframes,
            caption=captions,
            earlier=earlier,
        )
        return Captioned(captions, self._run("dataset", dataset.run_stage, joined, self.config.dataset))

    def train(self, dataset: StageRef, source: str) -> StageRef:
        """Fine-tune the chat model on a dataset; ``source`` are the sources its clips were found in."""
        from share4video.stages import mixture, train

        mixture_inputs = mixture.MixtureInputs(dataset=dataset, source=source)
        samples = self._run("mixture", mixture.run_stage, mixture_inputs, self.config.mixture)
        return self._run("train", train.run_stage, train.TrainInputs(mixture=samples), self.config.train)

    def evaluate(self, model: str, questions: str, clips: str, *, role: str = "") -> StageRef:
        """Ask a model the questions; ``model`` is what `evaluate.parse_model` reads."""
        from share4video.stages import evaluate

        parsed = evaluate.parse_model(model, self.store)
        inputs = evaluate.EvaluateInputs(model=parsed, questions=questions, clips=clips)
        name = f"evaluate-{role}" if role else "evaluate"
        return self._run(name, evaluate.run_stage, inputs, self.config.evaluate)

    def release(
        self, trained: StageRef, questions: str, question_clips: str, name: str = DEFAULT_MODEL_NAME
    ) -> ReleaseResult:
        """Evaluate the base and the trained model, register it, and promote it if the gate passes.

        The champion, where there is one, is evaluated as well, unless its answers are on record.

        Raises:
            UserError: for what the user can mend.
        """
        from share4video.stages import release

        base = self.evaluate(self.config.train.base_model, questions, question_clips, role="base")
        candidate = self.evaluate(str(trained), questions, question_clips, role="candidate")
        champion = self._champion(trained, candidate, questions, question_clips, name)
        inputs = release.ReleaseInputs(trained, candidate, base, champion, name)
        with stage_task("release", self.store, emit=self.emit) as task:
            result = release.run_stage(inputs, self.config.gate, self.store)
            details = {"outcome": result.outcome, "model": result.model_uri, "decision": result.sentence()}
            task.finish(result, details=details)
        return result

    def _champion(
        self, trained: StageRef, candidate: StageRef, questions: str, clips: str, name: str
    ) -> StageRef | None:
        """Return the champion's evaluation; None where there is no other champion than ``trained``."""
        from share4video.stages import champion

        inputs = champion.ChampionInputs(name, trained, candidate, questions, clips)
        with stage_task("evaluate-champion", self.store, emit=self.emit) as task:
            result = champion.run_stage(inputs, self.config.evaluate, self.store, progress=task.progress)
            if result is None:
                task.done(champion.NONE)
                return None
            task.finish(result)
        return result.ref

    def _run(
        self, name: str, run: _RunStage[I_contra, C_contra], inputs: I_contra, settings: C_contra
    ) -> StageRef:
        with stage_task(name, self.store, emit=self.emit) as task:
            result = run(inputs, settings, self.store, progress=task.progress)
            task.finish(result)
        return result.ref


class _Progress(Protocol):
    def __call__(self, label: str, done: int, total: int, /) -> None: ...


class _RunStage(Protocol[I_contra, C_contra]):
    def __call__(
        self, inputs: I_contra, config: C_contra, store: Store, *, progress: _Progress | None = None
    ) -> StageResult: ...
