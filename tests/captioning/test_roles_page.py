"""The table of roles says what the code does."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest

from share4video.captioning import own_prompts, sharecaptioner, teacher
from share4video.captioning.roles import Dialect, RoleInput, messages, prompt_version
from share4video.errors import UserError
from share4video.prompt_set import PLACEHOLDERS
from tests.captioning.test_roles import ADDED, INPUTS, images_of

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "roles.md").read_text()
ROWS = {
    cells[0].strip("`"): cells[1:]
    for line in PAGE.splitlines()
    if (cells := [cell.strip() for cell in line.strip("|").split("|")]) and line.startswith("| `")
}


def told(names: tuple[str, ...], needed: tuple[str, ...]) -> str:
    return " ".join(f"`{{{name}}}`" + (" (needed)" if name in needed else "") for name in names)


def shown(dialect: Dialect, role: str) -> str:
    try:
        *_, user = messages(dialect, (INPUTS | ADDED)[role])
    except UserError:
        return "no"
    pictures = len(images_of(user))
    return "text" if not pictures else "one image" if dialect == "sharecaptioner" else "separate images"


def test_every_role_has_an_input_and_a_prompt() -> None:
    assert set(get_args(RoleInput)) == set(own_prompts.ROLES)
    assert set(own_prompts.ROLES.values()) == set(PLACEHOLDERS) == set(teacher.SYSTEM)
    assert set(sharecaptioner.MISSING) < set(PLACEHOLDERS)


@pytest.mark.parametrize(("kind", "role"), own_prompts.ROLES.items())
def test_a_roles_row(kind: type[RoleInput], role: str) -> None:
    given, _, released, general, placeholders = ROWS[role]
    assert given == f"`{kind.__name__}({', '.join(field.name for field in fields(kind))})`"
    assert (released, general) == (shown("sharecaptioner", role), shown("teacher", role))
    known = PLACEHOLDERS[role]  # type: ignore[index]
    expected = told(known.known, known.needed)
    if known.each:
        expected += f"; each: {told(known.each, known.each_needed)}"
    assert placeholders == expected


@pytest.mark.parametrize("dialect", get_args(Dialect))
def test_a_dialects_version(dialect: Dialect) -> None:
    assert ROWS[dialect][0] == f"`{prompt_version(dialect)}`"


def test_the_page_tells_of_no_other_roles() -> None:
    assert set(ROWS) == set(PLACEHOLDERS) | set(get_args(Dialect))
    assert set(re.findall(r"role `(\w+)`", PAGE)) <= set(PLACEHOLDERS)
