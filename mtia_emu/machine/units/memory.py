"""The memories, and the units of a PE beside the engines: local memory, DMA, layout unit, reduction, cores.

A unit's `cost` is (busy, latency), in cycles: how long it is taken, how much later its result is there.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

Array = np.ndarray[Any, Any]
Numbers = Array | float
STRICT = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def unit(text: str) -> dict[str, Any]:
    """Return the field metadata that names a parameter's unit of measure."""
    return {"unit": text}


class Local(BaseModel):
    """The local memory of one processing element."""

    model_config = STRICT

    bytes: int = Field(gt=0, le=1 << 40, description="capacity", json_schema_extra=unit("B"))
    bytes_per_cycle: float = Field(
        gt=0, description="read plus write bandwidth", json_schema_extra=unit("B/cycle")
    )

    def cost(self, bytes_: Numbers) -> tuple[Array, float]:
        """Return the cycles of its port for bytes read and written, of any shape; and no latency."""
        return np.asarray(bytes_) / self.bytes_per_cycle, 0.0


class Dma(BaseModel):
    """The DMA engine of one processing element; loads and stores have queues of their own."""

    model_config = STRICT

    bytes_per_cycle: float = Field(
        gt=0, description="width of the port to the network, each way", json_schema_extra=unit("B/cycle")
    )
    startup_cycles: int = Field(
        ge=0, description="cycles to set a transfer up", json_schema_extra=unit("cycles")
    )
    outstanding_rows: int = Field(
        gt=0,
        description="row requests of an indexed transfer that may be in flight",
        json_schema_extra=unit("requests"),
    )
    outstanding_transfers: int = Field(
        gt=0,
        le=256,
        description="loads that may be on their way to a PE at once",
        json_schema_extra=unit("transfers"),
    )
    runs_per_cycle: float = Field(
        gt=0,
        description="contiguous runs that can be addressed each cycle",
        json_schema_extra=unit("runs/cycle"),
    )

    def cost(self, bytes_: Numbers, runs: Numbers) -> tuple[Array, int]:
        """Return the cycles that the port is taken by bytes or, in short runs, by addresses; in any shape."""
        by_bytes = np.asarray(bytes_) / self.bytes_per_cycle
        return np.maximum(by_bytes, np.asarray(runs) / self.runs_per_cycle), self.startup_cycles

    def flight_cycles(self, loads: Numbers, latency: Numbers) -> Array:
        """Return the least cycles of so many loads, in any shape: only some may be on their way at once."""
        return np.asarray(loads) * latency / self.outstanding_transfers


class LayoutUnit(BaseModel):
    """The layout unit of one processing element: it transposes tiles on their way to or from local memory."""

    model_config = STRICT

    bytes_per_cycle: float = Field(
        gt=0, description="bytes transposed each cycle", json_schema_extra=unit("B/cycle")
    )

    def cost(self, bytes_: Numbers) -> tuple[Array, float]:
        """Return the cycles in which bytes, of any shape, are turned on their way; and no latency."""
        return np.asarray(bytes_) / self.bytes_per_cycle, 0.0


class Reduce(BaseModel):
    """The reduction engine of one processing element: accumulators and the one-way network between PEs."""

    model_config = STRICT

    banks: int = Field(gt=0, le=64, description="accumulator banks", json_schema_extra=unit("banks"))
    bank_rows: int = Field(gt=0, le=4096, description="rows of one bank", json_schema_extra=unit("rows"))
    bank_cols: int = Field(
        gt=0, le=4096, description="columns of one bank", json_schema_extra=unit("columns")
    )
    bytes_per_cycle: float = Field(
        gt=0,
        description="bandwidth to the next PE of the row (W to E) or column (N to S)",
        json_schema_extra=unit("B/cycle"),
    )

    @property
    def bytes(self) -> int:
        """Return the bytes of all accumulators, 4 bytes each."""
        return self.banks * self.bank_rows * self.bank_cols * 4

    def cost(self, bytes_: Numbers, hop_cycles: float) -> tuple[Array, float]:
        """Return the cycles in which sums go to the next PE, in any shape, and those of the one hop."""
        return np.asarray(bytes_) / self.bytes_per_cycle, hop_cycles


