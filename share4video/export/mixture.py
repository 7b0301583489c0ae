"""A published mixture as one LLaVA training file with its pictures."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from share4video.dataset.export_folder import ExportFolder
from share4video.dataset.formats import llava
from share4video.dataset.manifest import Manifest, StageRef, damaged, load_manifest
from share4video.dataset.messages import decode_messages
from share4video.dataset.shards import read_table
from share4video.errors import UserError
from share4video.export.conversations import FILE_NAME
from share4video.store import Store


def open_mixture(store: Store, ref: StageRef) -> Manifest:
    """Return a mixture's manifest. Raises UserError where the output is missing, damaged or no mixture."""
    manifest = load_manifest(store, ref)
    if "sft" not in {part.table for part in manifest.parts}:
        fix = "name one of stage mixture, or take llava-grid or llava-video of a dataset"
        raise UserError(f"the output of stage {ref.stage} is no mixture", where=str(ref), fix=fix)
    return manifest


def write_mixture(store: Store, manifest: Manifest, folder: ExportFolder) -> None:
    """Write ``llava.json`` and ``images/`` or ``frames/``: captions and questions as they were mixed.

    Raises:
        UserError: a picture is damaged or missing.
    """
    ref = manifest.ref

    def samples() -> Iterator[llava.Sample]:
        for shard in sorted({part.shard for part in manifest.parts if part.table == "sft"}):
            for row in read_table(store, ref, "sft", shard=shard).to_pylist():
                folder.rows_out += 1
                folder.counts[str(row["source"]).partition(":")[0]] += 1
                messages = decode_messages(row["messages"])
                yield llava.Sample(row["sample_id"], row["image"], messages, row["video"])

    with folder.file(FILE_NAME) as sink:
        for chunk in llava.chunks(samples()):
            sink.write(chunk)
    with tempfile.TemporaryDirectory(prefix="share4video-export-") as held:
        copy = Path(held) / "picture"
        for file in manifest.files:
            if file.name.startswith(("images/", "frames/")):
                try:
                    store.download(f"{ref.prefix}/{file.name}", copy)
                except KeyError:
                    raise damaged(store, ref, file.name) from None
                folder.copy(file.name, copy)
                if folder.size_and_hash(file.name)[1] != file.sha256:
                    raise damaged(store, ref, file.name)
