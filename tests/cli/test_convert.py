"""``share4video convert`` as a person runs it."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from share4video.cli.main import app
from share4video.models.transformers_server import check_tensor_names
from tests.models.llava_next.tiny import write_original


def call(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["convert", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_a_checkpoint_is_converted_and_told_of_once(tmp_path: Path) -> None:
    source, target = str(write_original(tmp_path / "original")), str(tmp_path / "out")
    code, told, _ = call(source, target, "--max-shard-size", "60KB", "--dtype", "bfloat16")
    assert code == 0
    check_tensor_names(target)
    assert "bfloat16" in told and "peak memory" in told and "files of weights" in told
    assert "<image> is token 300; the vocabulary grew from 300 to 320 rows." in told
    assert "nothing was written" not in told
    code, told, _ = call(source, target, "--max-shard-size", "60KB", "--dtype", "bfloat16")
    assert code == 0 and "holds this conversion already; nothing was written" in told


def test_a_mistake_is_one_sentence(tmp_path: Path) -> None:
    code, _, said = call(str(tmp_path / "nowhere"), str(tmp_path / "out"))
    assert code == 2 and "share4video: no such checkpoint folder" in said and "Traceback" not in said
    code, _, said = call(str(tmp_path), str(tmp_path / "out"), "--max-shard-size", "much")
    assert code == 2 and "this is no size (--max-shard-size)" in said
