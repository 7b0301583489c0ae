"""``share4video curate``: raw videos to de-duplicated clips and their key frames."""

from __future__ import annotations

from typing import Annotated

import typer

from share4video.cli.options import (
    DEFAULT_STORE,
    ConfigOption,
    EngineOption,
    PromptsOption,
    SetOption,
    SourceArgument,
    StoreOption,
    read_settings,
    source_parameter,
)
from share4video.cli.printing import print_refs
from share4video.cli.runs import run_in_process
from share4video.dataset.outputs import published_clips
from share4video.stages.chain import CURATE_STAGES
from share4video.store import Store


def curate(
    source: SourceArgument,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", help="Take the first N rows by name only.")
    ] = None,
    shard: Annotated[
        str | None, typer.Option("--shard", metavar="I/N", help="Take part I of N parts of the rows only.")
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    add_to: Annotated[
        str | None,
        typer.Option(
            "--add-to",
            metavar="REF",
            help="Clips kept earlier, as dedup/KEY@HASH or the dataset made from them: they stay, and what "
            "is near them is not kept again.",
        ),
    ] = None,
    engine: EngineOption = None,
    prompts: PromptsOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
) -> None:
    """Filter, briefly caption and de-duplicate the videos of every SOURCE, and find their key frames."""
    chosen = {"probe.limit": limit, "probe.shard": shard}
    taken = [f"{key}={value}" for key, value in chosen.items() if value is not None]
    wanted = read_settings(config, [*(settings or ()), *taken], engine=engine, prompts=prompts)
    published = published_clips(Store.open(store), add_to or "")
    done = run_in_process(
        "curate",
        CURATE_STAGES,
        wanted,
        store,
        lambda chain: chain.curate(source_parameter(source, wanted), published),
        engines=[wanted.engines.captioner],
    )
    print_refs({"clips": done.clips, "brief captions": done.brief_captions, "key frames": done.keyframes})
