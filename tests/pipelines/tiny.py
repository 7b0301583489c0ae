"""Tiny pipelines for tests of the local runner: compile with ``python tiny.py FOLDER``."""

import sys
from pathlib import Path
from typing import List

from kfp import compiler, dsl


@dsl.component(base_image="python", install_kfp_package=False)
def plan(mode: str) -> List[str]:
    return ["0", "1"]


@dsl.component(base_image="python", install_kfp_package=False)
def work(shard: str, mode: str, store: str) -> str:
    import os
    import time
    from pathlib import Path

    from share4video.errors import UserError
    from share4video.stages.task import stage_task

    with stage_task("work", store, shard=int(shard)) as task:
        task.progress("things", 1, 1)
        Path(store, f"pid-{shard}").write_text(str(os.getpid()))
        if mode == "mistake":
            raise UserError("the moon is down", where=f"shard {shard}", fix="wait for the night")
        if mode == "bug":
            raise ZeroDivisionError("no such luck")
        if mode == "killed":
            os.kill(os.getpid(), 9)
        if mode == "hang":
            time.sleep(600)
    return shard


@dsl.component(base_image="python", install_kfp_package=False)
def finish(mode: str, store: str, output: dsl.Output[dsl.Dataset], metrics: dsl.Output[dsl.Metrics]) -> str:
    from share4video.dataset.manifest import StageRef
    from share4video.stages.contract import StageResult
    from share4video.stages.task import stage_task

    with stage_task("work", store) as task:
        numbers = {"finite": 1.5, "not_finite": float("nan")}
        rejects = {"dull": 1}
        result = StageResult(StageRef("work", "k", "h"), 3, 2, rejects, computed_shards=2, metrics=numbers)
        return task.finish(result, output=output, metrics=metrics)


@dsl.pipeline(name="tiny")
def tiny(mode: str, store: str):
    planned = plan(mode=mode)
    with dsl.ParallelFor(planned.output) as shard:
        shards = work(shard=shard, mode=mode, store=store).set_retry(num_retries=3, backoff_duration="300s")
    finish(mode=mode, store=store).after(shards)


if __name__ == "__main__":
    compiler.Compiler().compile(tiny, str(Path(sys.argv[1]) / "tiny.yaml"))
