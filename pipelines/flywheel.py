"""flywheel: curate -> caption -> train -> release, each as a nested pipeline, and a report."""

from kfp import dsl

from components.report.component import report
from pipelines.caption import caption
from pipelines.curate import curate
from pipelines.release import release
from pipelines.resources import place
from pipelines.train import train


@dsl.pipeline(name="flywheel", description="Raw videos to a promoted chat model.")
def flywheel(
    source: str,
    questions: str,
    question_clips: str,
    store: str,
    captioner: str,
    base_model: str,
    summarizer: str = "",
    add_to: str = "",
    registered_model: str = "share4video-chat",
    truth: str = "",
    probe_config: str = "{}",
    brief_config: str = "{}",
    dedup_config: str = "{}",
    keyframes_config: str = "{}",
    caption_config: str = "{}",
    dataset_config: str = "{}",
    mixture_config: str = "{}",
    train_config: str = "{}",
    evaluate_config: str = "{}",
    gate_config: str = "{}",
) -> str:
    """Run everything on the videos below ``source``; returns the release's decision.

    ``truth`` is the folder of the clips' truth where they are synthetic: the report then says what of it
    the captions tell. ``add_to`` is a dataset that the clips are added to; ``source`` then still has to hold
    the videos of its clips, for the training.
    """
    curated = curate(
        source=source,
        store=store,
        captioner=captioner,
        published=add_to,
        probe_config=probe_config,
        brief_config=brief_config,
        dedup_config=dedup_config,
        keyframes_config=keyframes_config,
    )
    captioned = caption(
        clips=curated.outputs["clips"],
        brief_captions=curated.outputs["brief_captions"],
        keyframes=curated.outputs["keyframes"],
        store=store,
        captioner=captioner,
        summarizer=summarizer,
        add_to=add_to,
        caption_config=caption_config,
        dataset_config=dataset_config,
    )
    trained = train(
        dataset=captioned.outputs["dataset"],
        source=source,
        store=store,
        mixture_config=mixture_config,
        train_config=train_config,
    )
    released = release(
        trained=trained.outputs["model"],
        base_model=base_model,
        questions=questions,
        question_clips=question_clips,
        store=store,
        registered_model=registered_model,
        evaluate_config=evaluate_config,
        gate_config=gate_config,
    )
    place(
        report(
            probe=curated.outputs["probed"],
            brief=curated.outputs["brief_captions"],
            dedup=curated.outputs["clips"],
            keyframes=curated.outputs["keyframes"],
            caption=captioned.outputs["captions"],
            dataset=captioned.outputs["dataset"],
            mixture=trained.outputs["mixture"],
            train=trained.outputs["model"],
            base=released.outputs["base"],
            candidate=released.outputs["candidate"],
            release=released.outputs["decision"],
            truth=truth,
            store=store,
        ),
        "report",
    )
    return released.outputs["decision"]
