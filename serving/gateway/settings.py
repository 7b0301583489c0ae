"""What a gateway is told when it starts, by environment variables or flags."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    IPvAnyNetwork,
    SecretStr,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from share4video.errors import UserError
from share4video.wording import TileBudgets

ENVIRONMENT_PREFIX = "SHARE4VIDEO_GATEWAY_"
_HOST = re.compile(r"(\*\.)?[A-Za-z0-9.-]+(:[0-9]{1,5})?")


def _host_pattern(text: str) -> str:
    if not _HOST.fullmatch(text):
        raise ValueError(f"{text!r} is not written as NAME, *.NAME or NAME:PORT, without https://")
    return text


HostPattern = Annotated[str, AfterValidator(_host_pattern)]
StorePrefix = Annotated[str, StringConstraints(pattern=r"^s3://[^/]+(/.*)?$")]


class GatewaySettings(BaseSettings):
    """Settings of one gateway. ``SHARE4VIDEO_GATEWAY_<NAME>`` or ``--<name>``; lists are JSON.

    Nothing outside the pod can be read unless it is named here: remote hosts, private networks, the folder
    for ``file://`` and the prefixes for ``s3://`` are all empty by default, which leaves ``data:`` URIs.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX,
        frozen=True,
        extra="forbid",
        cli_kebab_case=True,
        cli_prog_name="python -m serving.gateway",
    )

    upstream_url: str = Field(description="base address of the model's OpenAI routes, ending in /v1")
    upstream_model: str = Field("", description="the name the upstream knows the model by; empty: model_name")
    upstream_timeout_s: float = Field(600.0, gt=0)
    upstream_api_key: SecretStr = SecretStr("")
    summarizer_url: str = Field("", description="where captions are summarised; empty: the upstream")
    summarizer_model: str = ""

    role: Literal["chat", "captioner"] = "chat"
    model_name: str = Field("share4video", min_length=1, description="the name clients ask for")
    model_revision: str = Field("", description="shown in replies of the captioner")
    domain: Literal["any", "synthetic"] = Field("any", description="synthetic: refuse any other clip")
    host: str = Field("0.0.0.0", description="address to listen on")
    port: int = Field(8080, ge=1, le=65535)
    max_tokens: int = Field(4096, ge=1, description="the longest answer a client may ask for")
    max_in_flight: int = Field(64, ge=1, description="requests at a time; more are answered 429")
    max_decoders: int = Field(2, ge=1, description="clips decoded at a time")

    frames: int = Field(16, ge=1, le=64, description="frames of the chat grid")
    dialect: Literal["sharecaptioner", "teacher"] = Field(
        "sharecaptioner", description="the captioner's prompts"
    )
    tiles: TileBudgets | None = Field(None, description="the captioner is sent pictures of whole tiles")
    system_message: bool = Field(True, description="the captioner's chat template takes a system message")
    encoder: str = Field("descriptor", description="what the captioner's key frames are chosen by")
    interval_s: float = Field(2.0, gt=0, description="sampling interval of the captioner")
    max_keyframes: int = Field(64, ge=1, description="key frames of a clip the captioner takes on")

    allowed_hosts: tuple[HostPattern, ...] = Field(
        (),
        description='hosts clips may come from: "name" or "*.name", with ":port" unless 80 or 443',
    )
    allowed_networks: tuple[IPvAnyNetwork, ...] = Field(
        (), description="private, loopback or link-local networks that allowed hosts may resolve to"
    )
    file_root: Path | None = Field(None, description="folder that file:// addresses may name files in")
    s3_prefixes: tuple[StorePrefix, ...] = Field(
        (), description="s3://bucket/prefix/ that clips may be read from"
    )
    fetch_timeout_s: float = Field(30.0, gt=0)
    decode_timeout_s: float = Field(60.0, gt=0)
    max_video_bytes: int = Field(256 << 20, ge=1)
    max_image_bytes: int = Field(20 << 20, ge=1)
    max_downloaded_bytes: int = Field(2 << 30, ge=1, description="of all requests' media, on the disk")
    max_body_bytes: int = Field(96 << 20, ge=1, description="a data: URI is part of the body")
    max_buffered_bytes: int = Field(256 << 20, ge=1, description="of all requests' bodies together")
    upload_stall_s: float = Field(10.0, gt=0, description="a body that stops coming for so long is refused")
    upload_timeout_s: float = Field(120.0, gt=0, description="for a whole body")
    max_duration_s: float = Field(600.0, gt=0)
    max_pixels: int = Field(4096 * 2304, ge=1, description="per frame and per image")

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.max_buffered_bytes < self.max_body_bytes:
            raise ValueError("max_buffered_bytes is less than max_body_bytes: no body of that size would fit")
        if self.max_downloaded_bytes < max(self.max_video_bytes, self.max_image_bytes):
            raise ValueError("max_downloaded_bytes is less than what one clip or image may have")
        if self.tiles is not None and self.dialect != "sharecaptioner":
            raise ValueError("tiles are for the dialect sharecaptioner, which shows one picture")
        return self


@contextmanager
def setting_mistakes(flags: Mapping[str, str] | None = None) -> Iterator[None]:
    """Turn what is wrong with a setting, wherever it came from, into a sentence.

    Args:
        flags: the command's flags by the settings they give; None where every setting is a flag of its name.

    Raises:
        UserError: a setting is wrong.
    """
    try:
        yield
    except ValidationError as error:
        first = error.errors()[0]
        name, what = str((first["loc"] or ("",))[0]), first["msg"].removeprefix("Value error, ")
        raise _mistake(name, what, flags) from None
    except SettingsError as error:  # a list or a number of the environment that cannot be read
        named = re.search(r'field "(\w+)"', str(error))
        raise _mistake(named.group(1) if named else "", "it is not JSON, as lists must be", flags) from None


def _mistake(name: str, what: str, flags: Mapping[str, str] | None) -> UserError:
    if not name:
        return UserError(f"wrong settings: {what}", fix="correct them")
    flag = f"--{name.replace('_', '-')}" if flags is None else flags.get(name)
    places = [*([flag] if flag else []), ENVIRONMENT_PREFIX + name.upper()]
    return UserError(f"wrong setting {name}: {what}", fix=f"correct {' or '.join(places)}")
