"""The caption stage with a gateway between it and a real model server: the answers are the server's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.gateway.process import free_port, gateway_process
from serving.gateway.settings import GatewaySettings
from share4video.captioning.engine import connect_all
from share4video.captioning.model_server import ModelServer
from share4video.config import CaptionConfig, EngineSpec
from share4video.dataset.shards import read_table
from share4video.stages.caption import run_stage
from share4video.store import LocalStore
from tests.stages.caption_material import inputs_of

WHAT = ["clip_id", "index", "kind", "caption", "prompt_tokens", "tokens", "attempt", "checks"]


@pytest.mark.timeout(300)
def test_captions_through_the_gateway_are_the_models(
    tmp_path: Path, model_server: ModelServer, work_root: Path
) -> None:
    config = CaptionConfig(max_tokens_difference=40, max_fallback_share=1.0, mode="reference", shards=1)
    local = [EngineSpec(model_path=f"builtin:nano-{name}") for name in ("captioner", "summarizer")]
    told = []
    with connect_all(local) as (endpoint, words):
        captioner, summarizer = (
            EngineSpec(url=one.base_url, model=one.model, revision="r1", retries=0)
            for one in (endpoint, words)
        )
        settings = GatewaySettings(
            upstream_url=endpoint.base_url,
            upstream_model=endpoint.model,
            role="captioner",
            model_name="captioner",
            model_revision="r1",
            host="127.0.0.1",
            port=free_port(),
        )
        with gateway_process(settings, log=tmp_path / "gateway.log") as gateway:
            behind = EngineSpec(url=f"{gateway.url}/v1", model="captioner", revision="r1", retries=0)
            for name, engine in (("direct", captioner), ("gateway", behind)):
                store = LocalStore(tmp_path / name)
                inputs = inputs_of(store, engine, summarizer, lengths=[3, 2], parts=1)
                result = run_stage(inputs, config, store)
                assert (result.rows_in, result.rows_out) == (2, 2)
                differentials = read_table(store, result.ref, "differentials")
                told.append(differentials.select(WHAT).to_pylist())
                assert set(differentials["engine"].to_pylist()) == {f"{engine.model}@r1"}
    assert told[0] == told[1]
    assert len({row["caption"] for row in told[0]}) > 1
