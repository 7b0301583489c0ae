"""Probe: plan the shards, measure the files side by side, publish clips and rejects as one."""

from typing import List

from kfp import dsl

from components.image import PLACEHOLDER_IMAGE


@dsl.component(base_image=PLACEHOLDER_IMAGE, install_kfp_package=False)
def probe_plan(source: str, config: str, store: str) -> List[str]:
    """Return the shards, as the strings ParallelFor iterates over; never none."""
    from share4video.config import ProbeConfig
    from share4video.stages.probe import ProbeInputs, plan
    from share4video.stages.task import parse_stage_config, stage_task

    with stage_task("probe", store) as task:
        settings = parse_stage_config(ProbeConfig, config)
        return task.planned(plan(ProbeInputs(source=source), settings, progress=task.progress))


@dsl.component(base_image=PLACEHOLDER_IMAGE, install_kfp_package=False)
def probe_shard(shard: str, source: str, config: str, store: str) -> str:
    """Measure one shard's files; what is committed already is left as it is."""
    from share4video.config import ProbeConfig
    from share4video.stages.probe import ProbeInputs, run_shard
    from share4video.stages.scan import ScanShard
    from share4video.stages.task import parse_stage_config, stage_task

    part = ScanShard.parse(shard)
    with stage_task("probe", store, shard=part.number) as task:
        settings = parse_stage_config(ProbeConfig, config)
        run_shard(ProbeInputs(source=source), settings, task.store, part, progress=task.progress)
        return shard


@dsl.component(base_image=PLACEHOLDER_IMAGE, install_kfp_package=False)
def probe_finish(
    shards: List[str],
    source: str,
    config: str,
    store: str,
    clips: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
) -> str:
    """Apply the rules to what the planned shards measured; returns the clips as ``stage/key@hash``."""
    from share4video.config import ProbeConfig
    from share4video.stages.probe import ProbeInputs, finish
    from share4video.stages.scan import ScanShard
    from share4video.stages.task import parse_stage_config, stage_task

    with stage_task("probe", store) as task:
        settings = parse_stage_config(ProbeConfig, config)
        parts = [ScanShard.parse(shard) for shard in shards]
        result = finish(ProbeInputs(source=source), settings, task.store, parts)
        return task.finish(result, output=clips, metrics=metrics, summary=summary)
