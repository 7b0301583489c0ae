"""An original ``llava_llama`` checkpoint as a Hugging Face LLaVA-NeXT folder for servers and trainers.

Names, shapes and types of all tensors are compared with the architecture before a weight is read. Values go
from file to file a block at a time, so that memory does not grow with the model where its files can be
mapped: safetensors, and zip ``.bin`` as PyTorch writes since 1.6.
"""

from __future__ import annotations

import hashlib
import json
import resource
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from share4video.errors import UserError, reading
from share4video.models.llava_next import lora
from share4video.models.llava_next.checkpoint_reader import (
    close_files,
)
from share4video.models.llava_next.checkpoint_writer import (
    DTYPES,
    INDEX,
    index_of,
    write_shard,
)
from share4video.models.llava_next.conversion_plan import Plan, make_plan
from share4video.models.llava_next.places import RECORD, Destination, Progress, fetched, open_destination
from share4video.models.llava_next.tokens import save_processor

if TYPE_CHECKING:
    pass

FORMAT = 1  # goes up when the same source would give other files
MAX_SHARD_BYTES = 5 * 10**9
_BLOCK_BYTES = 1 << 20
_HASHED_AT_ONCE = 4
_WEIGHTS = (".safetensors", ".bin")


@dataclass(frozen=True)
class Report:
    """What a conversion did.

    Attributes:
        finished_before: it was there already, from the same source with the same options.
        bytes: of all weights, as written.
        largest_shard_bytes: values of the largest file of weights.
        peak_memory_bytes: the most this process ever had resident, its libraries included.
        dropped: tensors of the source that are computed and not stored any more.
        notes: what was decided and could have been otherwise, in sentences.
    """

    destination: str
    source_revision: str
    finished_before: bool
    tensors: int
    bytes: int
    shards: int
    largest_shard_bytes: int
    dtype: str
    image_token_id: int
    vocab_size: int
    dropped: tuple[str, ...]
    notes: tuple[str, ...]
    peak_memory_bytes: int


def convert(
    source: str | Path,
    destination: str | Path,
    *,
    base: str | Path | None = None,
    dtype: str | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    progress: Progress | None = None,
) -> Report:
    """Convert a checkpoint.

    Args:
        source: folder or ``s3://`` prefix of an original checkpoint, or of a LoRA folder.
        destination: folder or ``s3://`` prefix, which must be new; a finished conversion of the same source
            is left as it is.
        base: what a LoRA folder was trained from, in the original layout.
        dtype: ``float32``, ``bfloat16`` or ``float16``; None keeps each tensor's own.
        max_shard_bytes: of values in a file of weights.
        progress: called with what is being done, bytes done and bytes in all.

    Raises:
        UserError: the source is no such checkpoint, is damaged or incomplete, or the destination is taken.
    """
    tell = progress or (lambda label, done, total: None)
    if dtype is not None and dtype not in DTYPES:
        raise UserError(f"no such type: {dtype}", where="--dtype", fix=f"take one of {', '.join(DTYPES)}")
    if max_shard_bytes < 1:
        raise UserError("a shard holds at least a byte", where="--max-shard-size", fix="give a larger size")
    place = open_destination(str(destination))
    with ExitStack() as stack:
        stack.callback(close_files)
        stack.callback(lora.forget_pair)
        before = place.record()
        folder = stack.enter_context(fetched(str(source), tell))
        base_folder = stack.enter_context(fetched(str(base), tell)) if base is not None else None
        planned = make_plan(folder, base_folder, str(source), dtype, max_shard_bytes)
        revision = _revision([f for f in (folder, base_folder) if f is not None], tell)
        identity = {
            "format": FORMAT,
            "source_revision": revision,
            "dtype": dtype,
            "max_shard_bytes": max_shard_bytes,
        }
        if before is not None and before.get("identity") != identity:
            raise UserError(
                "the destination holds another conversion",
                where=str(destination),
                fix="name a new one, or remove it first",
            )
        if before is None:
            _write(planned, place, identity, tell)
        return _report(planned, str(destination), revision, finished_before=before is not None)


def _revision(folders: list[Path], tell: Progress) -> str:
    """Return the SHA-256 over names and contents of the files a checkpoint is made of."""
    files = []
    for number, folder in enumerate(folders):
        with reading("the checkpoint", folder):
            here = [*folder.iterdir(), *(folder / "vision_tower").glob("*.json")]
            files += [
                (f"{number}/{file.relative_to(folder).as_posix()}", file)
                for file in here
                if file.is_file() and file.suffix in (".json", *_WEIGHTS)
            ]
    total = sum(file.stat().st_size for _, file in files)
    done = 0
    counting = threading.Lock()

    def digest(file: Path) -> str:
        nonlocal done
        found = hashlib.sha256()
        with reading("a file of the checkpoint", file), file.open("rb") as stream:
            while block := stream.read(_BLOCK_BYTES):
                found.update(block)
                with counting:
                    done += len(block)
                    tell("hashing", done, total)
        return found.hexdigest()

    files.sort()
    with ThreadPoolExecutor(_HASHED_AT_ONCE) as threads:  # hashing lets go of the interpreter
        digests = list(threads.map(digest, [file for _, file in files]))
    revision = hashlib.sha256()
    for (name, _), found in zip(files, digests, strict=True):
        revision.update(f"{name}\0{found}\n".encode())
    return revision.hexdigest()


def _write(planned: Plan, place: Destination, identity: dict[str, Any], tell: Progress) -> None:
    done, total = 0, planned.bytes

    def written(count: int) -> None:
        nonlocal done
        done += count
        tell("converting", done, total)

    with place.begin(total, max(shard.bytes for shard in planned.shards)) as folder:
        for shard in planned.shards:
            place.take(write_shard(shard, folder, written))
        if len(planned.shards) > 1:
            (folder / INDEX).write_bytes(index_of(planned.shards))
        tower = next(
            (f / "vision_tower" for f in planned.folders if (f / "vision_tower").is_dir()),
            planned.folders[0] / "vision_tower",
        )
        save_processor(planned.tokens, planned.config, tower, folder)
        planned.generation.save_pretrained(folder)
        planned.config.save_pretrained(folder)
        (folder / RECORD).write_text(_record(planned, identity), encoding="utf-8")
        place.publish(folder)


def _report(planned: Plan, destination: str, revision: str, *, finished_before: bool) -> Report:
    return Report(
        destination=destination,
        source_revision=revision,
        finished_before=finished_before,
        tensors=sum(len(shard.entries) for shard in planned.shards),
        bytes=planned.bytes,
        shards=len(planned.shards),
        largest_shard_bytes=max(shard.bytes for shard in planned.shards),
        dtype=str(planned.config.dtype).removeprefix("torch."),
        image_token_id=planned.tokens.image_token_id,
        vocab_size=planned.tokens.vocab_size,
        dropped=planned.dropped,
        notes=planned.notes,
        peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


def _record(planned: Plan, identity: dict[str, Any]) -> str:
    """Return the record's text: no times and no paths, so that the same source gives the same bytes."""
    found = _report(planned, "", identity["source_revision"], finished_before=False)
    facts = asdict(found)
    for key in ("destination", "finished_before", "peak_memory_bytes", "source_revision"):
        del facts[key]
    packages = ("transformers", "torch", "safetensors", "tokenizers")
    record = {
        "identity": identity,
        "architecture": "LlavaNextForConditionalGeneration",
        **facts,
        "versions": {package: version(package) for package in packages},
    }
    return json.dumps(record, indent=1) + "\n"
