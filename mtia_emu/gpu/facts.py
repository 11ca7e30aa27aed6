"""What a GPU is: checked, frozen numbers with the unit in each key."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..machine.network import Network
from ..options import BOARD
from ..results.basis import Around
from ..types import NARROW_FLOATS

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True, strict=True)

PER_S: dict[str, float] = {"ge": 1e6, "le": 1e21}  # bytes, operations: wider than any machine built
SHARE: dict[str, float] = {"ge": 1e-4, "le": 1}
PRICE: dict[str, float] = {"ge": 0, "le": 1e-3}
BYTES: dict[str, float] = {"ge": 1, "le": 1e18}
WATTS: dict[str, float] = {"le": 1e6}
CLOCKS: dict[str, float] = {"ge": 0, "le": 1e6}
"""Limits within which no sum of a report overflows."""

SHORT_S = 20e-6
"""Matmuls below this have a band of their own: estimate, the 2 to 3 us between collectors are 15 % of it."""

Side = Annotated[int, Field(gt=0, le=4096)]
Ratio = Annotated[float, Field(gt=0, le=100)]

FALLBACK: dict[str, tuple[str, ...]] = {
    "fp64": ("fp32",),
    "fp32": ("tf32", "fp32"),
    "tf32": ("tf32", "fp32"),
    "bf16": ("bf16", "fp16", "tf32", "fp32"),
    "fp16": ("fp16", "bf16", "tf32", "fp32"),
    **{kind.name: ("fp8_e4m3", "bf16", "fp16", "tf32", "fp32") for kind in NARROW_FLOATS},
    "int8": ("int8", "fp16", "tf32", "fp32"),
    "uint8": ("int8", "fp16", "tf32", "fp32"),
    "bool": ("int8", "fp16", "tf32", "fp32"),
    "fp4": ("fp4", "fp8_e4m3", "bf16", "fp16", "tf32", "fp32"),
}
"""Which rates a dtype's matmul may run at, best first. fp32 runs as TF32 where the tensor cores have it
(the usual setting of inference runtimes; the GPU at its strongest). A dtype that is not here runs at the
fp32 rate.
"""

ELEMENT_BYTES = {"tf32": 4.0, "fp4": 0.5625}
"""Bytes of an element of what is no dtype of ours; fp4 with a one-byte scale for each 16 (NVFP4)."""


def described(text: str, unit: str, **limits: Any) -> Any:
    """Return a field with its meaning, its unit of measure and its limits."""
    return Field(description=text, json_schema_extra={"unit": unit}, **limits)


class Rate(BaseModel):
    """How fast, how well and at what price matmuls of one dtype run."""

    model_config = STRICT

    flops_per_s: float = described("dense datasheet rate at clock_hz", "FLOP/s", **PER_S)
    efficiency: float = described("share of the rate a tile's inner loop keeps at full clock", "1", **SHARE)
    j_per_flop: float = described("marginal board energy of one operation", "J/FLOP", **PRICE)
    k_step_s: float | None = described(
        "least time of one step along k, where it is not the GPU's own", "s", default=None, gt=0, le=1
    )
    cuts_k: bool | None = Field(
        default=None, description="the library has split-k and stream-k kernels of it; true where not given"
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
    fp4: Rate | None = None


class AttentionFacts(BaseModel):
    """Fused attention: the KV write, the flash kernel and the combination of its splits."""

    model_config = STRICT

    packed: bool = Field(description="query heads that share keys are rows of one block in prefill too")
    copies_heads: bool = Field(
        description="decode copies heads that share keys side by side before, and back after, the kernel"
    )
    shared_heads: int = described(
        "query heads that share one read of their keys in decode; where there are more, each reads them",
        "heads", gt=0, le=4096,
    )  # fmt: skip
    prefill_s: float = described("fixed cost of the operator in prefill", "s", ge=0, le=1)
    decode_s: float = described("fixed cost of the operator in decode", "s", ge=0, le=1)
    block_s: float = described("a round of blocks that decode, beside its bytes", "s", ge=0, le=1)
    split_s: float = described("combining the parts of a cache that is split", "s", ge=0, le=1)
    sm_bytes_per_s: float = described("keys and values that one SM streams while it decodes", "B/s", **PER_S)
    query_block_s: float = described("a round of blocks of queries in prefill", "s", ge=0, le=1)
    efficiency: float = described("share of the matmul rate that prefill keeps", "1", **SHARE)
    prefill_dram_efficiency: float = described("share of DRAM bandwidth that prefill reaches", "1", **SHARE)
    decode_dram_efficiency: float = described(
        "share of DRAM bandwidth that reading the KV cache reaches", "1", **SHARE
    )


class DirectFacts(BaseModel):
    """All-reduces of serving runtimes, in which each GPU reads its peers' memory."""

    model_config = STRICT

    start_s: float = described("launch, and a barrier of all GPUs", "s", ge=0, le=1)
    peer_s: float = described("each further GPU that the barrier waits for", "s", ge=0, le=1)
    two_shot_s: float = described(
        "the second barrier and pass of the form for large messages", "s", ge=0, le=1
    )
    efficiency: float = described("share of the links' datasheet bandwidth that reads reach", "1", **SHARE)


