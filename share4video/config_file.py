"""A run's configuration as a person writes it: a YAML file, and ``--set a.b=c`` over it."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from share4video.config import RunConfig
from share4video.errors import UserError


def load_config(path: Path | None, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a run's configuration; ``overrides`` are ``a.b=value`` with YAML values.

    Raises:
        UserError: the file is missing or not YAML, or a key or a value is wrong (named with its path).
    """
    tree = read_tree(path)
    apply_overrides(tree, overrides)
    return parse_config(tree, where=str(path) if path else "--set", overrides=overrides)


def read_tree(path: Path | None) -> dict[str, Any]:
    """Read a configuration as it is written; nothing of it is checked. Raises UserError as `load_config`."""
    tree: dict[str, Any] = {}
    if path is not None:
        try:
            tree = _parse_yaml(path.read_text(encoding="utf-8")) or {}
        except OSError as error:
            raise UserError(
                f"cannot read the configuration: {error.strerror}", where=str(path), fix="check the path"
            ) from error
        except ValueError as error:  # also where it is not UTF-8
            raise UserError(
                "the configuration is not YAML", where=str(path), fix=" ".join(str(error).split())
            ) from error
        if not isinstance(tree, dict):
            raise UserError(
                "the configuration is not a mapping", where=str(path), fix="write key: value lines"
            )
    return tree


def apply_overrides(tree: dict[str, Any], overrides: Sequence[str]) -> None:
    """Set what the overrides say. Raises UserError where one is none."""
    for override in overrides:
        _set(tree, override)


def parse_config(tree: Any, *, where: str, overrides: Sequence[str] = ()) -> RunConfig:
    """Check a configuration tree. Raises UserError naming the first key that is wrong.

    Args:
        where: the file the tree was read from.
        overrides: those that were set in it: a key of theirs that is wrong is named as theirs.
    """
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(step) for step in first["loc"]) or "the configuration"
        where = _place(key, where, overrides)
        if first["type"] == "extra_forbidden":
            raise UserError(
                f"unknown configuration key {key}", where=where, fix=_known_keys(first["loc"])
            ) from None
        message = first["msg"].removeprefix("Value error, ")
        raise UserError(f"wrong value for {key}", where=where, fix=message) from None


def _set(tree: dict[str, Any], override: str) -> None:
    path, equals, value = override.partition("=")
    if not equals or not path:
        raise UserError("not an override", where=override, fix="write --set stage.key=value")
    *parents, leaf = path.split(".")
    node = tree
    for name in parents:
        node = node.setdefault(name, {})
        if not isinstance(node, dict):
            raise UserError(f"{name} holds a value, not keys", where=override, fix="shorten the path")
    try:
        node[leaf] = _parse_yaml(value)
    except ValueError:
        raise UserError("the value is not YAML", where=override, fix="quote it") from None


def _place(key: str, file: str, overrides: Sequence[str]) -> str:
    """Return where ``key`` was set; a group that is wrong as a whole may be so by file and override."""
    for override in reversed(overrides):
        path = override.partition("=")[0]
        if f"{key}.".startswith(f"{path}."):
            return f"--set {override}"
        if path.startswith(f"{key}."):
            return f"{file} {override}" if file == "--set" else f"{file} with --set {override}"
    return file


def _parse_yaml(text: str) -> Any:
    """Return what a YAML text holds.

    Raises:
        ValueError: it is not YAML, or a value is not what it looks like, such as a date without such a month.
    """
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
    except (ValueError, LookupError, AttributeError, RecursionError) as error:  # PyYAML lets them through
        raise ValueError(f"a value is not what it looks like ({error}), quote it") from error


def _known_keys(path: Sequence[int | str]) -> str:
    """Say which keys could stand where the last step of ``path`` does, the likeliest first."""
    model: type[BaseModel] = RunConfig
    for step in path[:-1]:
        kind = model.model_fields[str(step)].annotation
        kinds = [kind, *get_args(kind)]  # X | None holds X
        model = next(kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel))
    close = difflib.get_close_matches(str(path[-1]), model.model_fields, n=1)
    guess = f"did you mean {close[0]}? " if close else ""
    return f"{guess}known keys here: {', '.join(model.model_fields)}"
