"""``share4video dataset takedown|diff``: take clips out of a store; what a version has beside another."""

from __future__ import annotations

from typing import Annotated

import typer

from share4video.cli.options import DEFAULT_STORE, StoreOption
from share4video.dataset.manifest import StageRef
from share4video.store import Store


def takedown(
    clip_ids: Annotated[
        list[str], typer.Argument(metavar="CLIP_ID...", help="Ids, as table clips has them.")
    ],
    store: StoreOption = DEFAULT_STORE,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why; kept in the store's list.")
    ] = "asked for",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing; say what would change.")
    ] = False,
) -> None:
    """Take clips out of everything the store holds of them, and keep them out.

    Run it again where it was killed. What left the store (exports, reports, models) is not reached.
    """
    from share4video.stages.takedown import take_down

    done = take_down(Store.open(store), clip_ids, reason, dry_run=dry_run, say=_say)
    took, rewrote, deleted = (
        ("would take down", "would rewrite", "would delete")
        if dry_run
        else ("took down", "rewrote", "deleted")
    )
    for clip_id in done.clips:
        typer.echo(f"{took:<16} {clip_id}")
    for old, new in done.rewritten:
        typer.echo(f"{rewrote:<16} {old}" + (f" -> {new}" if new else ""))
    for prefix in done.deleted:
        typer.echo(f"{deleted:<16} {prefix}")
    if done.journal_lines:
        typer.echo(f"dropped {done.journal_lines} answers from the journals of this machine")
    for ref, names in done.models:
        typer.echo(f"trained on it, not changed: {ref}" + (f", registered as {names}" if names else ""))
    for ref in done.unreadable:
        typer.echo(f"damaged, and may hold it: {ref}; delete it")


def diff(
    old: Annotated[str, typer.Argument(metavar="OLD", help="A dataset, as dataset/KEY@HASH.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="Another version of it.")],
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Say which clips a dataset has beside another, which it lacks, and whose captions differ."""
    from share4video.dataset.differences import differences

    found = differences(Store.open(store), StageRef.parse(old), StageRef.parse(new))
    for word, clip_ids in (("added", found.added), ("removed", found.removed), ("changed", found.changed)):
        for clip_id in clip_ids:
            typer.echo(f"{word:<8} {clip_id}")
    counts = f"{len(found.added)} added, {len(found.removed)} removed, {len(found.changed)} changed"
    typer.echo(f"{counts}, {found.same} the same")


def _say(what: str) -> None:
    typer.echo(what, err=True)
