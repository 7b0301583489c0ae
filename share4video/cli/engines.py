"""Engines by name and prompts by file: what the command line puts into a configuration before it is checked.

Tasks run anywhere, so neither a preset's name nor a file's path leaves this machine: their contents do.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError

from share4video.config import Config
from share4video.errors import UserError, reading
from share4video.prompt_set import read_prompts

ROLES = ("captioner", "summarizer")


class EnginePreset(Config):
    """One entry of ``configs/engines.yaml``; ``engine`` are fields of an `EngineSpec` but not its place."""

    memory_gb: Literal[8, 24, 80] | None
    context_length: int | None = Field(ge=1)
    serve: str | None
    engine: dict[str, Any]


def engine_presets(file: Path) -> dict[str, EnginePreset]:
    """Read the presets by name.

    Raises:
        UserError: the file is missing, or not what it should be.
    """
    with reading("the engines' presets", file):
        text = file.read_text(encoding="utf-8")
    try:
        return {
            str(name): EnginePreset.model_validate(fields) for name, fields in yaml.safe_load(text).items()
        }
    except (yaml.YAMLError, ValidationError, AttributeError) as error:
        said = " ".join(str(error).split())[:300]
        raise UserError("the engines' presets are wrong", where=str(file), fix=said) from error


def engine_fields(name: str, file: Path) -> dict[str, Any]:
    """Return the fields of a preset's engine.

    Raises:
        UserError: there is no such preset, or their file is wrong.
    """
    known = engine_presets(file)
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        guess = f"did you mean {close[0]}? " if close else ""
        raise UserError(
            f"there is no engine {name}", where=str(file), fix=f"{guess}known are {', '.join(known)}"
        )
    return known[name].engine


def name_engine(tree: dict[str, Any], name: str) -> None:
    """Let a preset caption and summarise, in the place of the engines a configuration names."""
    tree["engines"] = {"captioner": {"preset": name}, "summarizer": None}


def fill_in_engines(tree: dict[str, Any], presets: Path, prompts: Path | None) -> None:
    """Replace presets and files of prompts in a configuration by what is in them.

    Args:
        presets: the file of presets; read only where one is named.
        prompts: prompts for every engine that the configuration names.

    Raises:
        UserError: there is no such preset, it is not said where its model runs, a file of prompts is wrong,
            or there is no engine to use the prompts.
    """
    engines = tree.get("engines")
    named = [role for role in ROLES if isinstance(engines, dict) and isinstance(engines.get(role), dict)]
    if prompts is not None and "captioner" not in named:
        raise UserError(
            "the models that ship with the package know no other prompts than their own",
            where=str(prompts),
            fix="name an engine with --engine or in the configuration",
        )
    for role in named:
        assert isinstance(engines, dict)
        engine = dict(engines[role])
        if prompts is not None:
            engine["prompts"] = str(prompts)
        if "preset" in engine:
            engine = _from_preset(role, engine, presets)
        if isinstance(engine.get("prompts"), str):
            engine = _with_prompts(role, engine)
        engines[role] = engine


def _from_preset(role: str, engine: Mapping[str, Any], file: Path) -> dict[str, Any]:
    own = {key: value for key, value in engine.items() if key != "preset"}
    name = str(engine["preset"])
    fields = engine_fields(name, file)
    if not any(own.get(place) for place in ("url", "model_path", "inference_service")):
        raise UserError(
            f"the preset {name} does not say where the model runs",
            where=f"engines.{role}",
            fix=f"add --set engines.{role}.url=http://HOST:8000/v1, or inference_service in a cluster",
        )
    return {**fields, **own}


def _with_prompts(role: str, engine: dict[str, Any]) -> dict[str, Any]:
    prompts = read_prompts(Path(engine["prompts"]).expanduser())
    dialect = engine.get("dialect", prompts.base)
    if dialect != prompts.base:
        raise UserError(
            f"the prompts are over the dialect {prompts.base}, and the engine's is {dialect}",
            where=f"engines.{role}",
            fix=f"set the file's base to {dialect}, or the engine's dialect to {prompts.base}",
        )
    return {**engine, "dialect": dialect, "prompts": prompts.model_dump(mode="json", exclude_defaults=True)}
