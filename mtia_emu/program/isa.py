"""The program: commands, blocks of commands, and launches that run a block on given addresses.

A command is a fixed record; the package `commands` says what each kind of them is. A tile is named by (row,
col, rows, cols) of an operand seen as a matrix: all dimensions but the last are rows, the last is columns
(the last `across` dimensions, where an operand says so). Commands of a block stand in the order in which they
are issued; a command that reads a slot waits for the command that last wrote it, and one that writes a slot
waits for all that still read it: a ring of slots is a circular buffer, a write its push, the last read its
pop.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import cached_property
from typing import Any

import numpy as np

from ..machine.memories import Memory, memory_named
from ..machine.units.noc import Cast  # noqa: F401  a word of the language, imported from here
from ..machine.units.simd import FUNCTIONS, REDUCTIONS, SCATTERS
from ..options import COLD
from ..types import DType, TensorType, Work, WorkGroup
from .routed import Routed

Array = np.ndarray[Any, Any]


class Opcode(IntEnum):
    """The kinds of command, by the number that stands in a saved program; no order has a meaning."""

    LOAD = 0
    STORE = 1
    STAGE = 2
    GATHER = 3
    POOL = 4
    MATMUL = 5
    REDUCE = 6
    SIMD = 7
    FOLD = 8
    SCALAR = 9
    TOP = 10
    PICK = 11
    SCATTER = 12
    GROUP = 13
    SORT = 14
    SUM = 15
    FETCH = 16
    PUT = 17


FUNCTION_NAMES = tuple(FUNCTIONS)
REDUCTION_NAMES = tuple(REDUCTIONS)
SCATTER_NAMES = tuple(SCATTERS)
POOL_MODES = ("sum", "mean", "max")


class Shape(IntEnum):
    """How a SIMD operand meets a tile of [rows, cols]: whole, one row, one column, one element."""

    FULL = 0
    ROW = 1
    COL = 2
    ONE = 3


FIRST = 1  # MATMUL: overwrite the accumulator
VECTOR = 2  # MATMUL: on the SIMD engine
QUANTISED = 1  # POOL: rows end in a scale and an offset
SMALLEST = 1  # TOP: the least elements, not the largest
NAN_LEAST = 2  # TOP: NaN is below all numbers, not above
LOWEST = 2  # POOL: an empty bag gives -inf, not 0
NONE_BELOW = 1  # SORT: an index below 0 names no row, else one from the end
IMMEDIATE = -2  # a SIMD source that is the command's `imm`
NO_SLOT = -1
MOST_COMMANDS = 1 << 23  # of a block: timing takes some 300 bytes for each

COMMAND = np.dtype(
    [(name, "u1") for name in ("op", "cast", "fn", "flags")]
    + [(name, "i2") for name in ("pe", "src_pe", "operand", "operand2", "dst", "src0", "src1", "src2")]
    + [(name, "i4") for name in ("stage", "row", "col", "rows", "cols", "row2", "col2", "k")]
    + [("imm", "f4")]
)


def select(commands: Array, at: Array) -> Array:
    """Return commands at[n], by number: moved as words, several times as fast as field by field."""
    return np.take(_words(commands), at, axis=0).view(COMMAND).reshape(-1)


def join(parts: Sequence[Array]) -> Array:
    """Return arrays of commands [n] one after another."""
    return np.concatenate([_words(np.zeros(0, COMMAND)), *map(_words, parts)]).view(COMMAND).reshape(-1)


def _words(commands: Array) -> Array:
    return np.ascontiguousarray(commands).view(np.uint64).reshape(-1, COMMAND.itemsize // 8)


def source_shape(flags: Array, index: int) -> Array:
    """Return the `Shape` of SIMD source `index`, which stands in two bits of the flags."""
    return (flags >> (2 * index)) & 3


@dataclass(frozen=True)
class Operand:
    """A strided view that a block reads or writes; a launch gives its address. Strides count elements."""

    dtype: DType
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    space: Memory
    written: bool = False
    by_column: bool = (
        False  # tiles are kept column by column in local memory: the matrix unit's b, k innermost
    )
    tiled: bool = False  # lies in memory tile after tile, as it is loaded: a tile is one run of bytes
    across: int = 1  # so many dimensions at the end are columns: more than 1 for the windows of a convolution

    def __post_init__(self) -> None:
        object.__setattr__(self, "space", memory_named(self.space))

    @cached_property
    def rows(self) -> int:
        """Return the rows of the matrix view."""
        return int(np.prod(self.shape[: -self.across], dtype=np.int64))

    @cached_property
    def cols(self) -> int:
        """Return the columns of the matrix view."""
        return int(np.prod(self.shape[-self.across :], dtype=np.int64))

    @cached_property
    def extent_bytes(self) -> int:
        """Return the bytes from the first element to the end of the last."""
        if 0 in self.shape:
            return 0
        span = sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        return (span + 1) * self.dtype.bytes

    @cached_property
    def distinct_bytes(self) -> int:
        """Return the bytes of distinct elements: broadcast dimensions count once."""
        shape = [n for n, s in zip(self.shape, self.strides, strict=True) if s != 0]
        return int(np.prod(shape, dtype=np.int64)) * self.dtype.bytes

    def __str__(self) -> str:
        shape, strides = (",".join(map(str, x)) for x in (self.shape, self.strides))
        marks = (" out" if self.written else "") + (" by column" if self.by_column else "")
        marks += " tiled" if self.tiled else ""
        marks += f" {self.across} across" if self.across > 1 else ""
        return f"{self.dtype}[{shape}]:({strides}) {self.space}{marks}"


LOOP = "scan"  # the op whose launches are the steps of a loop
BESIDE = " + "  # between the names of layers, and of kernels, that share a launch


@dataclass(frozen=True)
class Slot:
    """A place in every PE's local memory, or in its accumulators, that holds one tile."""

    dtype: DType
    offset: int
    bytes: int
    accumulator: bool = False