class Links(BaseModel):
    """Collectives between the GPUs of one node."""

    model_config = STRICT

    bytes_per_s: float = described("datasheet link bandwidth of one GPU, one direction", "B/s", **PER_S)
    efficiency: float = described("share of it that large messages reach", "1", **SHARE)
    latency_s: float = described("fixed cost of a collective", "s", ge=0, le=1)
    hop_s: float = described("cost of each further GPU on the ring", "s", ge=0, le=1)
    small_bytes_per_s: float = described(
        "bandwidth of the low-latency protocol of small messages", "B/s", **PER_S
    )
    large_s: float = described("extra fixed cost of the protocol of large messages", "s", ge=0, le=1)
    direct: DirectFacts | None = None


class MeasuredBand(BaseModel):
    """How far measured kernels lie from the model: measured / modelled at the 10th and 90th percentile."""

    model_config = STRICT

    low: Ratio = described("10th percentile of measured / modelled", "1")
    high: Ratio = described("90th percentile of measured / modelled", "1")

    @model_validator(mode="after")
    def _ordered(self) -> MeasuredBand:
        """Refuse a band that is upside down."""
        if self.low > self.high:
            raise ValueError(f"low is {self.low:g}, above high, which is {self.high:g}")
        return self


class Bands(BaseModel):
    """80 % bands by kind of kernel: the wider of held-out residuals and of the spread between sources."""

    model_config = STRICT

    matmul: MeasuredBand
    short_matmul: MeasuredBand = Field(
        description="of matmuls below 20 us, in which collectors differ by fixed times"
    )
    attention: MeasuredBand
    vector: MeasuredBand
    embedding_bag: MeasuredBand
    joules: MeasuredBand
    short_joules: MeasuredBand = Field(
        description="of kernels below `metered_s`: low is what a meter read that saw idle gaps too"
    )

    def of(self, kind: str, seconds: float) -> MeasuredBand:
        """Return the band of the time of a kernel by its kind and its modelled time."""
        short = kind == "matmul" and seconds < SHORT_S
        name = "short_matmul" if short else "vector" if kind == "move" else kind
        found: MeasuredBand = getattr(self, name)
        return found


