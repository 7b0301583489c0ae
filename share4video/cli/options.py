"""The options that several verbs share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

import share4video
from share4video.cli.engines import fill_in_engines, name_engine
from share4video.config import RunConfig
from share4video.config_file import apply_overrides, parse_config, read_tree
from share4video.errors import UserError
from share4video.media.sources.spec import ZIP_FOLDER, join_sources

DEFAULT_STORE = "store"

StoreOption = Annotated[
    str,
    typer.Option(
        "--store", envvar="SHARE4VIDEO_STORE", help="The store: a folder or s3://BUCKET/PREFIX.", metavar="S"
    ),
]
SourceArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE...",
        help="Folders, quoted patterns, files, s3://BUCKET/PREFIX, zip archives, "
        "lists (.csv, .jsonl, .parquet).",
    ),
]
ConfigOption = Annotated[
    str | None,
    typer.Option(
        "--config", "-c", help="A YAML file of settings, or paper, laptop, cluster.", metavar="FILE"
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="One setting, as STAGE.KEY=VALUE; may be repeated.", metavar="A.B=C"),
]
EngineOption = Annotated[
    str | None,
    typer.Option("--engine", help="A captioner by its name in configs/engines.yaml.", metavar="NAME"),
]
PromptsOption = Annotated[
    Path | None,
    typer.Option(
        "--prompts", help="A YAML file of your own prompts; see docs/how-to/prompts.md.", metavar="FILE"
    ),
]
QuestionsOption = Annotated[
    str,
    typer.Option(
        "--questions", help="Questions in MVBench's JSON format: a folder or a file.", metavar="PATH"
    ),
]
QuestionClipsOption = Annotated[
    str, typer.Option("--question-clips", help="The folder of the videos they are about.", metavar="DIR")
]


def read_settings(
    config: str | None,
    overrides: Sequence[str] | None = None,
    *,
    engine: str | None = None,
    prompts: Path | None = None,
) -> RunConfig:
    """Return the run's configuration from a file or a preset's name; None means the defaults.

    Args:
        engine: a captioner's name in ``configs/engines.yaml``, in the place of the configuration's engines.
        prompts: a file of prompts for every engine.

    Raises:
        UserError: there is no such file or engine, or a setting is wrong (the first one is named).
    """
    shipped = None if config is None or Path(config).is_file() else _shipped(config)
    file = shipped or (None if config is None else Path(config))
    tree = read_tree(file)
    if engine is not None:
        name_engine(tree, engine)
    apply_overrides(tree, overrides or ())
    fill_in_engines(tree, presets_file(), prompts)
    return parse_config(tree, where=str(file) if file else "--set", overrides=overrides or ())


def presets_file() -> Path:
    """Return the file of engines' presets that ships with the package."""
    return _shipped("engines") or Path("engines.yaml")


def _shipped(name: str) -> Path | None:
    """Return the file of ``configs`` that ships with the package; a source tree has them beside it."""
    package = Path(share4video.__file__).parent
    if re.fullmatch(r"\w+", name):
        for folder in (package / "configs", package.parent / "configs"):
            if (folder / f"{name}.yaml").is_file():
                return folder / f"{name}.yaml"
    return None


def make_folder(folder: Path) -> Path:
    """Make a folder to write to, unless it is there, and return it.

    Raises:
        UserError: there is a file in its place, or it may not be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot make the folder: {error.strerror}", where=str(folder), fix="name another folder"
        ) from error
    return folder


def absolute(place: str) -> str:
    """Return a place as tasks take it, wherever they run: absolute unless it is a URL."""
    return place if "://" in place else str(Path(place).expanduser().absolute())


def source_parameter(sources: Sequence[str], config: RunConfig) -> str:
    """Return several sources, and what lists may name, as the one parameter that stages and pipelines take.

    Raises:
        UserError: a path holds a line break.
    """
    return join_sources(
        [absolute_source(source) for source in sources], [absolute(prefix) for prefix in config.allow]
    )


def absolute_source(source: str) -> str:
    """Return a source with absolute paths, that of its archives too."""
    place, mark, zip_folder = source.partition(ZIP_FOLDER)
    return absolute(place) + mark + (absolute(zip_folder) if mark else "")
