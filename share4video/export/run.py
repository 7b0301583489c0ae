"""Write a published dataset in a form that other tools take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from share4video.dataset.export_folder import ExportFolder, export_folder, read_index
from share4video.dataset.manifest import StageRef
from share4video.dataset.published import PublishedDataset
from share4video.errors import UserError
from share4video.export.captioner import write_captioner
from share4video.export.conversations import write_llava_grid, write_llava_video
from share4video.export.job import ExportOptions, Filter, Job
from share4video.export.lists import write_open_sora, write_open_sora_plan, write_sharegpt4video
from share4video.export.mixture import open_mixture, write_mixture
from share4video.export.shards import write_huggingface, write_webdataset
from share4video.store import Store

Needs = Literal["", "videos", "key frames"]
Use = Literal["source", "keyframes", "shards", "balance"]


@dataclass(frozen=True)
class Format:
    """An export format: what writes it, the options it uses, and what it cannot be written without."""

    write: Callable[[Job], None]
    uses: frozenset[Use]
    needs: Needs = ""


def _format(write: Callable[[Job], None], *uses: Use, needs: Needs = "") -> Format:
    return Format(write, frozenset(uses), needs)


CAPTIONER = "captioner"
FORMATS: dict[str, Format] = {
    "sharegpt4video": _format(write_sharegpt4video),
    "llava-video": _format(write_llava_video, "source"),
    "llava-grid": _format(write_llava_grid, "source", needs="videos"),
    CAPTIONER: _format(write_captioner, "source", "keyframes", "balance", needs="key frames"),
    "open-sora": _format(write_open_sora, "source"),
    "open-sora-plan": _format(write_open_sora_plan, "source"),
    "huggingface": _format(write_huggingface, "shards"),
    "webdataset": _format(write_webdataset, "source", "keyframes", "shards"),
}
MIXTURE = "llava"  # the format of mixtures; the others are those of datasets
TABLES = "tables"  # every output as it is; not written here


def export(
    store: Store,
    ref: StageRef,
    target: Path,
    name: str,
    options: ExportOptions | None = None,
    *,
    leave_out: Filter | None = None,
    filter_name: str = "",
) -> dict[str, Any]:
    """Write the dataset or mixture ``ref`` to folder ``target``; return what ``export.json`` says.

    The folder appears when it is whole. One that holds the same export already is left as it is; equal
    datasets and options give equal bytes.

    Args:
        name: of `FORMATS`, or `MIXTURE`, whose rows are samples.
        leave_out: says of a row of table ``clips`` why it is not exported, as reason and sentence.
        filter_name: names that rule in ``export.json``.

    Raises:
        UserError: there is no such format or dataset, what the format needs was not given, the source does
            not hold a clip as it was probed, every row was left out, or the folder holds something else or
            cannot be written. There is no folder then.
    """
    options = options or ExportOptions()
    recipe = {"format": name, "dataset": str(ref), "filter": filter_name, "options": options.recipe()}
    write: Callable[[ExportFolder], None]
    if name == MIXTURE:
        mixture = open_mixture(store, ref)
        if leave_out is not None:
            raise UserError("a mixture is not filtered", where=str(ref), fix="filter what it is mixed from")
        rows, write = mixture.rows("sft"), partial(write_mixture, store, mixture)
    else:
        chosen = _chosen(name, options)
        dataset = PublishedDataset.open(store, ref)
        rows = dataset.manifest.rows("clips")

        def write(folder: ExportFolder) -> None:
            chosen.write(Job(dataset, folder, options, leave_out))

    earlier = read_index(target)
    if earlier is not None and all(earlier.get(key) == value for key, value in recipe.items()):
        return earlier
    with export_folder(target) as folder:
        write(folder)
        index = folder.finish(recipe, rows)
        if rows and not index["rows_out"]:
            reasons = ", ".join(f"{count} as {reason}" for reason, count in index["rejects"].items())
            raise UserError(
                f"none of {rows} rows is left, {reasons}", where=str(ref), fix=f"for one, {folder.example}"
            )
    return index


def _chosen(name: str, options: ExportOptions) -> Format:
    """Return a format of datasets. Raises UserError where there is none, or what it needs was not given."""
    chosen = FORMATS.get(name)
    if chosen is None:
        known = ", ".join([TABLES, *FORMATS, MIXTURE])
        raise UserError("there is no such format", where=name, fix=f"name one of {known}")
    if chosen.needs == "videos" and not options.source:
        raise UserError(f"format {name} needs the videos", where=name, fix="give --source")
    if chosen.needs == "key frames" and not options.source and options.keyframes is None:
        raise UserError(f"format {name} needs key frames", where=name, fix="give --keyframes or --source")
    return chosen
