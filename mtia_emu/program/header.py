"""What the header of a program file may hold: nothing but names, sizes and numbers within bounds."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field, model_validator

from ..files.npz import MAX_RANK
from .isa import MOST_COMMANDS

Kind = Literal["matmul", "embedding_bag", "vector", "move"]
STRICT = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
ATTRS = ConfigDict(extra="forbid", frozen=True)  # an op's attribute may be an infinity: what a Pad pads with
WORK_RANK = {"matmul": 4, "embedding_bag": 4}
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


class SlotRecord(BaseModel):
    model_config = STRICT
    dtype: str
    offset: Count
    bytes: Count
    accumulator: bool


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
    kind: Kind
    dtype: str
    shape: list[Count] = Field(max_length=MAX_RANK)
    macs: Count
    flops: Count
    read_bytes: Count
    write_bytes: Count
    row: Count = 0
    inputs: Annotated[list[str], FailFast(), Many] = []
    outputs: Annotated[list[str], FailFast(), Many] = []

    @model_validator(mode="after")
    def _fits(self) -> WorkRecord:
        rank = WORK_RANK.get(self.kind)
        if rank is not None and (len(self.shape) != rank or (self.macs and 0 in self.shape)):
            raise ValueError(f"{self.kind} has a shape of {rank} sizes from 1, got {self.shape}")
        return self


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
    works: Annotated[list[WorkRecord], FailFast(), Many]
    notes: Annotated[list[str], FailFast(), Many]
