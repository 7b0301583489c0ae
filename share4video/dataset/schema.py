"""The tables every stage reads and writes; the only place that names a column.

Times are seconds of presentation time in the source; ids are lower-case hex. ``source_uri`` is relative
to the sources given to the run, or as a list names it: no path of the machine that made a table.
"""

from __future__ import annotations

import pyarrow as pa

SCHEMA_VERSION = "3"

_text, _f64, _f32, _i32, _flag = pa.string(), pa.float64(), pa.float32(), pa.int32(), pa.bool_()
_i64 = pa.int64()


def _required(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False)


# A row per input row, or per scene of one that was split. Null is what is not known: all of a file that
# cannot be read but its reason, the scores of one of which only the header was read.
SCANS = pa.schema(
    [
        _required("row_id", _text),
        _required("source_uri", _text),
        _required("occurrence", _i32),  # how many rows of the same uri come before it
        pa.field("source_id", _text),  # what a list says of the row: here and in the next two
        pa.field("licence", _text),
        pa.field("metadata", _text),
        pa.field("content_hash", _text),
        pa.field("scene", _i32),  # its number; null where the row is a whole file
        pa.field("start_s", _f64),
        pa.field("end_s", _f64),
        pa.field("duration_s", _f64),
        pa.field("fps", _f64),
        pa.field("width", _i32),
        pa.field("height", _i32),
        pa.field("codec", _text),
        pa.field("container", _text),
        pa.field("pixel_format", _text),
        pa.field("file_bytes", _i64),
        pa.field("origin_s", _f64),  # of the first frame, by the container's own clock
        pa.field("has_audio", _flag),
        pa.field("frames", _i32),
        pa.field("black_share", _f64),
        pa.field("single_colour_share", _f64),
        pa.field("frozen_share", _f64),
        pa.field("motion", _f64),
        pa.field("aesthetic", _f64),
        pa.field("reason", _text),  # why it cannot be read, as in rejects
        pa.field("sentence", _text),
        pa.field("measured", _f64),
        pa.field("bound", _f64),
    ]
)

CLIPS = pa.schema(
    [
        _required("clip_id", _text),  # hash of content and span
        _required("row_id", _text),  # the input row it answers for
        _required("source_uri", _text),
        pa.field("source_id", _text),  # what a list calls the row
        _required("content_hash", _text),
        pa.field("scene", _i32),  # its number; null where the clip is a whole file
        _required("start_s", _f64),
        _required("end_s", _f64),
        _required("licence", _text),
        _required("duration_s", _f64),
        _required("fps", _f64),
        _required("width", _i32),
        _required("height", _i32),
        _required("codec", _text),
        pa.field("metadata", _text),  # JSON object of a list's other columns
    ]
)

REJECTS = pa.schema(
    [
        _required("row_id", _text),
        _required("source_uri", _text),
        pa.field("source_id", _text),  # what a list calls the row
        pa.field("clip_id", _text),  # null where it never became a clip, and of training samples
        _required("stage", _text),
        _required("reason", _text),  # reason code, snake_case
        _required("sentence", _text),
        pa.field("measured", _f64),
        pa.field("bound", _f64),
    ]
)

BRIEF_CAPTIONS = pa.schema(
    [
        _required("clip_id", _text),
        _required("caption", _text),
        _required("embedding", pa.list_(_f32)),
        pa.field("shift_s", _f64),  # longest way from a frame to the key frame that stood for it, if one did
    ]
)

NEIGHBOURS = pa.schema(
    [
        _required("clip_id", _text),
        _required("other_id", _text),
        _required("similarity", _f32),  # the lower of the two below
        pa.field("text_similarity", _f32),  # null where captions were not compared
        pa.field("visual_similarity", _f32),  # null where looks were not compared
    ]
)

VECTORS = pa.schema(
    [
        _required("clip_id", _text),
        pa.field("text", pa.list_(_f32)),  # of the brief caption; null where captions were not compared
        pa.field("looks", pa.list_(_f32)),  # of the frames, one after another; null where not compared
        _required("frames", _i32),  # how many of them
    ]
)

LOOKS = pa.schema(
    [
        _required("clip_id", _text),
        _required("looks", pa.list_(_f32)),  # encodings of its frames, one after another
        _required("frames", _i32),  # how many of them
        pa.field("shift_s", _f64),  # longest way from a frame to the key frame that stood for it, if one did
    ]
)

