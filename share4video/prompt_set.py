"""A person's own prompts for the captioner's roles, as data: they travel inside an engine's settings.

A task may run on another machine, so the file is read once, by the command line, pictures included. All of it
is one argument of a process there: hence the bound on its size (`MAX_SET_BYTES`).
"""

from __future__ import annotations

import base64
import json
import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from share4video.errors import UserError, reading

RoleName = Literal[
    "brief",
    "fast",
    "first",
    "difference",
    "window",
    "part",
    "span",
    "summary",
    "recaption",
    "prompt",
    "structured",
]
Base = Literal["sharecaptioner", "teacher"]

# As JSON inside of JSON, in ASCII: Linux takes 128 KiB as one argument, and a task gets up to two sets in it.
MAX_SET_BYTES = 48 << 10
MAX_FILE_BYTES = 1 << 20
MAX_EXAMPLES = 8  # of one role
MAX_PICTURES = 4  # of one example
_MAX_TEXT = 20_000
_MAX_PIXELS = 1 << 24


@dataclass(frozen=True)
class Placeholders:
    """What may stand in a role's text and, where the role has one, in its ``each``; and what must."""

    known: tuple[str, ...]
    needed: tuple[str, ...] = ()
    each: tuple[str, ...] = ()
    each_needed: tuple[str, ...] = ()


_FRAME = ("number", "time_s")
_NOTE = (*_FRAME, "caption")
PLACEHOLDERS: dict[RoleName, Placeholders] = {
    "brief": Placeholders(("count", "times_s"), each=_FRAME),
    "fast": Placeholders(("count", "times_s"), each=_FRAME),
    "first": Placeholders(_FRAME, each=_FRAME),
    "difference": Placeholders(
        ("previous_number", "previous_time_s", *_FRAME, "before"), ("before",), each=_FRAME
    ),
    "window": Placeholders(("count", "times_s", "before"), ("before",), each=_FRAME),
    "part": Placeholders(
        ("captions", "count", "start_s", "end_s"), ("captions",), each=_NOTE, each_needed=("caption",)
    ),
    "span": Placeholders(
        ("captions", "count", "context", "start_s", "end_s"),
        ("captions",),
        each=_NOTE,
        each_needed=("caption",),
    ),
    "summary": Placeholders(("captions", "count"), ("captions",), each=_NOTE, each_needed=("caption",)),
    "recaption": Placeholders(("text",), ("text",)),
    "prompt": Placeholders(("caption",), ("caption",)),
    "structured": Placeholders(
        ("captions", "count", "start_s", "end_s"), ("captions",), each=_NOTE, each_needed=("caption",)
    ),
}
PICTURE_ROLES: tuple[RoleName, ...] = ("brief", "fast", "first", "difference", "window")


class Template(string.Template):
    """Text with ``{names}`` to be filled in once; ``{{`` is a brace, and nothing else is special."""

    delimiter = "{"
    pattern = r"\{(?:(?P<escaped>\{)|(?P<named>[a-z_]+)\}|(?P<braced>(?!))|(?P<invalid>))"  # type: ignore[assignment]


def fill(template: str, values: Mapping[str, str]) -> str:
    """Put values where their names stand. Braces in a value are text."""
    return Template(template).substitute(values)


