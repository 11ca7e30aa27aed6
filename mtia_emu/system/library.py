"""The software that runs collectives: which algorithms it has, and the protocols that it sends by."""

from __future__ import annotations

from importlib import resources
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import UserError, refuse_unknown
from ..files import toml

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True, strict=True)
Kind = Literal["all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast", "send"]
Algorithm = Literal["ring", "tree", "halving_doubling", "direct", "one_shot", "hierarchical", "in_switch"]


class Protocol(BaseModel):
    """A way to send: what it costs to start, each round and peer, and the share of links that it reaches."""

    model_config = STRICT

    name: str = Field(min_length=1, max_length=32, pattern=r"^[a-z0-9_-]+$")
    algorithms: tuple[Algorithm, ...] = Field(min_length=1, max_length=16)
    kinds: tuple[Kind, ...] = Field(default=(), max_length=16)  # empty: all
    launches: bool = True  # the chip's launch_s comes on top
    near: bool = False  # only between ranks behind one switch
    start_s: float = Field(ge=0, le=1)
    hop_s: float = Field(ge=0, le=1)
    peer_s: float = Field(default=0.0, ge=0, le=1)
    parallel_posts: int = Field(default=1, gt=0, le=4096)  # sends that a chip posts at once
    share: float = Field(gt=0, le=1)
    most_bytes_per_s: float = Field(default=0.0, ge=0, le=1e15)  # of a chip, each way; 0: no limit
    copy_bytes_per_s: float = Field(default=0.0, ge=0, le=1e15)  # of a rank's own part to the result; 0: none
    most_bytes: float = Field(default=0.0, ge=0, le=1e18)  # of a message; 0: no limit

    def takes(self, kind: str, bytes_: float) -> bool:
        """Return whether it carries such a collective of that size."""
        return (not self.kinds or kind in self.kinds) and (not self.most_bytes or bytes_ <= self.most_bytes)


class Library(BaseModel):
    """Protocols of one library; one that `stripes` splits what it sends over all networks of a chip.

    `pipelines`: the phases of a hierarchical collective overlap, as large messages are cut into parts.
    """

    model_config = STRICT

    name: str = Field(min_length=1, max_length=32, pattern=r"^[a-z0-9_-]+$")
    text: str = Field(max_length=200)
    stripes: bool = False
    pipelines: bool = False
    protocols: tuple[Protocol, ...] = Field(min_length=1, max_length=16)


def library_names() -> list[str]:
    """Return the names of the libraries that ship with the product."""
    folder = resources.files("mtia_emu.system.libraries")
    return sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml"))


def library_text(name: str) -> str:
    """Return the TOML text of a shipped library; raise `UserError` for an unknown name."""
    if name not in library_names():
        raise refuse_unknown("library", name, library_names())
    return (resources.files("mtia_emu.system.libraries") / f"{name}.toml").read_text(encoding="utf-8")


def load_library(name: str) -> Library:
    """Return the library of that name; raise `UserError` for an unknown one."""
    return checked(toml.parse(library_text(name), f"library {name}"), f"library {name}")


def checked(values: dict[str, Any], where: str) -> Library:
    """Return the library that nested values describe; raise `UserError` naming every fault."""
    try:
        found = Library.model_validate(toml.tuples(values))
    except ValidationError as error:
        raise UserError(f"{where}: {faults(error)}") from None
    names = [p.name for p in found.protocols]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{where}: two protocols are called '{name}'; each has a name of its own")
    return found


def faults(error: ValidationError) -> str:
    """Return every fault as key, value seen and what would be right."""
    out = []
    for fault in error.errors()[:8]:
        key = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "missing":
            out.append(f"key '{key}' is missing")
        elif fault["type"] == "extra_forbidden":
            out.append(f"unknown key '{key}'")
        elif not key:
            out.append(str(fault["msg"]).removeprefix("Value error, "))
        else:
            out.append(f"'{key}' is {str(fault['input'])[:60]!r}: {fault['msg'].lower()}")
    return "; ".join(out)
