"""curate: raw videos -> clips -> brief captions -> de-duplicated clips -> key frames."""

from typing import NamedTuple

from kfp import dsl

from components.brief.component import brief_finish, brief_plan, brief_shard
from components.dedup.component import dedup as dedup_finish
from components.dedup.component import looks_plan, looks_shard
from components.keyframes.component import keyframes_finish, keyframes_plan, keyframes_shard
from components.probe.component import probe_finish, probe_plan, probe_shard
from pipelines.resources import place

CuratedOutputs = NamedTuple(
    "CuratedOutputs", [("probed", str), ("brief_captions", str), ("clips", str), ("keyframes", str)]
)


# Wide stages are pipelines of their own because KFP's local runner gives a loop's tasks the loop's item in
# place of every output of a task beside the loop; the parameters of the pipeline around it arrive whole.


@dsl.pipeline(name="probe", description="The clips among a source's files, measured shard by shard.")
def probe(source: str, store: str, config: str = "{}") -> str:
    """Plan, measure the shards side by side, publish; returns the probe's stage output."""
    work = {"source": source, "config": config, "store": store}
    plan = place(probe_plan(**work), "probe-plan")
    with dsl.ParallelFor(plan.output, name="probe-shards") as shard:
        shards = place(probe_shard(shard=shard, **work), "probe-shard")
    publish = place(probe_finish(shards=plan.output, **work).after(shards), "probe-finish")
    return publish.outputs["Output"]


@dsl.pipeline(name="brief", description="A sentence for every clip, shard by shard.")
def brief(clips: str, source: str, store: str, engine: str, published: str = "", config: str = "{}") -> str:
    """Plan, caption the shards side by side, publish; returns the brief captions' stage output."""
    work = {
        "clips": clips,
        "source": source,
        "engine": engine,
        "published": published,
        "config": config,
        "store": store,
    }
    plan = place(brief_plan(**work), "brief-plan")
    with dsl.ParallelFor(plan.output, name="brief-shards") as shard:
        shards = place(brief_shard(shard=shard, **work), "brief-shard")
    publish = place(brief_finish(**work).after(shards), "brief-finish")
    return publish.outputs["Output"]


@dsl.pipeline(name="dedup", description="One clip of every group of near-duplicates; looks shard by shard.")
def dedup(
    clips: str, brief_captions: str, source: str, store: str, published: str = "", config: str = "{}"
) -> str:
    """Look at the clips side by side, compare, publish; returns the kept clips' stage output."""
    work = {
        "clips": clips,
        "brief": brief_captions,
        "source": source,
        "published": published,
        "config": config,
        "store": store,
    }
    plan = place(looks_plan(**work), "looks-plan")
    with dsl.ParallelFor(plan.output, name="looks-shards") as shard:
        shards = place(looks_shard(shard=shard, **work), "looks-shard")
    publish = place(dedup_finish(**work).after(shards), "dedup")
    return publish.outputs["Output"]


@dsl.pipeline(name="keyframes", description="The key frames of every clip, shard by shard.")
def keyframes(clips: str, source: str, store: str, config: str = "{}") -> str:
    """Plan, work out the shards side by side, publish; returns the key frames' stage output."""
    work = {"clips": clips, "source": source, "config": config, "store": store}
    plan = place(keyframes_plan(**work), "keyframes-plan")
    with dsl.ParallelFor(plan.output, name="keyframe-shards") as shard:
        shards = place(keyframes_shard(shard=shard, **work), "keyframes-shard")
    publish = place(keyframes_finish(**work).after(shards), "keyframes-finish")
    return publish.outputs["Output"]


@dsl.pipeline(name="curate", description="Raw videos to de-duplicated clips and their key frames.")
def curate(
    source: str,
    store: str,
    captioner: str,
    published: str = "",
    probe_config: str = "{}",
    brief_config: str = "{}",
    dedup_config: str = "{}",
    keyframes_config: str = "{}",
) -> CuratedOutputs:
    """Curate the videos below ``source``; what an earlier run's ``published`` clips hold is not kept again.

    ``published`` is an output of dedup, or the dataset that was made from it.

    Here and in every pipeline, outputs are ``stage/key@hash`` and a config is the JSON of its stage's model.
    """
    clips = probe(source=source, config=probe_config, store=store).output
    captioned = brief(
        clips=clips,
        source=source,
        engine=captioner,
        published=published,
        config=brief_config,
        store=store,
    )
    kept = dedup(
        clips=clips,
        brief_captions=captioned.output,
        source=source,
        published=published,
        config=dedup_config,
        store=store,
    ).output
    frames = keyframes(clips=kept, source=source, config=keyframes_config, store=store)
    return CuratedOutputs(probed=clips, brief_captions=captioned.output, clips=kept, keyframes=frames.output)
