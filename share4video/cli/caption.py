"""``share4video caption``: the published dataset, a span of a stored clip, or a long video as it is read."""

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
from share4video.config import RunConfig
from share4video.dataset.outputs import published_clips, published_dataset
from share4video.errors import UserError
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
    span: Annotated[
        list[str] | None,
        typer.Option(
            "--span",
            help="Caption this span of one stored clip, in seconds of its source; may be repeated. SOURCE is"
            " then its clip_id or the beginning of it, its uri or its file's name.",
            metavar="FROM-TO",
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option("--dataset", help="Where --span looks for the clip, as STAGE/KEY@HASH.", metavar="REF"),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Print the captions of one video while it is read.")
    ] = False,
    engine: EngineOption = None,
    prompts: PromptsOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
) -> None:
    """Caption the videos of every SOURCE and publish the dataset; curates first what is not curated yet.

    With --span or --follow nothing is published: captions are printed, a JSON line each.
    """
    wanted = read_settings(config, settings, engine=engine, prompts=prompts)
    if not span and not follow:
        if dataset is not None:
            raise UserError("--dataset says where a clip is looked for", where=dataset, fix="give a --span")
        _publish(source, store, wanted, add_to or "")
        return
    if add_to is not None:
        raise UserError("nothing is published, so nothing is added to", where=add_to, fix="leave it out")
    if span and follow:
        raise UserError("a span is of what is stored, and --follow reads a file", fix="give one of the two")
    if len(source) > 1:
        raise UserError(
            "one video at a time", where=", ".join(source), fix="name one with --span and --follow"
        )
    if span:
        from share4video.cli.caption_span import caption_spans

        caption_spans(source[0], span, dataset, store, wanted)
    else:
        from share4video.cli.caption_follow import caption_following

        caption_following(source[0], wanted)


def _publish(source: list[str], store: str, wanted: RunConfig, add_to: str) -> None:
    earlier = published_dataset(add_to)
    published = published_clips(Store.open(store), add_to)

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
