"""What runs took: a small file for each time a shard was worked on, beside the outputs and part of none.

Published outputs hold no times, so that an undisturbed run gives the same bytes; how long the engines were
at work is kept here, for the comparison with what was planned. A run that was killed leaves no file.
"""

from __future__ import annotations

import uuid

from pydantic import Field, ValidationError

from share4video.config import Config
from share4video.dataset.manifest import StageRef
from share4video.store import Store

FOLDER = "usage"


class Usage(Config):
    """One time a shard was captioned: how long the engines were asked, and how many clips came of it."""

    shard: int = Field(ge=0)
    clips: int = Field(ge=0)
    seconds: float = Field(ge=0)


def record_usage(store: Store, prefix: str, usage: Usage) -> None:
    """Keep ``usage`` with the output at ``prefix`` (stage/key)."""
    key = f"{FOLDER}/{prefix}/{usage.shard:05d}-{uuid.uuid4().hex}.json"
    store.put(key, usage.model_dump_json().encode())


def read_usage(store: Store, ref: StageRef) -> list[Usage]:
    """Return what is known of an output's runs; a file that cannot be read is passed over."""
    found = []
    for key in store.list(f"{FOLDER}/{ref.prefix}"):
        try:
            found.append(Usage.model_validate_json(store.get(key)))
        except (KeyError, ValidationError):
            continue
    return found
