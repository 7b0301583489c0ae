"""The page shows after each sentence of a summary which key frames it rests on."""

from __future__ import annotations

from pathlib import Path

from share4video.config import DatasetConfig
from share4video.dataset.shards import ShardSet, read_table, table_from_rows
from share4video.report.page import render_report
from share4video.stages import dataset
from share4video.store import LocalStore
from tests.report.pages import Page
from tests.stages.captioned import publish_captioned


def test_sentences_bear_the_times_of_their_key_frames(store: LocalStore, tmp_path: Path) -> None:
    made = publish_captioned(store, tmp_path, ["red"])
    captions = read_table(store, made.caption, "captions").to_pylist()
    captions[0]["caption"] = (
        "A small red square is on grey. The square moves right. A dog barks, <b>loud</b>."
    )
    spoken = ShardSet(store, "caption", "1", inputs=["spoken"], config=DatasetConfig())
    differentials = read_table(store, made.caption, "differentials")
    spoken.commit(0, {"differentials": differentials, "captions": table_from_rows("captions", captions)})
    inputs = dataset.DatasetInputs(made.clips, made.brief, made.keyframes, spoken.publish(1).ref)
    result = dataset.run_stage(inputs, DatasetConfig(), store)
    assert (result.metrics["summary_sentences"], result.metrics["unsupported_sentences"]) == (3, 1)
    page = Page(render_report(store, {"dataset": result.ref}))
    assert [mark.attributes["title"] for mark in page.all("sup")] == [
        "what the key frame at 0.00 s shows",
        "what the key frame at 2.00 s shows",
    ]
    (doubtful,) = [span for span in page.all("span") if span.attributes.get("class") == "unsupported"]
    assert doubtful.attributes["title"] == "no differential caption says this"
    assert "<b>loud" not in render_report(store, {"dataset": result.ref})
