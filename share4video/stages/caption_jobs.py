"""The clips of one shard of captioning on their way through the scheduler."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import numpy as np

from share4video.captioning.client import ChatClient, Endpoint
from share4video.captioning.conversations import CAPTIONER, SUMMARIZER, CaptionPlan, ClipConversation
from share4video.captioning.derived import DerivedConversation, DerivedPlan, SilentRoles
from share4video.captioning.differential import Chain, Rejection
from share4video.captioning.journal import Journal
from share4video.captioning.scheduler import Finished, converse
from share4video.captioning.spending import Budget, Spending
from share4video.config import CaptionConfig, ChecksConfig, EngineSpec
from share4video.stages.caption_spool import ClipSpool
from share4video.stages.contract import Progress

if TYPE_CHECKING:
    from share4video.curation.frame_text import FrameTextScores

TOO_LONG = "the clip's calls took longer than they may, in seconds"


class ClipJobs:
    """The clips of a shard as conversations.

    Each takes a call per key frame, one for its summary and one per caption that is derived.
    """

    def __init__(
        self,
        clips: ClipSpool,
        captioner: EngineSpec,
        summarizer: EngineSpec,
        config: CaptionConfig,
        cut_threshold: float | None,
    ) -> None:
        self._clips, self._summarizer = clips, summarizer
        self._captions = CaptionPlan.of(config, captioner, summarizer, cut_threshold=cut_threshold)
        self._derived = DerivedPlan.of(config, self._summarizer)
        self._frame_text = frame_text_of(config.checks)
        self._silent = SilentRoles()
        self.weights = clips.frames + np.int32(1 + len(self._derived.roles))

    def __len__(self) -> int:
        return len(self._clips)

    def open(self, number: int) -> tuple[str, DerivedConversation]:
        clip_id, frames = self._clips.load(number)
        clip = ClipConversation(clip_id, frames, self._captions, self._frame_text)
        return clip_id, DerivedConversation(clip, self._derived)

    def finish(self, number: int, chain: Chain) -> None:
        """Put away what came of a clip."""
        self._silent.note(chain)
        self._clips.finish(number, chain)

    def refuse_silence(self) -> None:
        """Check that no role's calls failed for every clip. Raises UserError where they did."""
        self._silent.refuse(self._summarizer)


async def caption_clips(
    jobs: ClipJobs,
    config: CaptionConfig,
    endpoints: Mapping[str, Endpoint],
    journal: Journal,
    budget: Budget | None,
    progress: Progress | None,
) -> Spending:
    """Caption the clips; return the tokens of all answers, also of those an earlier run had got.

    Args:
        endpoints: by the names the calls use.
        progress: called with a label, how many clips are through, and how many there are.

    Raises:
        UserError: as `share4video.captioning.scheduler.converse` does, or every call for a role failed.
    """
    spent = Spending()
    count = 0

    def done(finished: Finished) -> None:
        nonlocal count
        assert isinstance(finished.conversation, DerivedConversation)
        chain = finished.conversation.chain
        if finished.overdue_s is not None and not finished.conversation.give_up():
            # how long they took is another in every run, and what is published is not
            chain.rejection = Rejection(TOO_LONG, bound=config.clip_timeout_s)
        jobs.finish(finished.number, chain)
        spent.add_all(finished.spent)
        count += 1
        if progress is not None:
            progress("clips", count, len(jobs))

    async with AsyncExitStack() as stack:
        by_endpoint = {
            endpoint: await stack.enter_async_context(ChatClient(endpoint))
            for endpoint in dict.fromkeys(endpoints[role] for role in (CAPTIONER, SUMMARIZER))
        }
        clients = {role: by_endpoint[endpoints[role]] for role in (CAPTIONER, SUMMARIZER)}
        await converse(jobs, clients, journal, done, limit_s=config.clip_timeout_s, budget=budget)
    jobs.refuse_silence()
    return spent


def frame_text_of(checks: ChecksConfig) -> FrameTextScores | None:
    """Return what scores captions against their frames; None where that is not asked for."""
    if checks.frame_text_encoder is None:
        return None
    from share4video.curation.frame_text import frame_text_scores

    return frame_text_scores(checks.frame_text_encoder)
