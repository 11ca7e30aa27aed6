"""What a GPU is: checked, frozen numbers with the unit in each key."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..types import DType

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True, strict=True)

Side = Annotated[int, Field(gt=0, le=4096)]

FALLBACK: dict[str, tuple[str, ...]] = {
    "fp64": ("fp32",),
    "fp32": ("tf32", "fp32"),
    "bf16": ("bf16", "fp16", "tf32", "fp32"),
    "fp16": ("fp16", "bf16", "tf32", "fp32"),
    "fp8_e4m3": ("fp8_e4m3", "bf16", "fp16", "tf32", "fp32"),
    "fp8_e5m2": ("fp8_e4m3", "bf16", "fp16", "tf32", "fp32"),
    "int8": ("int8", "fp16", "tf32", "fp32"),
    "uint8": ("int8", "fp16", "tf32", "fp32"),
    "bool": ("int8", "fp16", "tf32", "fp32"),
}
"""Which rates a dtype's matmul may run at, best first. fp32 runs as TF32 where the tensor cores have it
(the usual setting of inference runtimes; the GPU at its strongest). A dtype that is not here runs at the
fp32 rate.
"""


def unit(text: str) -> dict[str, Any]:
    """Return the schema entry that carries a parameter's unit of measure."""
    return {"unit": text}


class Rate(BaseModel):
    """How fast, how well and at what price matmuls of one dtype run."""

    model_config = STRICT

    flops_per_s: float = Field(
        gt=0, description="dense datasheet rate at clock_hz", json_schema_extra=unit("FLOP/s")
    )
    efficiency: float = Field(
        gt=0,
        le=1,
        description="share of the rate a tile's inner loop keeps at full clock",
        json_schema_extra=unit("1"),
    )
    j_per_flop: float = Field(
        ge=0, description="marginal board energy of one operation", json_schema_extra=unit("J/FLOP")
    )


class Rates(BaseModel):
    """Matmul rates by dtype; a dtype without one falls back (`FALLBACK`)."""

    model_config = STRICT

    fp32: Rate
    tf32: Rate | None = None
    bf16: Rate | None = None
    fp16: Rate | None = None
    fp8_e4m3: Rate | None = None
    int8: Rate | None = None


