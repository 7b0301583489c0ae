"""Exports of text alone: the released jsonl, and the lists of text-to-video trainers."""

from __future__ import annotations

from collections.abc import Iterator

from share4video.dataset.distinct import Distinct
from share4video.dataset.formats import open_sora, open_sora_plan, sharegpt4video
from share4video.dataset.published import ClipSample, released_record
from share4video.export.job import Job, is_part
from share4video.media.limits import MediaError


def write_sharegpt4video(job: Job) -> None:
    """Write ``sharegpt4video.jsonl``; see `released_record`."""
    named = _have_own_names(job)
    with job.folder.file("sharegpt4video.jsonl") as file:
        for sample in job.samples():
            file.write(sharegpt4video.encode(released_record(sample, named=named)))
            job.folder.rows_out += 1


def write_open_sora(job: Job) -> None:
    """Write ``videos.csv``: clips that are whole files; a part of one is left out (``part_of_a_file``)."""

    def videos() -> Iterator[open_sora.Video]:
        for sample in job.samples():
            clip = sample.clip
            if is_part(clip):
                sentence = "the clip is a part of its file, and a row of the list is a whole one"
                job.folder.leave_out(clip, "part_of_a_file", sentence)
            elif (path := _path(job, sample)) is not None:
                job.folder.rows_out += 1
                frames = round(clip["duration_s"] * clip["fps"])
                size = (clip["width"], clip["height"])
                yield open_sora.Video(path, sample.summary, frames, *size, clip["fps"])

    with job.folder.file("videos.csv") as file:
        for chunk in open_sora.chunks(videos()):
            file.write(chunk)


def write_open_sora_plan(job: Job) -> None:
    """Write ``videos.json``; a clip that is a part of its file has its frames under ``cut``."""

    def videos() -> Iterator[open_sora_plan.Video]:
        for sample in job.samples():
            clip = sample.clip
            if (path := _path(job, sample)) is not None:
                job.folder.rows_out += 1
                frames, first = (round(clip[name] * clip["fps"]) for name in ("duration_s", "start_s"))
                size = (clip["width"], clip["height"])
                yield open_sora_plan.Video(path, sample.summary, frames, *size, clip["fps"], first)

    with job.folder.file("videos.json") as file:
        for chunk in open_sora_plan.chunks(videos()):
            file.write(chunk)


def _path(job: Job, sample: ClipSample) -> str | None:
    """Return the name of the clip's video, or None where it cannot be had and the clip is left out."""
    try:
        return job.video_name(sample.clip)
    except MediaError as error:
        job.folder.leave_out(sample.clip, error.reason, error.sentence)
        return None


def _have_own_names(job: Job) -> bool:
    """Say whether every clip has an id of its list's, and no two the same."""
    seen = Distinct()
    return all(clip["source_id"] and seen.add(clip["source_id"]) for clip in job.dataset.clips())
