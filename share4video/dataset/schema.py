"""The tables every stage reads and writes; the only place that names a column.

Times are seconds of presentation time in the source; ids are lower-case hex. ``source_uri`` is relative
to the sources given to the run, or as a list names it: no path of the machine that made a table.
"""

from __future__ import annotations

import pyarrow as pa

SCHEMA_VERSION = "2"

_text, _f64, _f32, _i32, _flag = pa.string(), pa.float64(), pa.float32(), pa.int32(), pa.bool_()


def _required(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False)


CLIPS = pa.schema(
    [
        _required("clip_id", _text),  # hash of content and span
        _required("row_id", _text),  # the input row it answers for
        _required("source_uri", _text),
        pa.field("source_id", _text),  # what a list calls the row
        _required("content_hash", _text),
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
        _required("index", _i32),
        _required("kind", _text),  # first, difference, anchor
        _required("start_s", _f64),
        _required("end_s", _f64),
        _required("caption", _text),
        _required("engine", _text),  # model name and revision, never an address
        _required("dialect", _text),
        _required("prompt_version", _text),
        _required("tokens", _i32),
        _required("fallback", _flag),
    ]
)

CAPTIONS = pa.schema(
    [
        _required("clip_id", _text),
        _required("start_s", _f64),
        _required("end_s", _f64),
        _required("role", _text),  # brief, fast, sliding, summary, recaption
        _required("dialect", _text),
        _required("prompt_version", _text),
        _required("engine", _text),
        _required("caption", _text),
        _required("checks", pa.list_(_text)),  # codes of the checks it failed
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
    "clips": CLIPS,
    "rejects": REJECTS,
    "brief_captions": BRIEF_CAPTIONS,
    "neighbours": NEIGHBOURS,
    "vectors": VECTORS,
    "dedup": DEDUP,
    "sweep": SWEEP,
    "keyframes": KEYFRAMES,
    "differentials": DIFFERENTIALS,
    "captions": CAPTIONS,
    "sft": SFT,
}
