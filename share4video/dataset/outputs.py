"""The published outputs of a store, found by what they are instead of by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from share4video.dataset.manifest import Manifest, StageRef, load_manifest, manifest_keys
from share4video.errors import UserError
from share4video.store import Store

_CLIPS_STAGE, _DATASET_STAGE = "dedup", "dataset"
EARLIER = "@earlier"  # in a dataset's configuration in its manifest: the version it was added to


def stored_manifests(store: Store, stage: str = "") -> Iterator[Manifest]:
    """Yield the manifests of a stage's published outputs, of all stages without one; damaged ones not."""
    for key in manifest_keys(store, stage):
        try:
            yield Manifest.model_validate_json(store.get(key))
        except (KeyError, ValidationError):
            continue


def earlier_of(config: Mapping[str, Any]) -> StageRef | None:
    """Return the version that a dataset was added to, from its manifest's configuration."""
    earlier = config.get(EARLIER)
    return StageRef.parse(earlier) if earlier else None


def published_clips(store: Store, text: str) -> StageRef | None:
    """Return what other clips are added to.

    Args:
        text: ``dedup/KEY@HASH`` (the clips it kept) or ``dataset/KEY@HASH`` (those it holds), or nothing.

    Raises:
        UserError: it is another output, or the store does not hold it or the dataset's clips.
    """
    if not text:
        return None
    ref = StageRef.parse(text)
    curated_clips(store, ref)
    return ref


def curated_clips(store: Store, ref: StageRef) -> StageRef:
    """Return an output of the dedup stage, or the one that a dataset was made from.

    Raises:
        UserError: as `published_clips`.
    """
    text = str(ref)
    if ref.stage == _CLIPS_STAGE:
        return ref
    if ref.stage != _DATASET_STAGE:
        raise UserError(
            "clips are added to an output of dedup or dataset",
            where=text,
            fix="give dedup/KEY@HASH or dataset/KEY@HASH",
        )
    wanted = load_manifest(store, ref).inputs[0]
    found = [made.ref for made in stored_manifests(store, _CLIPS_STAGE) if made.content_hash == wanted]
    if not found:
        raise UserError(
            "the store does not hold the clips this dataset was made from",
            where=text,
            fix="to an imported dataset nothing is added: publish the clips as a dataset of their own",
        )
    return min(found, key=str)


def published_dataset(text: str) -> StageRef | None:
    """Return the dataset that clips are added to, if any. Raises UserError for an output that is none."""
    ref = StageRef.parse(text) if text else None
    if ref is not None and ref.stage != _DATASET_STAGE:
        raise UserError("clips are added to a dataset", where=text, fix="give dataset/KEY@HASH")
    return ref


def made_from(store: Store, ref: StageRef, stages: Sequence[str]) -> dict[str, StageRef]:
    """Return an output and what it was made from, by stage; of one that the store has no more, nothing.

    Inputs are found by their content, so of several outputs that hold the same bytes one is returned.

    Args:
        stages: those whose outputs are looked for, each before the ones that take its output.

    Raises:
        UserError: the store does not hold the output, or it is damaged.
    """
    wanted = set(load_manifest(store, ref).inputs)
    found = {ref.stage: ref}
    for stage in reversed([stage for stage in stages if stage != ref.stage]):
        made = [made for made in stored_manifests(store, stage) if made.content_hash in wanted]
        if made:
            one = min(made, key=lambda manifest: str(manifest.ref))
            found[stage] = one.ref
            wanted.update(one.inputs)
    return found
