"""``share4video caption``: differential captions, summaries and the published dataset."""

from __future__ import annotations

from typing import Annotated

import typer

from share4video.cli.options import (
    DEFAULT_STORE,
    ConfigOption,
    SetOption,
    SourceArgument,
    StoreOption,
    read_settings,
    source_parameter,
)
from share4video.cli.printing import print_refs
from share4video.cli.runs import run_in_process
from share4video.dataset.outputs import published_clips, published_dataset
from share4video.stages.chain import CAPTION_STAGES, CURATE_STAGES, Captioned, Chain
from share4video.store import Store


def caption(
    source: SourceArgument,
    store: StoreOption = DEFAULT_STORE,
    add_to: Annotated[
        str | None,
        typer.Option(
            "--add-to",
            metavar="REF",
            help="A dataset, as dataset/KEY@HASH: its clips and captions stay, and what SOURCE has beside "
            "them is captioned and added in a new version.",
        ),
    ] = None,
    config: ConfigOption = None,
    settings: SetOption = None,
) -> None:
    """Caption the videos of every SOURCE and publish the dataset; curates first what is not curated yet."""
    wanted = read_settings(config, settings)
    earlier = published_dataset(add_to or "")
    published = published_clips(Store.open(store), add_to or "")

    def work(chain: Chain) -> Captioned:
        return chain.caption(chain.curate(source_parameter(source, wanted), published), earlier)

    done = run_in_process(
        "caption",
        (*CURATE_STAGES, *CAPTION_STAGES),
        wanted,
        store,
        work,
        engines=[wanted.engines.captioner, wanted.engines.summarizer],
    )
    print_refs({"captions": done.captions, "dataset": done.dataset})
