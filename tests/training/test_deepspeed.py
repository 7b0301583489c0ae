"""A ZeRO-2 step of the trainer the 8B uses, on the CPU with gloo, in a process of its own."""

from __future__ import annotations

import json
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from share4video.training.samples import Sample
from tests.training.conftest import SMALL

STEP = """
import json, pickle, sys
from pathlib import Path
import deepspeed.ops
# Shared-memory collectives for several ranks on one host would be compiled at first use.
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer
partitioned, step = [], DeepSpeedZeroOptimizer.step
def noted(self, *args, **kwargs):
    partitioned.append(self.partition_gradients)  # what stage 2 adds to stage 1
    return step(self, *args, **kwargs)
DeepSpeedZeroOptimizer.step = noted
from share4video.config import TrainConfig
from share4video.training import sft
base, target, work, samples, config = sys.argv[1:]
report = sft.train(
    pickle.loads(Path(samples).read_bytes()), Path(base), Path(target),
    TrainConfig.model_validate_json(config), work=Path(work),
)
import torch
backend = torch.distributed.get_backend()
print(json.dumps({"steps": report.steps, "backend": backend, "partitioned": partitioned}))
"""


def test_a_zero2_step_on_gloo(
    base: Path, make_samples: Callable[[int, int], list[Sample]], tmp_path: Path
) -> None:
    pytest.importorskip("deepspeed", reason="DeepSpeed is not installed")
    (tmp_path / "samples").write_bytes(pickle.dumps(make_samples(2, 2)))
    config = SMALL.model_copy(update={"deepspeed": "zero2", "max_steps": 2, "pack_samples": 2})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "DS_ACCELERATOR": "cpu",
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    command = [sys.executable, "-c", STEP, str(base), str(tmp_path / "tuned"), str(tmp_path / "work")]
    command += [str(tmp_path / "samples"), config.model_dump_json()]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout.splitlines()[-1])
    assert report == {"steps": 2, "backend": "gloo", "partitioned": [True, True]}
    before, after = load_file(base / "model.safetensors"), load_file(tmp_path / "tuned" / "model.safetensors")
    projector = "multi_modal_projector.linear_1.weight"
    assert not before[projector].equal(after[projector])
