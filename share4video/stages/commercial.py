"""A published output without the clips whose licence is not known to allow commercial use, as files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from share4video.config import DatasetConfig, LicenceConfig
from share4video.dataset.licences import normalise
from share4video.dataset.manifest import StageRef, load_manifest
from share4video.dataset.shards import empty_table, read_file, read_table, table_bytes, table_from_rows
from share4video.dataset.tombstones import Tombstone, Tombstones
from share4video.errors import UserError
from share4video.export.job import Filter, Row
from share4video.stages import dataset
from share4video.stages.clip_frames import reject_row
from share4video.stages.takedown_rows import Without
from share4video.store import Store


def commercial_filter(licences: Sequence[str] = ()) -> tuple[Filter, str]:
    """Return the rule of `share4video.export.run.export` that leaves such clips out, and its name.

    Args:
        licences: those that the caller has read and found to allow commercial use.
    """
    asked = LicenceConfig(commercial_only=True, commercial_licences=tuple(licences))

    def leave_out(clip: Row) -> tuple[str, str] | None:
        if dataset.allowed_by(asked, clip["licence"]):
            return None
        return dataset.LICENCE, dataset.licence_sentence(clip, asked)

    own = sorted({normalise(licence) for licence in licences})
    return leave_out, f"commercial_only, and {', '.join(own)}" if own else "commercial_only"


def export_commercial(
    store: Store, ref: StageRef, to: Path, licences: Sequence[str] = ()
) -> tuple[list[Path], int]:
    """Write an output's tables and files without the clips whose licence may not allow commercial use.

    They are in ``rejects.parquet`` under ``licence``. Files that speak of them otherwise than in lines or
    elements of JSON are left out, and a dataset's card is written anew.

    Args:
        to: an existing folder.
        licences: those that the caller has read and found to allow commercial use.

    Returns:
        What was written, and how many clips were left out.

    Raises:
        UserError: the output holds no clips and so no licences, or is missing or damaged.
    """
    manifest = load_manifest(store, ref)
    names = sorted({part.table for part in manifest.parts})
    if "clips" not in names:
        fix = "export a dataset, or make the mixture with mixture.commercial_only"
        raise UserError("the output says nothing of licences", where=str(ref), fix=fix)
    asked = LicenceConfig(commercial_only=True, commercial_licences=tuple(licences))
    clips = read_table(store, ref, "clips").to_pylist()
    refused = [clip for clip in clips if not dataset.allowed_by(asked, clip["licence"])]
    stones = Tombstones(Tombstone(clip_id=clip["clip_id"], reason=dataset.LICENCE) for clip in refused)
    without = Without(stones, "export")
    tables = without.tables({name: read_table(store, ref, name) for name in names})
    rejects = [
        reject_row(clip, ref.stage, dataset.LICENCE, dataset.licence_sentence(clip, asked))
        for clip in refused
    ]
    before = tables.get("rejects", empty_table("rejects"))
    tables["rejects"] = pa.concat_tables([before, table_from_rows("rejects", rejects)])
    written = {f"{name}.parquet": table_bytes(table) for name, table in sorted(tables.items())}
    for file in manifest.files:
        if (data := without.file(file.name, read_file(store, ref, file.name))) is not None:
            written[file.name] = data
    if ref.stage == dataset.STAGE:
        written[dataset.CARD_NAME] = _card(manifest.config, tables, asked)
    return [_write(to / name, data) for name, data in written.items()], len(refused)


def _card(config: Mapping[str, Any], tables: Mapping[str, pa.Table], asked: LicenceConfig) -> bytes:
    rows = {name: tables.get(name, empty_table(name)).to_pylist() for name in dataset.TABLE_NAMES}
    settings = DatasetConfig(title=config["title"], **dict(asked))
    return dataset.card_of(rows, settings, (), 0)


def _write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
