"""Report: one self-contained HTML page about what the run published."""

from kfp import dsl

from components.image import PLACEHOLDER_IMAGE


@dsl.component(base_image=PLACEHOLDER_IMAGE, install_kfp_package=False)
def report(
    probe: str,
    brief: str,
    dedup: str,
    keyframes: str,
    caption: str,
    dataset: str,
    mixture: str,
    train: str,
    base: str,
    candidate: str,
    release: str,
    truth: str,
    store: str,
    page: dsl.Output[dsl.HTML],
) -> str:
    """Write the page; ``truth`` is the folder of synthetic clips' truth, empty where nobody knows it."""
    from share4video.dataset.manifest import StageRef
    from share4video.report import write_report
    from share4video.stages.task import stage_task

    with stage_task("report", store) as task:
        refs = {
            "probe": probe,
            "brief": brief,
            "dedup": dedup,
            "keyframes": keyframes,
            "caption": caption,
            "dataset": dataset,
            "mixture": mixture,
            "train": train,
            "evaluate-base": base,
            "evaluate-candidate": candidate,
            "release": release,
        }
        written = write_report(
            task.store,
            {stage: StageRef.parse(ref) for stage, ref in refs.items()},
            page.path,
            truth=truth or None,
        )
        task.done(str(written))
        return str(written)
