"""caption: key frames -> differential captions and summaries -> published dataset."""

from typing import NamedTuple

from kfp import dsl

from components.caption.component import caption_finish, caption_plan, caption_shard
from components.dataset.component import dataset
from pipelines.resources import place

CaptionedOutputs = NamedTuple("CaptionedOutputs", [("captions", str), ("dataset", str)])


@dsl.pipeline(name="caption", description="Key frames to captions in every role and a published dataset.")
def caption(
    clips: str,
    brief_captions: str,
    keyframes: str,
    store: str,
    captioner: str,
    summarizer: str = "",
    add_to: str = "",
    caption_config: str = "{}",
    dataset_config: str = "{}",
) -> CaptionedOutputs:
    """Caption what `curate` published. An empty ``summarizer`` lets the captioner summarise.

    ``add_to`` is a dataset that the clips are added to: its captions are taken over.
    """
    work = {
        "clips": clips,
        "keyframes": keyframes,
        "captioner": captioner,
        "summarizer": summarizer,
        "published": add_to,
        "config": caption_config,
        "store": store,
    }
    plan = place(caption_plan(**work), "caption-plan")
    with dsl.ParallelFor(plan.output, name="caption-shards") as shard:
        shards = place(caption_shard(shard=shard, **work), "caption-shard")
    publish = place(caption_finish(**work).after(shards), "caption-finish")
    captions = publish.outputs["Output"]
    joined = place(
        dataset(
            clips=clips,
            brief=brief_captions,
            keyframes=keyframes,
            caption=captions,
            earlier=add_to,
            config=dataset_config,
            store=store,
        ),
        "dataset",
    )
    return CaptionedOutputs(captions=captions, dataset=joined.outputs["Output"])
