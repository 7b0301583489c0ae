"""What is made of a clip's captions once they are there, from text alone: a short prompt, a JSON object.

One call a role, and one more where the answer fails its checks. A clip does not lose its captions over one of
these: what failed for good stands in the table as an empty caption with its check.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from share4video.captioning.checks import EMPTY, CheckContext, failed_checks
from share4video.captioning.client import CallError, ChatRequest, Outcome
from share4video.captioning.conversations import SUMMARIZER, ClipConversation, held_against, varied
from share4video.captioning.differential import ATTEMPTS, Caption, Chain
from share4video.captioning.role_inputs import TimedCaption
from share4video.captioning.roles import (
    RoleInput,
    ShortPrompt,
    Structured,
    Wording,
    leaks,
    messages,
    require_role,
)
from share4video.captioning.scheduler import Call
from share4video.captioning.steps import call_key
from share4video.captioning.structured import MALFORMED, json_schema, read_structured
from share4video.config import CaptionConfig, ChecksConfig, EngineSpec
from share4video.errors import UserError

DerivedRole = Literal["prompt", "structured"]
CALL_FAILED = "call_failed"


@dataclass(frozen=True)
class DerivedPlan:
    """Which captions are derived, in which prompts; ``schema`` is sent with the structured one."""

    roles: tuple[DerivedRole, ...]
    wording: Wording
    max_tokens: Mapping[DerivedRole, int]
    schema: Mapping[str, Any] | None
    checks: ChecksConfig

    @classmethod
    def of(cls, config: CaptionConfig, summarizer: EngineSpec) -> DerivedPlan:
        """Read the plan from a stage's configuration.

        Raises:
            UserError: the summarizer's prompts have no such role.
        """
        wanted: dict[DerivedRole, bool] = {"prompt": config.short_prompts, "structured": config.structured}
        roles = tuple(role for role, is_wanted in wanted.items() if is_wanted)
        for role in roles:
            require_role(summarizer, role)
        return cls(
            roles,
            summarizer.wording,
            {"prompt": config.max_tokens_difference, "structured": config.max_tokens_structured},
            json_schema() if summarizer.json_schema else None,
            config.checks,
        )


class SilentRoles:
    """Notices where the calls for a role fail as such, not for a single clip."""

    def __init__(self) -> None:
        self._calls: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()

    def note(self, chain: Chain) -> None:
        """Take a clip that is through."""
        self._calls.update(chain.derived.keys())
        self._failed.update(role for role, one in chain.derived.items() if CALL_FAILED in one.failed)

    def refuse(self, summarizer: EngineSpec) -> None:
        """Check, before captions are published, that no role's calls failed for every clip there was.

        Raises:
            UserError: they did, and there was more than one.
        """
        for role, calls in self._calls.items():
            if calls > 1 and self._failed[role] == calls:
                schema = role == "structured" and summarizer.json_schema
                fix = (
                    "set its json_schema to false, if it takes no schema" if schema else "read the run's log"
                )
                raise UserError(f"every call for role {role} failed", where=summarizer.model, fix=fix)


class DerivedConversation:
    """A clip's captioning, and after it what is derived from its captions (`Chain.derived`)."""

    def __init__(self, clip: ClipConversation, plan: DerivedPlan) -> None:
        self._clip, self._plan, self._attempt = clip, plan, 0
        self._context = CheckContext(plan.checks, leaks(plan.wording))

    @property
    def chain(self) -> Chain:
        return self._clip.chain

    @property
    def calls_left(self) -> int:
        return self._clip.calls_left + len(self._roles_left)

    def next(self) -> Call | None:
        call = self._clip.next()
        if call is not None:
            return call
        if self.chain.summary is None or not self._roles_left:
            return None
        role = self._roles_left[0]
        key = call_key(role, self._attempt, *self._given(role))
        return Call(key, SUMMARIZER, partial(self._request, role, self._attempt))

    def take(self, call: Call, outcome: Outcome) -> None:
        if self._clip.next() is not None:
            self._clip.take(call, outcome)
            return
        role = self._roles_left[0]
        self.chain.taken = caption = self._checked(role, outcome)
        if caption.failed and not isinstance(outcome, CallError) and self._attempt + 1 < ATTEMPTS:
            self._attempt += 1
            return
        self.chain.derived[role] = caption
        self._attempt = 0

    def give_up(self) -> bool:
        """Leave out what is still to be derived, as failed calls; False where captions are missing, too."""
        if self._clip.next() is not None:
            return False
        for role in self._roles_left:
            self.chain.derived[role] = Caption("", 0, (CALL_FAILED,), attempt=self._attempt)
            self._attempt = 0
        return True

    @property
    def _roles_left(self) -> list[DerivedRole]:
        """The roles still to come; none of a clip that was rejected or has nothing to derive them from."""
        chain = self.chain
        if chain.rejection is not None or not (chain.rules.differential and chain.rules.summary):
            return []
        return [role for role in self._plan.roles if role not in chain.derived]

    def _request(self, role: DerivedRole, attempt: int) -> ChatRequest:
        given = messages(self._plan.wording, self._role_input(role))
        schema = self._plan.schema if role == "structured" else None
        request = ChatRequest(given, self._plan.max_tokens[role], json_schema=schema)
        return varied(request, attempt, f"{self._clip.clip_id}/{role}-{attempt}")

    def _given(self, role: DerivedRole) -> tuple[str | TimedCaption, ...]:
        """Return the captions a role's is derived from."""
        if role == "structured":
            return self.chain.notes
        assert self.chain.summary is not None
        return (self.chain.summary.text,)

    def _role_input(self, role: DerivedRole) -> RoleInput:
        if role == "structured":
            return Structured(self.chain.notes)
        assert self.chain.summary is not None
        return ShortPrompt(self.chain.summary.text)

    def _checked(self, role: DerivedRole, outcome: Outcome) -> Caption:
        """Turn an answer into a caption; a call that failed is an empty one with that check."""
        if isinstance(outcome, CallError):
            return Caption("", 0, (CALL_FAILED,), attempt=self._attempt)
        caption = held_against(self._context, outcome, self._attempt)
        assert isinstance(caption, Caption)
        if role == "prompt" or EMPTY in caption.failed:
            return caption
        told = self.chain.differentials
        found = read_structured(outcome.text, told[0].end_s, told[-1].end_s)
        if found is None:
            return replace(caption, failed=tuple(sorted({*caption.failed, MALFORMED})))
        said = " ".join(found.texts())  # the braces and the names of fields are no prose that could repeat
        failed = failed_checks(said, truncated=False, context=self._context)
        return replace(caption, text=found.canonical(), failed=failed)
