"""Which engines share an endpoint, and what each keeps for itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from share4video.captioning.engine import connect_all
from share4video.config import EngineSpec
from share4video.errors import UserError


@pytest.mark.parametrize("revision", ["", "r"])
def test_one_model_at_two_addresses_is_asked_at_both(revision: str) -> None:
    many = EngineSpec(
        url="http://127.0.0.1:8001/v1", model="m", revision=revision, max_in_flight=64, dialect="teacher"
    )
    other = EngineSpec(url="http://127.0.0.1:9009/v1/", model="m", revision=revision)
    with connect_all([many, many, other]) as endpoints:
        told = [(e.base_url, e.spec.max_in_flight, e.spec.wording) for e in endpoints]
    assert told[0] == told[1] == ("http://127.0.0.1:8001/v1", 64, "teacher")
    assert told[2] == ("http://127.0.0.1:9009/v1", 4, "sharecaptioner")
    assert endpoints[0] == endpoints[1]  # so that they share a client and its bound


def test_two_settings_of_one_service_stay_two() -> None:
    specs = [
        EngineSpec(inference_service="words.video", revision="1", retries=number, max_in_flight=1 + number)
        for number in range(3)
    ]
    with connect_all(specs) as endpoints:
        assert {endpoint.base_url for endpoint in endpoints} == {"http://words-predictor.video/v1"}
        assert [endpoint.spec.max_in_flight for endpoint in endpoints] == [1, 2, 3]


def test_two_checkpoints_of_one_name_are_refused(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """A server is found by model and revision: one would answer for the other."""
    first, second = (
        EngineSpec(model_path=str(path), model="m", revision="1") for path in checkpoints.values()
    )
    with (
        pytest.raises(UserError, match="two different checkpoints are both named m@1"),
        connect_all([first, second]),
    ):
        pass