class Facts(BaseModel):
    """The numbers of one GPU."""

    model_config = STRICT

    name: str = Field(max_length=64, description="the GPU's name")
    text: str = Field(max_length=200, description="one line on what it is")
    clock_hz: float = Field(
        gt=0,
        le=1e12,
        description="datasheet boost clock: rates and cycles are at it",
        json_schema_extra=unit("Hz"),
    )
    max_clock_hz: float = Field(
        gt=0, le=1e12, description="clock it runs at while power allows", json_schema_extra=unit("Hz")
    )
    sms: int = Field(gt=0, le=4096, description="streaming multiprocessors", json_schema_extra=unit("SMs"))
    vector_flops_per_s: float = Field(
        gt=0,
        description="fp32 rate outside the tensor cores, multiply-add as two",
        json_schema_extra=unit("FLOP/s"),
    )
    vector_j_per_flop: float = Field(
        ge=0, description="marginal board energy of one such operation", json_schema_extra=unit("J/FLOP")
    )

    l2_bytes: float = Field(gt=0, description="L2 cache", json_schema_extra=unit("B"))
    l2_bytes_per_s: float = Field(
        gt=0, description="L2 read bandwidth, all SMs", json_schema_extra=unit("B/s")
    )
    sm_l2_bytes_per_clock: float = Field(
        gt=0, description="what one SM can take from L2", json_schema_extra=unit("B/clock")
    )
    l2_resident: float = Field(
        ge=0,
        le=1,
        description="share of L2 in which fresh activations are still found",
        json_schema_extra=unit("1"),
    )

    dram_bytes: float = Field(gt=0, description="DRAM capacity", json_schema_extra=unit("B"))
    dram_bytes_per_s: float = Field(
        gt=0, description="DRAM datasheet bandwidth", json_schema_extra=unit("B/s")
    )
    dram_efficiency: float = Field(
        gt=0, le=1, description="share of it that streams reach", json_schema_extra=unit("1")
    )
    matmul_dram_efficiency: float = Field(
        gt=0, le=1, description="share of it that the operands of a matmul reach", json_schema_extra=unit("1")
    )
    dram_sector_bytes: int = Field(
        gt=0, le=4096, description="least bytes a random access moves", json_schema_extra=unit("B")
    )
    dram_activate_bytes: float = Field(
        ge=0, description="bandwidth lost to one random row access", json_schema_extra=unit("B")
    )
    dram_latency_s: float = Field(
        gt=0, le=1, description="one dependent read under load", json_schema_extra=unit("s")
    )
    dram_j_per_byte: float = Field(
        ge=0,
        description="board energy of a DRAM byte, caches and network included",
        json_schema_extra=unit("J/B"),
    )
    lookups_in_flight: int = Field(
        gt=0,
        le=65536,
        description="outstanding row reads of one SM in an embedding kernel",
        json_schema_extra=unit("requests"),
    )

    launch_stream_s: float = Field(
        ge=0, le=1, description="period of empty kernels on a stream", json_schema_extra=unit("s")
    )
    launch_graph_s: float = Field(
        ge=0, le=1, description="period of empty kernels in a graph", json_schema_extra=unit("s")
    )
    matmul_latency_s: float = Field(
        ge=0,
        le=1,
        description="fill of the k pipeline and drain of a matmul kernel",
        json_schema_extra=unit("s"),
    )
    wave_s: float = Field(
        ge=0,
        le=1,
        description="each further wave of tiles, or a split-k reduction",
        json_schema_extra=unit("s"),
    )
    overlap: float = Field(
        ge=1,
        le=64,
        description="p-norm that joins tensor, L2 and DRAM time: 1 adds, large takes the longest",
        json_schema_extra=unit("1"),
    )
    cluster: int = Field(
        gt=0, le=16, description="SMs that share one read of an operand tile", json_schema_extra=unit("SMs")
    )
    stream_k: bool = Field(description="libraries cut the last wave along k")
    tiles: tuple[tuple[Side, Side], ...] = Field(
        min_length=1,
        max_length=64,
        description="output tiles the library has",
        json_schema_extra=unit("elements"),
    )

    idle_w: float = Field(
        ge=0, description="board, clocks up, no kernel running", json_schema_extra=unit("W")
    )
    active_w: float = Field(
        gt=0, description="board, every SM running, beside bytes and operations", json_schema_extra=unit("W")
    )
    tdp_w: float = Field(gt=0, description="board power limit", json_schema_extra=unit("W"))
    rates: Rates

    def __hash__(self) -> int:
        """Return a cheap hash, for the caches of kernels; equality still compares every field."""
        return hash((self.name, self.clock_hz, self.tdp_w, self.dram_bytes_per_s))

    @model_validator(mode="after")
    def _ordered(self) -> Facts:
        """Refuse numbers that contradict each other."""
        for low, high in (
            ("idle_w", "active_w"),
            ("active_w", "tdp_w"),
            ("clock_hz", "max_clock_hz"),
            ("launch_graph_s", "launch_stream_s"),
        ):
            a, b = getattr(self, low), getattr(self, high)
            if a > b:
                raise ValueError(f"{low} is {a:g}, above {high}, which is {b:g}; it can be at most that")
        if self.idle_w >= self.tdp_w:
            raise ValueError(f"tdp_w is {self.tdp_w:g}; it must be above idle_w, which is {self.idle_w:g}")
        return self

    def rate(self, kind: DType) -> tuple[str, Rate]:
        """Return the rate at which matmuls of that dtype run, and its name, after `FALLBACK`."""
        for name in FALLBACK.get(kind.name, ()):
            found: Rate | None = getattr(self.rates, name)
            if found is not None:
                return name, found
        return "fp32", self.rates.fp32

    @property
    def stream_bytes_per_s(self) -> float:
        """Return the DRAM bandwidth that a stream reaches."""
        return self.dram_bytes_per_s * self.dram_efficiency

    def resident_bytes(self, activations: float) -> float:
        """Return how many of a kernel's activation bytes stay in L2 and never reach DRAM."""
        return min(activations, self.l2_resident * self.l2_bytes)