def own_words(template: str) -> list[str]:
    """Return what a template itself says: the texts between its placeholders."""
    ends = [0]
    for found in re.finditer(Template.pattern, template):
        ends += found.span()
    ends.append(len(template))
    return [template[start:end] for start, end in zip(ends[::2], ends[1::2], strict=True)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _is_picture(data: str) -> str:
    raw = base64.b64decode(data, validate=True)
    if not raw.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")):
        raise ValueError("a picture must be a JPEG or PNG file")
    return data


Picture = Annotated[str, AfterValidator(_is_picture)]  # base64 of a JPEG or PNG file


class Example(_Part):
    """An earlier turn for the engine to go by: what it might have been sent, and the answer wanted."""

    user: str = Field("", max_length=_MAX_TEXT)
    images: tuple[Picture, ...] = Field((), max_length=MAX_PICTURES)
    assistant: str = Field(min_length=1, max_length=_MAX_TEXT)

    @model_validator(mode="after")
    def _says_something(self) -> Example:
        if not self.user and not self.images:
            raise ValueError("give a user text or images")
        return self

    def pictures(self) -> list[bytes]:
        """Return the images as files."""
        return [base64.b64decode(image) for image in self.images]


class RolePrompt(_Part):
    """One role's own prompt.

    Attributes:
        system: sent as it is; None for the base's own, an empty text for none.
        user: the text beside the input, with the role's placeholders.
        each: the label before each frame, or the line of each caption; None for the base's.
        examples: earlier turns, the first one first.
    """

    system: str | None = Field(None, max_length=_MAX_TEXT)
    user: str = Field(min_length=1, max_length=_MAX_TEXT)
    each: str | None = Field(None, min_length=1, max_length=_MAX_TEXT)
    examples: tuple[Example, ...] = Field((), max_length=MAX_EXAMPLES)


class RolePrompts(_Part):
    """The roles with prompts of their own."""

    brief: RolePrompt | None = None
    fast: RolePrompt | None = None
    first: RolePrompt | None = None
    difference: RolePrompt | None = None
    window: RolePrompt | None = None
    part: RolePrompt | None = None
    span: RolePrompt | None = None
    summary: RolePrompt | None = None
    recaption: RolePrompt | None = None
    prompt: RolePrompt | None = None
    structured: RolePrompt | None = None

    def given(self) -> dict[RoleName, RolePrompt]:
        """Return the prompts there are, by role."""
        every: dict[RoleName, RolePrompt | None] = {role: getattr(self, role) for role in PLACEHOLDERS}
        return {role: prompt for role, prompt in every.items() if prompt is not None}


class PromptSet(_Part):
    """A person's own prompts.

    Attributes:
        name: goes into tables, in the place of a dialect's.
        base: whose prompts the roles left out use, and whose layout all do: ``teacher`` sends frames as
            separate images, ``sharecaptioner`` as one.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$", max_length=40)
    base: Base = "teacher"
    roles: RolePrompts

    @property
    def shows_pictures(self) -> bool:
        """Whether an example of any role has pictures."""
        return any(one.images for prompt in self.roles.given().values() for one in prompt.examples)

    @model_validator(mode="after")
    def _sound(self) -> PromptSet:
        if self.name in get_args(Base):
            raise ValueError(f"the name {self.name} is taken")
        given = self.roles.given()
        if not given:
            raise ValueError("no role has a prompt")
        for role, prompt in given.items():
            wanted = PLACEHOLDERS[role]
            _check(f"roles.{role}.user", prompt.user, wanted.known, wanted.needed)
            if prompt.each is not None:
                stacked = self.base == "sharecaptioner" and role in PICTURE_ROLES
                if stacked or not wanted.each:
                    why = "its frames are one image" if stacked else f"{role} has neither frames nor captions"
                    raise ValueError(f"roles.{role}.each has no place: {why}")
                _check(f"roles.{role}.each", prompt.each, wanted.each, wanted.each_needed)
        size = len(json.dumps(self.model_dump_json(exclude_defaults=True)))
        if size > MAX_SET_BYTES:
            raise ValueError(
                f"the prompts are {size} bytes with their pictures, of at most {MAX_SET_BYTES}: scale the"
                " pictures down, or leave examples out"
            )
        return self


def _check(where: str, text: str, known: tuple[str, ...], needed: tuple[str, ...]) -> None:
    template = Template(text)
    if not template.is_valid():
        raise ValueError(f"{where} has a brace that begins no placeholder: write {{{{ for a brace")
    found = template.get_identifiers()
    if unknown := [name for name in found if name not in known]:
        told = ", ".join(f"{{{name}}}" for name in known)
        raise ValueError(f"{where} has an unknown placeholder {{{unknown[0]}}}: known here are {told}")
    if missing := [name for name in needed if name not in found]:
        raise ValueError(f"{where} lacks {{{missing[0]}}}: without it the engine is not told what it needs")


def read_prompts(file: Path) -> PromptSet:
    """Read a YAML file of prompts, and the pictures its examples name by paths relative to it.

    Raises:
        UserError: the file or a picture is missing, or not what it should be; the first mistake is named.
    """
    with reading("the prompts", file):
        if file.stat().st_size > MAX_FILE_BYTES:
            raise UserError(
                "the file is too large", where=str(file), fix=f"keep it below {MAX_FILE_BYTES} bytes"
            )
        data = file.read_bytes()
    try:
        tree = yaml.safe_load(data)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        said = " ".join(str(error).split())
        raise UserError("the prompts are not YAML", where=str(file), fix=said) from error
    try:
        return PromptSet.model_validate(_with_pictures(tree, file.parent))
    except ValidationError as error:
        raise UserError("the prompts are wrong", where=str(file), fix=_first_mistake(error)) from None


def _with_pictures(tree: Any, folder: Path) -> Any:
    """Replace the paths of pictures by the pictures; whatever else is wrong is left to the model.

    No more are read than may be given, and one that shows there are too many.
    """

    def with_images(example: Any) -> Any:
        match example:
            case {"images": list(paths), **rest}:
                some = paths[: MAX_PICTURES + 1]
                return {**rest, "images": [_picture(folder / p) if isinstance(p, str) else p for p in some]}
        return example

    def with_examples(prompt: Any) -> Any:
        match prompt:
            case {"examples": list(examples), **rest}:
                return {**rest, "examples": [with_images(one) for one in examples[: MAX_EXAMPLES + 1]]}
        return prompt

    match tree:
        case {"roles": dict(roles), **rest}:
            return {**rest, "roles": {role: with_examples(prompt) for role, prompt in roles.items()}}
    return tree


def _picture(path: Path) -> str:
    from PIL import Image, UnidentifiedImageError

    with reading("a picture of the prompts", path):
        if path.stat().st_size > MAX_SET_BYTES:
            raise UserError(
                "a picture of the prompts is too large",
                where=str(path),
                fix=f"scale it down: all of the prompts are at most {MAX_SET_BYTES} bytes",
            )
        data = path.read_bytes()
    try:
        with Image.open(path, formats=["JPEG", "PNG"]) as image:
            if image.width * image.height > _MAX_PIXELS:
                raise UserError("a picture of the prompts is too large", where=str(path), fix="scale it down")
            image.load()
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(
            "a picture of the prompts cannot be read", where=str(path), fix="give a JPEG or PNG file"
        ) from error
    return base64.b64encode(data).decode("ascii")


def _first_mistake(error: ValidationError) -> str:
    mistakes = error.errors()  # a key that is none explains one that is missing
    first = next((one for one in mistakes if one["type"] == "extra_forbidden"), mistakes[0])
    place = ".".join(str(step) for step in first["loc"])
    if first["type"] == "extra_forbidden":
        *above, name = (str(step) for step in first["loc"])
        model: type[BaseModel] = RolePrompt if above else PromptSet
        if above == ["roles"]:
            model = RolePrompts
        elif "examples" in above:
            model = Example
        kind = "role" if model is RolePrompts else "key"
        return f"there is no {kind} {name}, known here are {', '.join(model.model_fields)}"
    said = first["msg"].removeprefix("Value error, ")
    return f"{place}: {said}" if place else said
