"""The captioner's training data: its roles as conversations in LLaVA's form, with composed pictures."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator

from share4video.captioning.role_inputs import KeyFrame
from share4video.captioning.role_samples import ROLES, RoleSample, conversation, role_samples
from share4video.dataset.formats import llava
from share4video.dataset.messages import MessageError, check_messages
from share4video.dataset.published import ClipSample
from share4video.export.conversations import put_image, write_conversations
from share4video.export.job import Job
from share4video.media.limits import MediaError

FILE_NAME = "captioner.json"


def write_captioner(job: Job) -> None:
    """Write ``captioner.json`` and ``images/``.

    With ``options.balanced`` every role that has samples gets as many as the rarest of them (the paper:
    "uniformly sampled"); which ones depends on the seed and on the samples' names alone. A clip whose key
    frames cannot be had is left out as a whole; a clip of which no sample was taken, too (``not_selected``).
    A window is left out and counted (``windows_without_frames``) where only the frames that have captions can
    be decoded.
    """
    bounds = _bounds(job) if job.options.balanced else {}

    def samples() -> Iterator[llava.Sample]:
        for clip in job.samples():
            found, windows = _with_frames(job, clip)
            if windows:
                job.folder.counts["windows_without_frames"] += windows
            chosen = [
                sample
                for sample in found
                if sample.role not in bounds or _rank(job, clip, sample) <= bounds[sample.role]
            ]
            try:
                frames = job.key_frames(clip) if any(sample.frames for sample in chosen) else {}
            except MediaError as error:
                job.folder.leave_out(clip.clip, error.reason, error.sentence)
                continue
            written = [made for sample in chosen if (made := _sample(job, clip, sample, frames))]
            if written:
                job.folder.rows_out += 1
                yield from written
            else:
                job.folder.leave_out(clip.clip, "not_selected", "no training sample was taken of this clip")

    write_conversations(job, samples(), FILE_NAME)


def _with_frames(job: Job, clip: ClipSample) -> tuple[list[RoleSample], int]:
    """Return the clip's samples whose frames can be had, and how many others there are."""
    samples = list(role_samples(clip))
    if job.options.keyframes is None:  # the times of frames without a caption are not known
        told = {int(row["index"]) for row in clip.differentials}
        had = [sample for sample in samples if told.issuperset(sample.frames)]
    else:
        had = samples
    return had, len(samples) - len(had)


def _sample(
    job: Job, clip: ClipSample, sample: RoleSample, frames: dict[int, KeyFrame]
) -> llava.Sample | None:
    """Return the sample, or count it as one that cannot be trained on."""
    shown = tuple(frames[index] for index in sample.frames)
    messages, picture = conversation(sample, shown, job.options.tiles)
    try:
        check_messages(messages, image=picture is not None)
    except MessageError:
        job.folder.counts["bad_messages"] += 1
        return None
    image = None if picture is None else put_image(job, picture)
    job.folder.counts[sample.role] += 1
    return llava.Sample(f"{clip.clip_id}-{sample.name}", image, messages)


def _bounds(job: Job) -> dict[str, int]:
    """Return the highest rank that is taken of each role."""
    ranks = {role: array("Q") for role in ROLES}
    for clip in job.chosen():
        for sample in _with_frames(job, clip)[0]:
            ranks[sample.role].append(_rank(job, clip, sample))
    taken = min((len(found) for found in ranks.values() if found), default=0)
    return {role: sorted(found)[taken - 1] for role, found in ranks.items() if found}


def _rank(job: Job, clip: ClipSample, sample: RoleSample) -> int:
    text = f"{job.options.seed}\0{clip.clip_id}\0{sample.name}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
