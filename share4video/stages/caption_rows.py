"""From a clip's captions to the rows of ``differentials``, ``captions`` and ``rejects``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from share4video.captioning.differential import CAPTION_FAILED, Caption, Chain, Differential
from share4video.captioning.engine import identity
from share4video.captioning.roles import prompt_name, prompt_version
from share4video.config import EngineSpec
from share4video.dataset.shards import table_from_rows
from share4video.stages.caption_rows_published import PublishedCaptions
from share4video.stages.clip_frames import reject_row

Row = Mapping[str, Any]


class CaptionRows:
    """The rows of one shard's tables, collected clip by clip; the engine specs are resolved ones."""

    def __init__(self, stage: str, captioner: EngineSpec, summarizer: EngineSpec) -> None:
        self._stage = stage
        self._captioner, self._summarizer = _by(captioner), _by(summarizer)
        self._tables: dict[str, list[Row]] = {"differentials": [], "captions": [], "rejects": []}
        self._clips = self._shortened = 0

    def add(self, clip: Row, chain: Chain) -> None:
        """Add what came of a clip; ``clip`` is its row of table ``clips``."""
        self._clips += 1
        if (rejection := chain.rejection) is not None:
            reasons = (CAPTION_FAILED, rejection.sentence, rejection.measured, rejection.bound)
            self._tables["rejects"].append(reject_row(clip, self._stage, *reasons))
            return
        self._tables["differentials"] += [self._differential(clip["clip_id"], d) for d in chain.differentials]
        self._shortened += chain.shortened
        whole = clip["start_s"], clip["end_s"]
        for role, caption, by, span_s in (
            ("fast", chain.fast, self._captioner, whole),
            *(("part_summary", p.caption, self._summarizer, (p.start_s, p.end_s)) for p in chain.parts),
            ("summary", chain.summary, self._summarizer, whole),
        ):
            if caption is not None:
                self._tables["captions"].append(_caption_row(clip, role, caption, by, span_s))
        for role, caption in chain.derived.items():
            self._tables["captions"].append(_caption_row(clip, role, caption, self._summarizer, whole))

    def take_over(self, published: PublishedCaptions, clip_id: str) -> None:
        """Add a clip's captions as they are published."""
        self._clips += 1
        self._tables["differentials"] += published.differentials[clip_id]
        self._tables["captions"] += published.captions[clip_id]

    def _differential(self, clip_id: str, caption: Differential) -> Row:
        return {
            "clip_id": clip_id,
            "index": caption.frame,
            "kind": caption.kind,
            "start_s": caption.start_s,
            "end_s": caption.end_s,
            **_answer(caption.caption),
            "frame_text_score": caption.caption.frame_text_score,
            "fallback": caption.fallback,
            **self._captioner,
        }

    def tables(self) -> dict[str, pa.Table]:
        return {name: table_from_rows(name, rows) for name, rows in self._tables.items()}

    def counts(self) -> dict[str, float]:
        rejected = len(self._tables["rejects"])
        differentials = self._tables["differentials"]
        counts: dict[str, float] = {
            "rows_in": self._clips,
            "rows_out": self._clips - rejected,
            "metric:differentials": len(differentials),
            "metric:fallbacks": sum(row["fallback"] for row in differentials),
            "metric:flagged_captions": sum(bool(row["checks"]) for row in self._tables["captions"]),
        }
        if self._shortened:
            counts["metric:shortened_notes"] = self._shortened
        return counts | ({f"reject:{CAPTION_FAILED}": rejected} if rejected else {})


def _by(spec: EngineSpec) -> Row:
    """Return the columns that say who wrote a caption, from which prompt."""
    return {
        "engine": identity(spec),
        "dialect": prompt_name(spec.wording),
        "prompt_version": prompt_version(spec.wording),
    }


def _caption_row(clip: Row, role: str, caption: Caption, by: Row, span_s: tuple[float, float]) -> Row:
    return {
        "clip_id": clip["clip_id"],
        "start_s": span_s[0],
        "end_s": span_s[1],
        "role": role,
        **_answer(caption),
        **by,
    }


def _answer(caption: Caption) -> Row:
    return {
        "caption": caption.text,
        "prompt_tokens": caption.prompt_tokens,
        "tokens": caption.tokens,
        "attempt": caption.attempt,
        "checks": list(caption.failed),
    }
