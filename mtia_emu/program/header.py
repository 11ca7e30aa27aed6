"""What the header of a program file may hold: nothing but names, sizes and numbers within bounds."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, FailFast, Field, model_validator

from ..files.npz import MAX_RANK
from ..options import COLD, WARM
from ..types import OF_DATA, WORKS
from .isa import MOST_COMMANDS

WORK_CLASSES = {kind.__name__.removesuffix("Work").lower(): kind for kind in WORKS}
"""The classes of work by the name that they have in a file."""

SIZES = {
    name: {
        f.name: f.default
        for f in fields(kind)
        if f.name not in ("name", "op", "dtype") and f.metadata != OF_DATA
    }
    for name, kind in WORK_CLASSES.items()
}
"""The sizes of each class, and what stands for one that a file leaves out, `MISSING` where it may not."""

STRICT = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
ATTRS = ConfigDict(extra="forbid", frozen=True)  # an op's attribute may be an infinity: what a Pad pads with
Count = Annotated[int, Field(ge=0, lt=1 << 62)]
Whole = Annotated[int, Field(ge=-(1 << 64), le=1 << 64)]
_Plain = bool | Whole | float | str
_Attr = _Plain | list[_Plain] | list[list[_Plain]]
Few = Field(max_length=256)
Many = Field(max_length=1 << 20)


class OperandRecord(BaseModel):
    model_config = STRICT
    dtype: str
    shape: list[Count] = Field(max_length=16)
    strides: list[Count] = Field(max_length=16)
    space: str
    written: bool
    by_column: bool
    tiled: bool
    across: int = Field(default=1, ge=1, le=16)


class SlotRecord(BaseModel):
    model_config = STRICT
    dtype: str
    offset: Count
    bytes: Count
    accumulator: bool


class RoutedRecord(BaseModel):
    model_config = STRICT
    operand: int = Field(ge=0, lt=256)
    experts: int = Field(ge=1, lt=1 << 31)
    strides: Annotated[list[tuple[Count, Count]], FailFast()] = Field(max_length=16)
    turns: int = Field(ge=1, le=MOST_COMMANDS)


class BlockRecord(BaseModel):
    model_config = ATTRS
    kernel: str
    operands: Annotated[list[OperandRecord], FailFast(), Few]
    slots: Annotated[list[SlotRecord], FailFast(), Many]
    commands: int = Field(ge=0, le=MOST_COMMANDS)
    scratch_bytes: Count
    stages: Count
    scalar_op: str
    scalar_attrs: Annotated[list[tuple[str, _Attr]], FailFast(), Few]
    mapping: str
    bands: Annotated[list[Count], FailFast(), Few] = []
    routed: RoutedRecord | None = None


class PartRecord(BaseModel):
    model_config = STRICT
    name: str
    op: str
    origin: str


class LaunchRecord(BaseModel):
    model_config = STRICT
    block: Count
    addresses: Annotated[list[Count], FailFast(), Many]
    name: str
    op: str
    origin: str
    parts: Annotated[list[PartRecord], FailFast(), Few] = []


class BindingRecord(BaseModel):
    model_config = STRICT
    name: str
    type: str
    model_type: str
    space: str
    address: Count
    strides: list[Count] = Field(default=[], max_length=MAX_RANK)


class WorkRecord(BaseModel):
    model_config = STRICT
    name: str
    op: str
    kind: str
    dtype: str
    sizes: dict[str, Count] = Field(max_length=16)

    @model_validator(mode="after")
    def _fits(self) -> WorkRecord:
        if self.kind not in SIZES:
            raise ValueError(f"unknown kind {self.kind[:40]!r} (right: {', '.join(SIZES)})")
        known = SIZES[self.kind]
        needed = {name for name, default in known.items() if default is MISSING}
        if not needed <= set(self.sizes) <= set(known):
            given = ", ".join(self.sizes)[:80]
            raise ValueError(f"sizes are {given}; right for {self.kind}: {', '.join(known)}")
        if self.kind == "attention" and not all(self.sizes[name] for name in needed):
            raise ValueError(f"sizes of attention are {self.sizes}; right: at least 1")
        return self


class GroupRecord(BaseModel):
    model_config = STRICT
    work: WorkRecord
    parts: Annotated[list[Count], FailFast(), Many] = Field(min_length=1)
    at: Count


class Header(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, ser_json_inf_nan="constants")
    format: str
    version: int
    model: str
    source: str
    dtype: str
    dims: dict[str, Count]
    chip: dict[str, Any]
    blocks: Annotated[list[BlockRecord], FailFast(), Many]
    launches: Annotated[list[LaunchRecord], FailFast(), Many]
    inputs: Annotated[list[BindingRecord], FailFast(), Many]
    outputs: Annotated[list[BindingRecord], FailFast(), Many]
    consts: Annotated[list[BindingRecord], FailFast(), Many]
    data: Annotated[list[str], FailFast(), Many]
    dram_bytes: Count
    sram_bytes: Count
    state: str = Field(default=COLD, pattern=f"^({COLD}|{WARM})$")
    resident_bytes: Count = 0
    works: Annotated[list[WorkRecord], FailFast(), Many]
    groups: Annotated[list[GroupRecord], FailFast(), Many]
    notes: Annotated[list[str], FailFast(), Many]

    @model_validator(mode="after")
    def _grouped(self) -> Header:
        taken: set[int] = set()
        for i, group in enumerate(self.groups):
            parts = set(group.parts)
            if len(parts) < len(group.parts) or parts & taken or max(parts) >= len(self.works):
                some = ", ".join(map(str, group.parts[:8]))
                raise ValueError(f"group {i} has the parts {some}; right: works, each in one group and once")
            if group.at not in parts:
                raise ValueError(f"group {i} runs in place of work {group.at}; right: one of its parts")
            taken |= parts
        return self