class Core(BaseModel):
    """The processor cores of one processing element: they issue commands and run what no other unit can."""

    model_config = STRICT

    issue_cycles: float = Field(
        ge=0, description="cycles to issue one command", json_schema_extra=unit("cycles")
    )
    row_issue_cycles: float = Field(
        ge=0,
        description="cycles to ask for one row of an indexed transfer",
        json_schema_extra=unit("cycles/row"),
    )
    rows_per_accumulate: int = Field(
        gt=0, description="embedding rows that one accumulate command takes", json_schema_extra=unit("rows")
    )
    scalar_cycles_per_element: float = Field(
        gt=0, description="cycles an element of an op that runs on the core", json_schema_extra=unit("cycles")
    )

    sort_keys_per_cycle: float = Field(
        gt=0,
        description="keys that one pass of a radix sort takes: by the core, or by a unit that sorts",
        json_schema_extra=unit("keys/cycle"),
    )

    def issue(self, commands: Numbers) -> Array:
        """Return the cycles in which one core issues so many commands, of any shape."""
        return np.asarray(commands) * self.issue_cycles

    def sort_cost(self, keys: Numbers) -> Array:
        """Return the cycles that sorting takes, in any shape; a key counts once for each pass."""
        return np.asarray(keys) / self.sort_keys_per_cycle

    def cost(self, elements: Numbers, latency: float) -> tuple[Array, float]:
        """Return the cycles of so many elements, in any shape, and those to their operands' memory."""
        return np.asarray(elements) * self.scalar_cycles_per_element, latency


class Sram(BaseModel):
    """The shared SRAM: scratch (LLS) in whole granules, as many as a program needs, the rest cache (LLC)."""

    model_config = STRICT

    bytes: int = Field(ge=0, le=1 << 44, description="capacity", json_schema_extra=unit("B"))
    bytes_per_s: float = Field(gt=0, description="read plus write bandwidth", json_schema_extra=unit("B/s"))
    latency_s: float = Field(ge=0, le=1, description="latency of a read", json_schema_extra=unit("s"))
    granule_bytes: int = Field(
        gt=0,
        le=1 << 40,
        description="the parts in which it is scratch memory or cache; larger than the capacity: no cache",
        json_schema_extra=unit("B"),
    )
    line_bytes: int = Field(gt=0, le=1 << 16, description="a line of the cache", json_schema_extra=unit("B"))
    ways: int = Field(
        gt=0, le=256, description="lines of a set of the cache", json_schema_extra=unit("lines")
    )

    def cache_bytes(self, scratch_bytes: int, resident_bytes: int = 0) -> int:
        """Return the capacity of the cache beside so much scratch memory: whole granules less what is pinned.

        Resident weights fill what scratch leaves of its last granule, then lines of the cache.
        """
        taken = -(-scratch_bytes // self.granule_bytes)
        left = max(self.bytes // self.granule_bytes - taken, 0) * self.granule_bytes
        beyond = max(resident_bytes - (taken * self.granule_bytes - scratch_bytes), 0)
        return max(left - beyond, 0)


class Dram(BaseModel):
    """The off-chip memory; what it achieves of its peak follows from the timings of the device."""

    model_config = STRICT

    bytes: int = Field(gt=0, le=1 << 50, description="capacity", json_schema_extra=unit("B"))
    channels: int = Field(
        gt=0, le=4096, description="channels, interleaved", json_schema_extra=unit("channels")
    )
    channel_bytes_per_s: float = Field(
        gt=0, description="peak bandwidth of one channel", json_schema_extra=unit("B/s")
    )
    burst_bytes: int = Field(gt=0, le=4096, description="smallest access", json_schema_extra=unit("B"))
    latency_s: float = Field(ge=0, le=1, description="latency of a read", json_schema_extra=unit("s"))
    device: str = Field(
        max_length=64,
        description="timings of a channel: a file of `mtia_emu/machine/drams`, brought to this channel's "
        "bandwidth; `ideal` always reaches its peak",
        json_schema_extra=unit("name"),
    )
    refresh: Literal["all-bank", "per-bank", "none"] = Field(
        description="banks that a refresh takes at once", json_schema_extra=unit("name")
    )
    channel_interleave_bytes: int = Field(
        gt=0,
        le=1 << 30,
        description="consecutive bytes in one channel before the next",
        json_schema_extra=unit("B"),
    )
    ecc_data_bytes: int = Field(
        ge=0,
        le=1 << 20,
        description="data that one burst of error-correcting code stored beside them covers; 0: none",
        json_schema_extra=unit("B"),
    )

    @property
    def bytes_per_s(self) -> float:
        """Return the peak bandwidth of all channels."""
        return self.channels * self.channel_bytes_per_s

    def burst(self, run_bytes: Array, runs: Array) -> Array:
        """Return the bytes that cross the pins for `runs` of `run_bytes`, in any shape: whole bursts."""
        return np.ceil(run_bytes / self.burst_bytes) * self.burst_bytes * runs


class ControlProcessor(BaseModel):
    """What the control processor takes to start work on the grid."""

    model_config = STRICT

    first_s: float = Field(
        ge=0, le=1, description="time to launch the first job of a program", json_schema_extra=unit("s")
    )
    replace_s: float = Field(
        ge=0, le=1, description="time to replace one job by the next", json_schema_extra=unit("s")
    )