DEDUP = pa.schema(
    [
        _required("clip_id", _text),
        _required("kept", _flag),
        pa.field("nearest_kept_id", _text),
        pa.field("similarity", _f32),
        _required("threshold", _f32),
    ]
)

SWEEP = pa.schema(
    [
        _required("measure", _text),  # text or visual; where both decide, the other one's threshold stays
        _required("threshold", _f32),
        _required("kept", _i32),  # how many clips it would keep
    ]
)

KEYFRAMES = pa.schema(
    [
        _required("clip_id", _text),
        _required("index", _i32),
        _required("timestamp_s", _f64),
        pa.field("similarity", _f32),  # to the key frame before it; null for the first
        _required("jpeg", pa.binary()),
    ]
)

DIFFERENTIALS = pa.schema(
    [
        _required("clip_id", _text),
        _required("index", _i32),  # of its key frame; a window answers for all after the one before, to this
        _required("kind", _text),  # first, difference, window (from three key frames or more), anchor
        _required("start_s", _f64),  # of a difference and a window the key frame before what it tells
        _required("end_s", _f64),
        _required("caption", _text),
        _required("engine", _text),  # model name and revision, never an address
        _required("dialect", _text),  # or the name of a person's own prompts
        _required("prompt_version", _text),
        _required("prompt_tokens", _i32),
        _required("tokens", _i32),  # of the answer
        _required("attempt", _i32),  # 0, or which further try it is; those are sampled, with a seed
        _required("checks", pa.list_(_text)),  # codes of the checks it failed
        pa.field("frame_text_score", _f32),  # CLIP's similarity of caption and frame, where one is configured
        _required("fallback", _flag),
    ]
)

CAPTIONS = pa.schema(
    [
        _required("clip_id", _text),
        _required("start_s", _f64),
        _required("end_s", _f64),
        # brief, fast, sliding, part_summary, summary, recaption, prompt, structured
        _required("role", _text),
        _required("dialect", _text),
        _required("prompt_version", _text),
        _required("engine", _text),
        _required("caption", _text),
        _required("prompt_tokens", _i32),
        _required("tokens", _i32),
        _required("attempt", _i32),
        _required("checks", pa.list_(_text)),  # codes of the checks it failed
    ]
)

LINKS = pa.schema(
    [
        _required("clip_id", _text),
        _required("sentence_index", _i32),  # of the clip's summary, from 0
        _required("sentence", _text),
        _required("keyframes", pa.list_(_i32)),  # indices of those it rests on; none: nothing supports it
        _required("timestamps_s", pa.list_(_f64)),  # theirs
        _required("score", _f32),  # how much of the sentence their differential captions say, 0 to 1
    ]
)

# A clip whose caption was given to the judge. One point for each criterion without a fault; null where no
# verdict could be read.
JUDGEMENTS = pa.schema(
    [
        _required("clip_id", _text),
        _required("role", _text),  # of the caption
        _required("engine", _text),  # the judge
        _required("prompt_version", _text),
        pa.field("omissions_fabrications", _i32),
        pa.field("distortion", _i32),
        pa.field("temporal_mismatch", _i32),
        pa.field("score", _i32),  # their sum
        _required("reason", _text),  # the judge's, or why there is no verdict
    ]
)

SFT = pa.schema(
    [
        _required("sample_id", _text),
        _required("clip_id", _text),
        pa.field("image", _text),  # name of a rendered image among the attached files
        pa.field("video", _text),
        _required("messages", _text),  # JSON list of {"role", "content"}; "<image>" marks the image
        _required("source", _text),  # which mixture part it came from
    ]
)

TABLES: dict[str, pa.Schema] = {
    "scans": SCANS,
    "clips": CLIPS,
    "rejects": REJECTS,
    "brief_captions": BRIEF_CAPTIONS,
    "neighbours": NEIGHBOURS,
    "vectors": VECTORS,
    "looks": LOOKS,
    "dedup": DEDUP,
    "sweep": SWEEP,
    "keyframes": KEYFRAMES,
    "differentials": DIFFERENTIALS,
    "captions": CAPTIONS,
    "links": LINKS,
    "judgements": JUDGEMENTS,
    "sft": SFT,
}
