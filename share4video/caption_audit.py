"""The temporal audit of an engine on files, for the command line: from sources to a report."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from share4video.captioning.client import CallError, ChatClient, ChatRequest, Completion, Endpoint
from share4video.captioning.domain_guard import engine_domain
from share4video.captioning.engine import connect, identity, resolve
from share4video.captioning.roles import prompt_version
from share4video.config import CaptionConfig, EngineSpec, RunConfig
from share4video.errors import UserError
from share4video.evaluation.audit_captions import caption_orders
from share4video.evaluation.temporal_audit import (
    Finding,
    Played,
    Playing,
    Tally,
    Test,
    audit_clip,
    says_change,
    summarise,
)
from share4video.media.limits import MediaError
from share4video.media.sources import SourceFile
from share4video.preview import look_at


class AuditReport(BaseModel):
    """What an audit found.

    Attributes:
        engine: ``model@revision``.
        clips: clips that were captioned.
        nothing_to_test: of those, how many of whose captions tell no change.
        left_out: why files were not captioned, by uri.
        played: every clip's captions in every order, by uri.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    engine: str
    prompt_version: str
    clips: int
    nothing_to_test: int
    left_out: dict[str, str]
    tests: dict[Test, Tally]
    findings: tuple[Finding, ...]
    played: dict[str, dict[Playing, Played]]


def audit_files(
    rows: Sequence[SourceFile], spec: EngineSpec, config: RunConfig, *, frames: int
) -> AuditReport:
    """Caption files in every order and report what contradicts the direction of time.

    Files that a run would reject are left out.

    Args:
        rows: each is one clip, from its beginning to its end.
        frames: how many of a clip's key frames are taken, the first ones.

    Raises:
        UserError: the engine does not start, refuses the key or answers nothing, or no file could be
            captioned.
    """
    spec = resolve(spec)
    with connect(spec) as endpoint:
        played, left_out = asyncio.run(_caption(rows, frames, endpoint, config))
    if not played:
        uri, why = next(iter(left_out.items()))
        fix = "name other clips or another engine"
        raise UserError(f"no clip could be captioned: {why}", where=uri, fix=fix)
    return _report(spec, played, left_out)


class _NotingClient(ChatClient):
    """A client that remembers how many calls were answered, and how the last one failed that was not."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint)
        self.answers = 0
        self.failure: CallError | None = None

    async def ask(self, request: ChatRequest) -> Completion:
        try:
            completion = await super().ask(request)
        except CallError as error:
            self.failure = error.bare()
            raise
        self.answers += 1
        return completion


async def _caption(
    rows: Sequence[SourceFile], frames: int, endpoint: Endpoint, config: RunConfig
) -> tuple[dict[str, dict[Playing, Played]], dict[str, str]]:
    """Return what was said of each clip in each order, and why files were left out, both by uri.

    Raises:
        UserError: the engine refuses the key, or answered no call at all.
    """
    domain = engine_domain(endpoint.spec)
    played: dict[str, dict[Playing, Played]] = {}
    left_out: dict[str, str] = {}
    at_once = asyncio.Semaphore(endpoint.spec.max_in_flight)

    async def one(row: SourceFile, client: ChatClient) -> None:
        async with at_once:
            try:
                clip = await asyncio.to_thread(look_at, row, config, domain, endpoint.spec.model)
            except (MediaError, UserError) as error:
                left_out[row.uri] = error.sentence if isinstance(error, MediaError) else error.what
                return
            said = await caption_orders(row.uri, clip.frames[:frames], client, _checked_as(config.caption))
            if "forward" in said:
                played[row.uri] = said
            else:
                left_out[row.uri] = "the engine gave no caption"

    async with _NotingClient(endpoint) as client:
        await asyncio.gather(*(one(row, client) for row in rows))
    if client.failure is not None and not client.answers:
        raise UserError(
            f"no clip could be captioned: {str(client.failure).rstrip('.')}",
            where=endpoint.spec.model,
            fix="check that the engine runs and takes these pictures, then run again",
        )
    return dict(sorted(played.items())), dict(sorted(left_out.items()))


def _checked_as(config: CaptionConfig) -> CaptionConfig:
    """Return the settings without the models that a caption can be held against."""
    return config.model_copy(update={"checks": config.checks.of_text()})


def _report(
    spec: EngineSpec, played: Mapping[str, Mapping[Playing, Played]], left_out: Mapping[str, str]
) -> AuditReport:
    findings = [finding for clip, orders in played.items() for finding in audit_clip(clip, orders)]
    return AuditReport(
        engine=identity(spec),
        prompt_version=prompt_version(spec.wording),
        clips=len(played),
        nothing_to_test=sum(not says_change(orders["forward"]) for orders in played.values()),
        left_out=dict(left_out),
        tests=summarise(findings),
        findings=tuple(findings),
        played={clip: dict(orders) for clip, orders in played.items()},
    )
