"""``share4video curate``: raw videos to de-duplicated clips and their key frames."""

from __future__ import annotations

from share4video.cli.options import (
    DEFAULT_STORE,
    ConfigOption,
    SetOption,
    SourceArgument,
    StoreOption,
    absolute,
    read_settings,
)
from share4video.cli.printing import print_refs
from share4video.cli.runs import run_in_process
from share4video.stages.chain import CURATE_STAGES


def curate(
    source: SourceArgument,
    store: StoreOption = DEFAULT_STORE,
    config: ConfigOption = None,
    settings: SetOption = None,
) -> None:
    """Filter, briefly caption and de-duplicate the videos below SOURCE, and find their key frames."""
    wanted = read_settings(config, settings)
    done = run_in_process(
        "curate",
        CURATE_STAGES,
        wanted,
        store,
        lambda chain: chain.curate(absolute(source)),
        engines=[wanted.engines.captioner],
    )
    print_refs({"clips": done.clips, "brief captions": done.brief_captions, "key frames": done.keyframes})
