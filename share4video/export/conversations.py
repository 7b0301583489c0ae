"""Exports as conversations, in LLaVA's form (about a clip's video or its frame grid) and in VideoChat's."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator

from share4video.chat import GRID_FRAMES, grid_question
from share4video.dataset.formats import llava, videochat
from share4video.dataset.messages import IMAGE_MARK, Message, MessageError, check_messages
from share4video.dataset.mixture import DESCRIBE_REQUEST
from share4video.dataset.published import ClipSample
from share4video.export.job import Job, is_part
from share4video.media.grid_picture import grid_picture
from share4video.media.limits import MediaError

FILE_NAME, VIDEOCHAT_FILE_NAME = "llava.json", "videochat.json"


def write_llava_video(job: Job) -> None:
    """Write ``llava.json``: every clip asked to be described, with its file under ``video``.

    A clip that is a part of its file is left out (``part_of_a_file``): the form has no place for a span.
    """

    def samples() -> Iterator[llava.Sample]:
        for sample, path in _whole_files(job):
            yield from _conversation(job, sample, DESCRIBE_REQUEST, video=path)

    write_conversations(job, samples())


def write_llava_grid(job: Job) -> None:
    """Write ``llava.json`` and ``images/``: the same, about the frame grid that the chat model is shown."""

    def samples() -> Iterator[llava.Sample]:
        for sample in job.samples():
            clip = sample.clip
            try:
                with job.video(clip) as path:
                    grid = grid_picture(path, clip["start_s"], clip["end_s"], frames=GRID_FRAMES)
            except MediaError as error:
                job.folder.leave_out(clip, error.reason, error.sentence)
                continue
            yield from _conversation(job, sample, grid_question(DESCRIBE_REQUEST), image=put_image(job, grid))

    write_conversations(job, samples())


def write_videochat(job: Job) -> None:
    """Write ``videochat.json``: VideoChat's instructions, every clip asked to be described."""

    def asked(path: str, sample: ClipSample) -> videochat.Sample:
        return videochat.Instruction("video", path, (videochat.QA(DESCRIBE_REQUEST, sample.summary),))

    _write_videochat(job, asked)


def write_videochat_captions(job: Job) -> None:
    """Write ``videochat.json``: VideoChat's captions, from which its first stage learns."""

    def captioned(path: str, sample: ClipSample) -> videochat.Sample:
        return videochat.Caption("video", path, sample.summary)

    _write_videochat(job, captioned)


def _write_videochat(job: Job, made: Callable[[str, ClipSample], videochat.Sample]) -> None:
    def samples() -> Iterator[videochat.Sample]:
        for sample, path in _whole_files(job):
            job.folder.rows_out += 1
            yield made(path, sample)

    with job.folder.file(VIDEOCHAT_FILE_NAME) as file:
        for chunk in videochat.chunks(samples()):
            file.write(chunk)


def _whole_files(job: Job) -> Iterator[tuple[ClipSample, str]]:
    """Yield the clips that are whole files with their names; the others are left out."""
    for sample in job.samples():
        if is_part(sample.clip):
            sentence = "the clip is a part of its file, and the form names whole ones"
            job.folder.leave_out(sample.clip, "part_of_a_file", sentence)
            continue
        try:
            yield sample, job.video_name(sample.clip)
        except MediaError as error:
            job.folder.leave_out(sample.clip, error.reason, error.sentence)


def put_image(job: Job, jpeg: bytes) -> str:
    """Add a picture to the export and return its name; equal pictures are one file."""
    digest = hashlib.sha256(jpeg).hexdigest()
    name = f"images/{digest[:2]}/{digest}.jpg"
    job.folder.put(name, jpeg)
    return name


def write_conversations(job: Job, samples: Iterable[llava.Sample], name: str = FILE_NAME) -> None:
    """Write samples to one file as they come."""
    with job.folder.file(name) as file:
        for chunk in llava.chunks(samples):
            file.write(chunk)


def _conversation(
    job: Job, sample: ClipSample, request: str, *, image: str | None = None, video: str | None = None
) -> Iterator[llava.Sample]:
    """Yield the sample, or leave the clip out where its summary has the image mark in it."""
    messages = (Message("user", f"{IMAGE_MARK}\n{request}"), Message("assistant", sample.summary))
    try:
        check_messages(messages, image=True)
    except MessageError as error:
        job.folder.leave_out(sample.clip, "bad_messages", str(error))
        return
    job.folder.rows_out += 1
    yield llava.Sample(sample.clip_id, image, messages, video)
