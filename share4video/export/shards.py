"""Exports in shards of about equal size: Parquet for the Hugging Face hub, and WebDataset archives."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path, PurePosixPath

from share4video.dataset.formats import huggingface, webdataset
from share4video.dataset.published import ClipSample
from share4video.export.hub_card import CardTally
from share4video.export.job import Job
from share4video.media.limits import MediaError

INDEX_NAME = "shards.json"
_PART = "data/part-{:05d}.parquet"
_TAR = "shard-{:06d}.tar"


def write_huggingface(job: Job) -> None:
    """Write ``data/train-*.parquet`` and ``README.md``; one shard is there even without a clip."""
    tally, parts = CardTally(), 0
    samples = job.samples()
    group = _group(samples)
    while group or not parts:
        with job.folder.file(_PART.format(parts)) as file:
            shard = huggingface.ShardWriter(file)
            full = False
            while group and not full:
                shard.add(group)
                tally.add(group)
                job.folder.rows_out += len(group)
                group, full = _group(samples), shard.bytes >= job.options.shard_bytes
            shard.close()
        parts += 1
    for number in range(parts):
        job.folder.rename(_PART.format(number), huggingface.shard_name(number, parts))
    title = str(job.dataset.manifest.config.get("title", "Captioned video clips"))
    job.folder.put("README.md", tally.card(title).encode())


def write_webdataset(job: Job) -> None:
    """Write ``shard-*.tar`` and ``shards.json``, the index that the ``wids`` library reads.

    A sample has the clip's video where the export has videos, else its key frames where it has those, else
    text alone. A video is the clip's whole file; its span is in the ``json``.
    """
    shards = _TarShards(job)
    for sample in job.samples():
        try:
            with _media(job, sample) as media:
                shards.add(sample.clip_id, {**media, **webdataset.text_members(sample)})
        except MediaError as error:
            job.folder.leave_out(sample.clip, error.reason, error.sentence)
        else:
            job.folder.rows_out += 1
    job.folder.put(INDEX_NAME, shards.index())


def _group(samples: Iterator[ClipSample]) -> list[ClipSample]:
    return list(islice(samples, huggingface.ROWS_PER_GROUP))


@contextmanager
def _media(job: Job, sample: ClipSample) -> Iterator[dict[str, bytes | Path]]:
    """Hold the members that show the clip."""
    if job.options.source:
        kind = PurePosixPath(sample.clip["source_uri"]).suffix[1:].lower()
        with job.video(sample.clip) as path:
            yield {kind if kind.isalnum() and kind.isascii() else "mp4": path}
    elif job.options.keyframes is not None:
        frames = job.key_frames(sample)
        yield {f"{index:03d}.jpg": frame.image for index, frame in frames.items()}
    else:
        yield {}


class _TarShards:
    """The archives of an export: another is begun where a sample would bring one over its size."""

    def __init__(self, job: Job) -> None:
        self._folder, self._most = job.folder, job.options.shard_bytes
        self._open: tuple[webdataset.ShardWriter, ExitStack] | None = None
        self._samples: list[int] = []  # of each shard

    def add(self, key: str, members: Mapping[str, bytes | Path]) -> None:
        sizes = [data.stat().st_size if isinstance(data, Path) else len(data) for data in members.values()]
        if self._open and self._open[0].bytes + webdataset.stored_bytes(sizes) > self._most:
            self._close()
        if self._open is None:
            held = ExitStack()
            file = held.enter_context(self._folder.file(_TAR.format(len(self._samples))))
            self._open = webdataset.ShardWriter(file), held
        self._open[0].add(key, members)

    def index(self) -> bytes:
        """Close the last shard and return the index of all."""
        self._close()
        shards = []
        for number, samples in enumerate(self._samples):
            name = _TAR.format(number)
            size, sha256 = self._folder.size_and_hash(name)
            md5 = self._folder.md5(name)
            shards.append(
                {"url": name, "nsamples": samples, "filesize": size, "md5sum": md5, "sha256": sha256}
            )
        index = {"__kind__": "wids-shard-index-v1", "wids_version": 1, "shardlist": shards}
        return json.dumps(index, indent=1).encode() + b"\n"

    def _close(self) -> None:
        if self._open is not None:
            writer, held = self._open
            writer.close()
            held.close()
            self._samples.append(writer.samples)
            self._open = None
