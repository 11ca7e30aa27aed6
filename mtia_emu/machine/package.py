"""The dies of a chip's package."""

from __future__ import annotations

from pydantic import BaseModel, Field

from .units.memory import STRICT, unit


class Package(BaseModel):
    """The dies of the package: those that the model is of, and those beside them."""

    model_config = STRICT

    compute_dies: int = Field(
        gt=0,
        le=64,
        description="equal dies that PEs, SRAM and DRAM's pads are spread over",
        json_schema_extra=unit("dies"),
    )
    io_dies: int = Field(
        ge=0,
        le=64,
        description="equal dies beside them that are not in the model: network, host",
        json_schema_extra=unit("dies"),
    )
    io_die_mm2: float = Field(ge=0, le=1e4, description="area of one of those", json_schema_extra=unit("mm2"))
    io_node_nm: float = Field(gt=0, le=1e3, description="their process node", json_schema_extra=unit("nm"))
