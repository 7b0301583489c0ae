"""``share4video caption``: differential captions, summaries and the published dataset."""

from __future__ import annotations

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
from share4video.stages.chain import CAPTION_STAGES, CURATE_STAGES, Captioned, Chain


def caption(
    source: SourceArgument,
    store: StoreOption = DEFAULT_STORE,
    engine: EngineOption = None,
    prompts: PromptsOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
) -> None:
    """Caption the videos of every SOURCE and publish the dataset; curates first what is not curated yet."""
    wanted = read_settings(config, settings, engine=engine, prompts=prompts)

    def work(chain: Chain) -> Captioned:
        return chain.caption(chain.curate(source_parameter(source, wanted)))

    done = run_in_process(
        "caption",
        (*CURATE_STAGES, *CAPTION_STAGES),
        wanted,
        store,
        work,
        engines=[wanted.engines.captioner, wanted.engines.summarizer],
    )
    print_refs({"captions": done.captions, "dataset": done.dataset})
