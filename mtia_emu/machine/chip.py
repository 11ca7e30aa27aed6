"""A chip: a checked, frozen value read from a TOML file that any architect can copy and edit."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator, Mapping
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from ..errors import UserError, nearest, refuse_unknown
from ..files import toml
from ..types import DType, dtype
from .drams import load_dram
from .memory_choice import choose, filled
from .package import Package
from .units.dram import DramTiming
from .units.energy import Energy, access_scale
from .units.matrix import Matrix
from .units.memory import (
    STRICT,
    ControlProcessor,
    Core,
    Dma,
    Dram,
    LayoutUnit,
    Local,
    Reduce,
    Sram,
    unit,
)
from .units.noc import Grid, Noc
from .units.power import Power
from .units.simd import Simd

MAX_FILE_BYTES = 1 << 18
Array = np.ndarray[Any, Any]
Numbers = Array | float
NUMBERS = (int, float, dict[str, float])
LEAST, MOST = 1e-15, 1e21  # of any number: a chip's times and joules stay finite
MOST_COUNT = 10**9  # of a whole number that has no limit of its own


class Pe(BaseModel):
    """One processing element."""

    model_config = STRICT

    matrix: Matrix
    reduce: Reduce
    simd: Simd
    layout: LayoutUnit
    dma: Dma
    core: Core
    local: Local

    def product_cost(self, m: Numbers, k: Numbers, n: Numbers, kind: DType) -> tuple[Array, Array | int]:
        """Return (busy, latency) of products a[m, k] x b[k, n] on the unit that takes their type."""
        if self.matrix.supports(kind.name):
            return self.matrix.cost(m, k, n, kind.name)
        return self.simd.product_cost(np.asarray(m) * k * n, kind)


class Kernels(BaseModel):
    """What the chip's kernel library does, where there is a choice that the hardware leaves open."""

    model_config = STRICT

    stationary: Literal["weights", "inputs", "any"] = Field(
        description="the operand of a product that PEs keep while the other one's tiles pass: b, a, or "
        "whichever is estimated to be faster",
        json_schema_extra=unit("name"),
    )
    bags_in_flight: int = Field(
        gt=0,
        le=64,
        description="bags that a PE works on at once; one alone waits for its indices, then for its rows",
        json_schema_extra=unit("bags"),
    )


class Chip(BaseModel):
    """A whole accelerator."""

    model_config = STRICT

    name: str = Field(max_length=64, description="the chip's name")
    clock_hz: float = Field(
        gt=0, le=1e12, description="clock of PEs, network and SRAM", json_schema_extra=unit("Hz")
    )
    node_nm: float = Field(gt=0, description="process node", json_schema_extra=unit("nm"))
    die_mm2: float = Field(
        gt=0,
        description="published die area: a fact, from which nothing is reckoned",
        json_schema_extra=unit("mm2"),
    )
    typical_w: float = Field(gt=0, description="published typical power", json_schema_extra=unit("W"))
    tdp_w: float = Field(
        gt=0,
        description="thermal design power: a run that would draw more on average is slowed",
        json_schema_extra=unit("W"),
    )
    grid: Grid
    pe: Pe
    noc: Noc
    sram: Sram
    dram: Dram
    launch: ControlProcessor
    kernels: Kernels
    power: Power
