"""What the choice of a memory brings beside its timings: prices, power, pads, package, capacity."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field

from ..units.memory import STRICT, unit


def _ordered(value: Any) -> Any:
    """Return low, middle and high of a range; a number alone is all three."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (value, value, value)
    if isinstance(value, list | tuple) and all(isinstance(x, int | float) for x in value):
        if list(value) != sorted(value):
            raise ValueError(f"a range is low, middle and high, in this order, not {list(value)}")
        return tuple(value)
    return value


_Amount = Annotated[float, Field(ge=0, le=1e9)]
Range = Annotated[tuple[_Amount, _Amount, _Amount], BeforeValidator(_ordered)]
"""Low, middle and high of a number whose sources differ or whose price moves."""


class Technology(BaseModel):
    """What a package of this memory holds, takes, needs on the die and costs."""

    model_config = STRICT

    package_channels: int = Field(
        gt=0, le=4096, description="channels of a package, DIMM or stack", json_schema_extra=unit("channels")
    )
    package_bytes: float = Field(
        gt=0, le=1e15, description="what a package holds", json_schema_extra=unit("B")
    )
    latency_s: float = Field(ge=0, le=1, description="latency of a read", json_schema_extra=unit("s"))
    read_pj_per_byte: float = Field(
        ge=0, le=1e6, description="a read: device, PHY and controller", json_schema_extra=unit("pJ/B")
    )
    write_pj_per_byte: float = Field(
        ge=0, le=1e6, description="a write: device, PHY and controller", json_schema_extra=unit("pJ/B")
    )
    idle_w_per_gb: float = Field(
        ge=0, le=1e3, description="standby and refresh", json_schema_extra=unit("W/GB")
    )
    package_phy_mm2: Range = Field(
        description="PHY and controller on the die for a package", json_schema_extra=unit("mm2")
    )
    usd_per_gb: Range = Field(description="price", json_schema_extra=unit("$/GB"))
    interposer_mm2: float = Field(
        ge=0,
        le=1e4,
        description="place that a stack takes on an interposer; 0: it is on the board",
        json_schema_extra=unit("mm2"),
    )
    inline_ecc_data_bytes: int = Field(
        ge=0,
        le=1 << 20,
        description="data that a burst of code beside them covers; 0: code has pins of its own",
        json_schema_extra=unit("B"),
    )

    def packages(self, channels: int) -> int:
        """Return how many packages have so many channels."""
        return math.ceil(channels / self.package_channels)

    def channels_for(self, bytes_: float) -> int:
        """Return the channels of as many packages as hold so many bytes."""
        return max(1, math.ceil(bytes_ / self.package_bytes - 1e-9)) * self.package_channels
