"""Exports of text alone: the released jsonl, and the lists of text-to-video trainers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from share4video.dataset.distinct import Distinct
from share4video.dataset.formats import open_sora, open_sora_plan, sharegpt4video
from share4video.dataset.published import ClipSample
from share4video.export.job import Job, is_part
from share4video.media.limits import MediaError

_ARCHIVE = ".zip"


def write_sharegpt4video(job: Job) -> None:
    """Write ``sharegpt4video.jsonl``; see `record_of`."""
    named = _have_own_names(job)
    with job.folder.file("sharegpt4video.jsonl") as file:
        for sample in job.samples():
            file.write(sharegpt4video.encode(record_of(sample, named=named)))
            job.folder.rows_out += 1


def record_of(sample: ClipSample, *, named: bool = False) -> sharegpt4video.Record:
    """Return a clip in the released form.

    ``video_id`` is the clip's id, or with ``named`` what its list calls it. The member of an archive
    ``folder/archive.zip/file`` has ``zip_folder`` ``archive.zip`` and ``video_path`` ``folder/file``.
    """
    clip = sample.clip
    path, archive = PurePosixPath(clip["source_uri"]), ""
    if path.parent.name.lower().endswith(_ARCHIVE):
        archive = path.parent.name
        path = path.parent.parent / path.name
    return sharegpt4video.Record(
        video_id=str(clip["source_id"] if named else clip["clip_id"]),
        video_path=str(path),
        timestamps=tuple(row["end_s"] for row in sample.differentials),
        keyframes=tuple(row["index"] for row in sample.differentials),
        captions=(
            *(sharegpt4video.Caption(str(row["index"]), row["caption"]) for row in sample.differentials),
            sharegpt4video.Caption(sharegpt4video.SUMMARY_IDX, sample.summary),
        ),
        zip_folder=archive,
    )


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