@dataclass(frozen=True)
class Block:
    """The commands of one launch, and what they refer to. Equal blocks are stored once in a program.

    `bands` divide the grid's rows, by the first row of each band after the first: routers cut the trees of
    multicasts there, and slots that one band alone uses may lie where another's do. `routed` says how the
    commands follow a table of turns, where they do.
    """

    kernel: str
    operands: tuple[Operand, ...]
    slots: tuple[Slot, ...]
    commands: Array = field(repr=False)
    scratch_bytes: int = 0
    stages: int = 0
    scalar: tuple[str, tuple[tuple[str, Any], ...]] = ("", ())  # op name and attributes, for SCALAR
    mapping: str = ""
    bands: tuple[int, ...] = ()
    routed: Routed | None = None

    @property
    def kernels(self) -> tuple[str, ...]:
        """Return the kernel of each band: `kernel` joins their names; where it does not, it is each one's."""
        names = tuple(self.kernel.split(BESIDE))
        count = len(self.bands) + 1
        return names if len(names) == count else (self.kernel,) * count

    @cached_property
    def element_bytes(self) -> Array:
        """Return the bytes of an element of each operand, [operand]; of none [0]."""
        return np.array([x.dtype.bytes for x in self.operands] or [0])

    @property
    def size(self) -> int:
        """Return how many commands there are."""
        return len(self.commands)

    @property
    def is_routed(self) -> bool:
        """Return whether the commands follow a table of turns."""
        return self.routed is not None

    @property
    def local_bytes(self) -> int:
        """Return the local memory that the slots take."""
        return max((s.offset + s.bytes for s in self.slots if not s.accumulator), default=0)

    @property
    def accumulator_bytes(self) -> int:
        """Return the accumulator memory that the slots take."""
        return max((s.offset + s.bytes for s in self.slots if s.accumulator), default=0)

    def following(self, table: Array) -> Block:
        """Return the block with the commands that it has for a table of turns, int32[turns, 2]."""
        if self.routed is None or np.array_equal(table, self.routed.table):
            return self
        routed = replace(self.routed, table=table)
        return replace(self, commands=routed.followed(table), routed=routed)

    def band_rows(self, rows: int) -> Array:
        """Return [row, 2]: for each of a grid's rows the first and the last (excluded) row of its band."""
        edges = np.array([0, *self.bands, rows])
        band = np.searchsorted(edges, np.arange(rows), side="right") - 1
        return np.stack([edges[band], edges[band + 1]], axis=1)


@dataclass(frozen=True)
class Part:
    """One of several layers that a launch runs, as a `Launch` of its own would name it."""

    name: str
    op: str
    origin: str = ""


@dataclass(frozen=True)
class Launch:
    """One run of a block: a byte address for each operand (scratch operands: of the block's scratch).

    `parts` are the layers that run side by side, one a band of the block, where they are several.
    """

    block: int
    addresses: tuple[int, ...]
    name: str
    op: str
    origin: str = ""
    parts: tuple[Part, ...] = ()

    def goes_on(self, before: Launch) -> bool:
        """Return whether this is a further step of the loops that the launch before it runs a step of.

        The PEs' cores go through all steps of a loop by themselves: only the first is launched.
        """
        here, there = (x.parts or (x,) for x in (self, before))
        return all(x.op == LOOP for x in here) and {x.name for x in here} == {x.name for x in there}


@dataclass(frozen=True)
class Binding:
    """A tensor of the model at a fixed place: `type` in memory, `model_type` as the model's user sees it.

    Without `strides`, which count elements, it lies packed.
    """

    name: str
    type: TensorType
    model_type: TensorType
    space: Memory
    address: int
    strides: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "space", memory_named(self.space))

    @property
    def operand(self) -> Operand:
        """Return how the tensor lies in its memory."""
        shape = self.type.shape
        packed = tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
        return Operand(self.type.dtype, shape, self.strides or packed, self.space)


@dataclass(frozen=True)
class Program:
    """A compiled model: everything that running it needs, but the values of weights may be absent.

    `state` is how a run finds the chip: "cold", or "warm" from runs before. Then `resident_bytes` of
    `sram_bytes` are weights and states that stay there from run to run.
    """

    model: str
    source: str
    dtype: str
    dims: dict[str, int]
    chip: dict[str, Any]
    blocks: tuple[Block, ...]
    launches: tuple[Launch, ...]
    inputs: tuple[Binding, ...]
    outputs: tuple[Binding, ...]
    consts: tuple[Binding, ...]
    data: dict[str, Any] = field(
        repr=False
    )  # const name -> array, or what has .array(name); absent weights are not here
    dram_bytes: int
    sram_bytes: int
    works: tuple[Work, ...] = ()
    notes: tuple[str, ...] = ()
    groups: tuple[WorkGroup, ...] = ()
    state: str = COLD
    resident_bytes: int = 0

    @property
    def scratch_bytes(self) -> int:
        """Return the most SRAM that a block has for itself."""
        return max((b.scratch_bytes for b in self.blocks), default=0)

    @property
    def memory_bytes(self) -> dict[Memory, int]:
        """Return what the program takes of each memory from one launch to the next."""
        return {Memory.DRAM: self.dram_bytes, Memory.SRAM: self.sram_bytes}
