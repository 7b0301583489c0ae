"""``share4video train``: a captioned dataset to a fine-tuned chat model."""

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
from share4video.dataset.manifest import StageRef
from share4video.stages.chain import CAPTION_STAGES, CURATE_STAGES, TRAIN_STAGES, Chain


def train(
    source: SourceArgument,
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset", metavar="REF", help="A published dataset of these videos, as STAGE/KEY@HASH."
        ),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    config: ConfigOption = None,
    settings: SetOption = None,
) -> None:
    """Fine-tune the chat model on the captions of the videos of every SOURCE, captioned first if need be."""
    wanted = read_settings(config, settings)
    given = StageRef.parse(dataset) if dataset is not None else None
    place = source_parameter(source, wanted)

    def work(chain: Chain) -> StageRef:
        published = given or chain.caption(chain.curate(place)).dataset
        return chain.train(published, place)

    stages = TRAIN_STAGES if given else (*CURATE_STAGES, *CAPTION_STAGES, *TRAIN_STAGES)
    engines = [] if given else [wanted.engines.captioner, wanted.engines.summarizer]
    print_refs({"model": run_in_process("train", stages, wanted, store, work, engines=engines)})
