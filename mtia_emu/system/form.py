"""A system's file: its tables, checked one by one; what hangs together is checked where it is built."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from .library import STRICT

MOST_WITH_CONSENT = 16384
MOST_LINKS = 200_000
NAME = r"^[a-z][a-z0-9_-]*$"
Ends = tuple[str, ...]


class ChipGroup(BaseModel):
    """So many chips or GPUs of one kind: `name0`, `name1`, ...; one alone is `name`."""

    model_config = STRICT

    name: str = Field(max_length=32, pattern=NAME)
    count: int = Field(gt=0, le=MOST_WITH_CONSENT)
    chip: str = Field(min_length=1, max_length=200)


class SwitchGroup(BaseModel):
    """So many switches. One that is `shared` joins all copies of a system; others stand in each."""

    model_config = STRICT

    name: str = Field(max_length=32, pattern=NAME)
    count: int = Field(default=1, gt=0, le=4096)
    reduces: bool = False
    shared: bool = False
    pj_per_bit: float = Field(default=0.0, ge=0, le=1e4)


class LinkGroup(BaseModel):
    """Links of one kind, from each of some nodes to each of others; `bytes_per_s` is of one, each way.

    A rate in words is the chip's own: its ports to chips beside it, to other servers, or to the host.
    """

    model_config = STRICT

    name: str = Field(max_length=32, pattern=NAME)
    from_: str | Ends = Field(alias="from", max_length=64)
    to: str | Ends = Field(max_length=64)
    bytes_per_s: float | Literal["scale_up", "scale_out", "host"]
    latency_s: float = Field(ge=0, le=1)
    duplex: Literal["full", "half"] = "full"
    pj_per_bit: float = Field(default=0.0, ge=0, le=1e4)


class HostFile(BaseModel):
    """The servers that the chips stand in; bandwidths and power are of one server, without its chips."""

    model_config = STRICT

    servers: int = Field(default=1, gt=0, le=4096)
    memory_bytes: float = Field(ge=0, le=1e18)
    memory_bytes_per_s: float = Field(ge=0, le=1e15)
    nic_bytes_per_s: float = Field(ge=0, le=1e15)
    power_w: float = Field(ge=0, le=1e7)


class SystemFile(BaseModel):
    """A system's file."""

    model_config = STRICT

    name: str = Field(max_length=64, pattern=NAME)
    text: str = Field(max_length=200)
    library: str | dict[str, Any]
    chips: tuple[ChipGroup, ...] = Field(min_length=1, max_length=64)
    switches: tuple[SwitchGroup, ...] = Field(default=(), max_length=256)
    links: tuple[LinkGroup, ...] = Field(max_length=1024)
    host: HostFile


def keys_of(table: str) -> list[str] | None:
    """Return the keys of one of a system's tables, `links` for one; None for what has no keys of its own."""
    forms: dict[str, type[BaseModel]] = {
        "chips": ChipGroup,
        "switches": SwitchGroup,
        "links": LinkGroup,
        "host": HostFile,
    }
    return [f.alias or name for name, f in forms[table].model_fields.items()] if table in forms else None