class Facts(BaseModel):
    """The numbers of one GPU."""

    model_config = STRICT

    name: str = Field(max_length=64, description="the GPU's name")
    text: str = Field(max_length=200, description="one line on what it is")
    clock_hz: float = described("datasheet boost clock: rates and cycles are at it", "Hz", ge=1e6, le=1e12)
    max_clock_hz: float = described("clock it runs at while power allows", "Hz", ge=1e6, le=1e12)
    sms: int = described("streaming multiprocessors (compute units)", "SMs", gt=0, le=4096)
    vector_flops_per_s: float = described(
        "fp32 rate outside the tensor cores, multiply-add as two", "FLOP/s", **PER_S
    )
    vector_j_per_flop: float = described("marginal board energy of one such operation", "J/FLOP", **PRICE)

    l2_bytes: float = described("L2 cache", "B", **BYTES)
    l2_bytes_per_s: float = described("L2 read bandwidth, all SMs", "B/s", **PER_S)
    l2_efficiency: float = described("share of it that the tiles of a matmul reach", "1", ge=1e-4, le=2)
    sm_l2_bytes_per_clock: float = described("what one SM can take from L2", "B/clock", ge=1, le=1e6)
    l2_resident: float = described("share of L2 in which fresh activations are still found", "1", ge=0, le=1)
    l2_usable: float = described("share of L2 that keeps what is read again and again", "1", **SHARE)

    dram_bytes: float = described("DRAM capacity", "B", **BYTES)
    dram_bytes_per_s: float = described("DRAM datasheet bandwidth", "B/s", **PER_S)
    dram_efficiency: float = described("share of it that streams reach", "1", **SHARE)
    matmul_dram_efficiency: float = described("share of it that the operands of a matmul reach", "1", **SHARE)
    dram_sector_bytes: int = described("least bytes a random access moves", "B", gt=0, le=4096)
    dram_activate_bytes: float = described("bandwidth lost to one random row access", "B", ge=0, le=1e6)
    dram_latency_s: float = described("one dependent read under load", "s", gt=0, le=1)
    dram_j_per_byte: float = described(
        "board energy of a DRAM byte, caches and network included", "J/B", **PRICE
    )
    lookups_in_flight: int = described(
        "outstanding row reads of one SM in an embedding kernel", "requests", gt=0, le=65536
    )
    bag_clocks: float = described("clocks of one SM for a bag of an embedding kernel", "clocks", **CLOCKS)
    lookup_clocks: float = described("clocks of one SM for a row that it looks up", "clocks", **CLOCKS)
    element_clocks: float = described("clocks of one SM for an element of that row", "clocks", **CLOCKS)

    launch_stream_s: float = described("period of empty kernels on a stream", "s", ge=0, le=1)
    launch_graph_s: float = described("period of empty kernels in a graph", "s", ge=0, le=1)
    launch_host_s: float = described("a kernel that the host launches and waits for", "s", ge=0, le=1)
    matmul_latency_s: float = described(
        "start and drain of a matmul kernel beyond its launch", "s", ge=0, le=1
    )
    gemv_latency_s: float | None = described(
        "the same of the library's matrix-vector kernel for one row; none without one", "s",
        default=None, ge=0, le=1,
    )  # fmt: skip
    tile_s: float = described(
        "filling and storing the first tile, for each 256 elements of its two edges", "s", ge=0, le=1
    )
    k_step_bytes: int = described("one step along k reads this much of each row", "B", gt=0, le=4096)
    k_step_s: float = described("least time of one step along k", "s", gt=0, le=1)
    wave_s: float = described(
        "each further wave of tiles, beside what the others move meanwhile", "s", ge=0, le=1
    )
    split_s: float = described("start of the reduction after a split-k kernel", "s", ge=0, le=1)
    reduce_bytes_per_s: float = described("partial sums that this reduction moves", "B/s", **PER_S)
    overlap: float = described(
        "p-norm that joins tensor, L2 and DRAM time: 1 adds, large takes the longest", "1", ge=1, le=64
    )
    cluster: int = described("SMs that share one read of an operand tile", "SMs", gt=0, le=16)
    stream_k: bool = Field(description="libraries cut the last wave along k")
    tiles: tuple[tuple[Side, Side], ...] = described(
        "output tiles the library has", "elements", min_length=1, max_length=64
    )
    row_step_s: float = described("1,024 elements of a row in a norm or softmax kernel", "s", ge=0, le=1)
    rows_in_flight: int = described("rows of 1,024 elements that one SM works on in it", "rows", gt=0, le=64)
    narrow_step_s: float = described(
        "1,024 elements of a row in a kernel whose threads move one element at a time", "s", ge=0, le=1
    )
    narrow_efficiency: float = described(
        "share of a stream's bandwidth that such a kernel reaches", "1", **SHARE
    )
    quantise_s: float = described("kernels that quantise activations before an fp8 matmul", "s", ge=0, le=1)
    quantise_efficiency: float = described(
        "share of a stream's bandwidth, from L2 or DRAM, that such kernels reach", "1", **SHARE
    )
    quantise_fp4_s: float = described("the kernel that does so before an fp4 matmul", "s", ge=0, le=1)

    idle_w: float = described("board, clocks up, no kernel running", "W", ge=0, **WATTS)
    active_w: float = described("board, kernels running, beside bytes and operations", "W", gt=0, **WATTS)
    tdp_w: float = described("board power limit", "W", gt=0, **WATTS)
    metered_s: float = described(
        "shortest kernel whose joules are held to measurements; of others a meter saw the idle gaps too",
        "s",
        ge=0,
        le=1,
    )
    regulator_share: float = described(
        "lost in the board's regulators, of what the GPU and its memory take", "1", ge=0, le=1
    )
    host_bytes_per_s: float = described("the link to the host, each way", "B/s", ge=0, le=1e15)
    server_gpus: int = described("GPUs of a server", "GPUs", gt=0, le=4096)
    server_w: float = described("the rest of a server: hosts, network, fans, supplies", "W", ge=0, **WATTS)
    sustained_heat: float = described(
        "energy of an operation in steady state over that in a short burst", "1", ge=1, le=4
    )
    heat_s: float = described(
        "length of a kernel that, measured by itself, takes a burst most of the way there",
        "s",
        ge=1e-6,
        le=10,
    )
    rates: Rates
    attention: AttentionFacts
    links: Links | None = None
    network: Network | None = None
    bands: Bands

    @property
    def around(self) -> Around:
        """Return what stands around the GPU, whose own joules are the board's."""
        return Around(
            BOARD, self.regulator_share, 0.0, self.server_gpus, self.server_w, self.host_bytes_per_s
        )

    def __hash__(self) -> int:
        """Return a cheap hash, for the caches of kernels; equality still compares every field."""
        return hash((self.name, self.clock_hz, self.tdp_w, self.dram_bytes_per_s))

    @model_validator(mode="after")
    def _consistent(self) -> Facts:
        """Refuse numbers that contradict each other."""
        for low, high in (
            ("idle_w", "active_w"),
            ("active_w", "tdp_w"),
            ("clock_hz", "max_clock_hz"),
            ("launch_graph_s", "launch_stream_s"),
            ("launch_stream_s", "launch_host_s"),
        ):
            a, b = getattr(self, low), getattr(self, high)
            if a > b:
                raise ValueError(f"{low} is {a:g}, above {high}, which is {b:g}; it can be at most that")
        if self.idle_w >= self.tdp_w:
            raise ValueError(f"tdp_w is {self.tdp_w:g}; it must be above idle_w, which is {self.idle_w:g}")
        return self

    def rate(self, dtype: str) -> tuple[str, Rate]:
        """Return the rate at which matmuls of that dtype run, and its name, after `FALLBACK`."""
        for name in FALLBACK.get(dtype, ()):
            declared: Rate | None = getattr(self.rates, name)
            if declared is not None:
                return name, declared
        return "fp32", self.rates.fp32

    @property
    def l2_reach(self) -> float:
        """Return the L2 bandwidth that the tiles of a matmul reach, in bytes a second."""
        return self.l2_bytes_per_s * self.l2_efficiency

    @property
    def stream_bytes_per_s(self) -> float:
        """Return the DRAM bandwidth that a stream reaches."""
        return self.dram_bytes_per_s * self.dram_efficiency

    def resident_bytes(self, activations: float) -> float:
        """Return how many of a kernel's activation bytes stay in L2 and never reach DRAM."""
        return min(activations, self.l2_resident * self.l2_bytes)
