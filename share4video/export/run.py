"""Write a published dataset in a form that other tools take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from share4video.dataset.export_folder import export_folder, read_index
from share4video.dataset.manifest import StageRef
from share4video.dataset.published import PublishedDataset
from share4video.errors import UserError
from share4video.export.captioner import write_captioner
from share4video.export.conversations import write_llava_grid, write_llava_video
from share4video.export.job import ExportOptions, Filter, Job
from share4video.export.lists import write_open_sora, write_open_sora_plan, write_sharegpt4video
from share4video.export.shards import write_huggingface, write_webdataset
from share4video.store import Store

Needs = Literal["", "videos", "key frames"]


@dataclass(frozen=True)
class Format:
    """An export format: what writes it, and what it cannot be written without."""

    write: Callable[[Job], None]
    needs: Needs = ""


FORMATS: dict[str, Format] = {
    "sharegpt4video": Format(write_sharegpt4video),
    "llava-video": Format(write_llava_video),
    "llava-grid": Format(write_llava_grid, needs="videos"),
    "captioner": Format(write_captioner, needs="key frames"),
    "open-sora": Format(write_open_sora),
    "open-sora-plan": Format(write_open_sora_plan),
    "huggingface": Format(write_huggingface),
    "webdataset": Format(write_webdataset),
}


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
    """Write the dataset ``ref`` to folder ``target`` in format ``name``; return what ``export.json`` says.

    The folder appears when it is whole. One that holds the same export already is left as it is; equal
    datasets and options give equal bytes.

    Args:
        leave_out: says of a row of table ``clips`` why it is not exported, as reason and sentence.
        filter_name: names that rule in ``export.json``.

    Raises:
        UserError: there is no such format or dataset, what the format needs was not given, the source does
            not hold a clip as it was probed, or the folder holds something else.
    """
    options = options or ExportOptions()
    chosen = FORMATS.get(name)
    if chosen is None:
        raise UserError("there is no such format", where=name, fix=f"name one of {', '.join(FORMATS)}")
    if chosen.needs == "videos" and not options.source:
        raise UserError(f"format {name} needs the videos", where=name, fix="give --source")
    if chosen.needs == "key frames" and not options.source and options.keyframes is None:
        raise UserError(f"format {name} needs key frames", where=name, fix="give --keyframes or --source")
    dataset = PublishedDataset.open(store, ref)
    recipe = {"format": name, "dataset": str(ref), "filter": filter_name, "options": options.recipe()}
    earlier = read_index(target)
    if earlier is not None and all(earlier.get(key) == value for key, value in recipe.items()):
        return earlier
    with export_folder(target) as folder:
        chosen.write(Job(dataset, folder, options, leave_out))
        return folder.finish(recipe, dataset.manifest.rows("clips"))
