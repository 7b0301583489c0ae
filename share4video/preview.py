"""A few clips captioned before a run: a spread of a source's files that a run would keep."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from share4video.caption_file import key_frames
from share4video.captioning.derived import DerivedPlan
from share4video.captioning.domain_guard import Domain, engine_domain, refuse_foreign_clip, refuse_mixed
from share4video.captioning.engine import resolve
from share4video.captioning.preview import ChosenClip, Preview, caption_chosen
from share4video.config import RunConfig
from share4video.curation.filters import judge
from share4video.curation.keyframes import cut_bound
from share4video.curation.samples import sample
from share4video.errors import UserError
from share4video.media.limits import Limits, MediaError
from share4video.media.probe import probe
from share4video.media.sources import SourceFile, list_sources
from share4video.stages.caption_jobs import frame_text_of

TRIES = 5  # files that are looked at for one clip


def preview(
    source: str, config: RunConfig, clips: int, *, on_clip: Callable[[int, int], None] | None = None
) -> Preview:
    """Caption a spread of the source's clips as a run with this configuration would.

    The rows are cut into as many parts by name as clips are wanted, and of each part the clip nearest to its
    middle is taken that a run would keep, so the choice is the same every time. A file is one clip, also
    where a run would split it into scenes.

    Args:
        source: as `share4video.media.sources.join_sources` writes it.
        on_clip: called with (clips done, clips chosen).

    Raises:
        UserError: the source cannot be read, none of the files is one to caption, the models know only
            synthetic clips, or an engine does not start or refuses the key.
    """
    captioner = resolve(config.engines.captioner)
    summarizer = resolve(config.engines.summarizer) if config.engines.summarizer else captioner
    domain = engine_domain(captioner)
    refuse_mixed(domain, engine_domain(summarizer), names=(captioner.model, summarizer.model))
    DerivedPlan.of(config.caption, summarizer)  # before anything is decoded
    rows = list_sources(source, limit=config.probe.limit, shard=config.probe.part)
    chosen, passed_over = _choose(rows, clips, config, domain, captioner.model)
    shown = caption_chosen(
        chosen,
        config.caption,
        captioner,
        summarizer,
        cut_threshold=cut_bound(config.caption, config.keyframes.encoder),
        frame_text=frame_text_of(config.caption.checks),
        on_clip=on_clip,
    )
    return Preview(tuple(shown), tuple(passed_over), len(rows), captioner, summarizer)


def _choose(
    rows: Sequence[SourceFile], wanted: int, config: RunConfig, domain: Domain, model: str
) -> tuple[list[ChosenClip], list[tuple[str, str]]]:
    chosen: list[ChosenClip] = []
    passed_over: list[tuple[str, str]] = []
    parts = min(wanted, len(rows))
    for part in range(parts):
        first, end = len(rows) * part // parts, len(rows) * (part + 1) // parts
        middle = (first + end - 1) / 2
        nearest = sorted(range(first, end), key=lambda index: (abs(index - middle), index))
        for index in nearest[:TRIES]:
            try:
                chosen.append(look_at(rows[index], config, domain, model))
            except MediaError as error:
                passed_over.append((rows[index].uri, error.sentence))
            else:
                break
    if not chosen:
        uri, why = passed_over[0]
        raise UserError(
            f"none of the {len(passed_over)} files that were looked at is one to caption: {why}",
            where=uri,
            fix="give other clips, or change the settings under probe",
        )
    return chosen, passed_over


def look_at(row: SourceFile, config: RunConfig, domain: Domain, model: str) -> ChosenClip:
    """Return a file's key frames.

    Args:
        domain, model: what the captioner knows, and what it is called.

    Raises:
        MediaError: it is none that a run would caption.
        UserError: the captioner knows no such clips.
    """
    scan = config.probe
    content = row.content_hash(max_bytes=scan.max_file_bytes)
    with row.opened(content) as path:
        clip = probe(
            path,
            limits=Limits(wall_s=scan.decode_timeout_s, max_pixels=scan.max_pixels),
            max_file_bytes=scan.max_file_bytes,
            decode_up_to_s=scan.scan_up_to_s,
            known_hash=content,
        )
        rejection = judge(clip, scan.without("min_aesthetic"))
        if rejection is not None:
            raise MediaError(rejection.reason, rejection.sentence)
        samples = sample(path, 0.0, clip.duration_s, config.keyframes)
        refuse_foreign_clip(domain, samples.pictures, model=model, where=row.uri)
        return ChosenClip(row.uri, clip.duration_s, tuple(key_frames(samples, config.keyframes)))
