"""What a command is: all that the product knows of one kind, in one record; and what its rules are given.

A kind is written once, as a class with the members of `MEMBERS`. Whatever goes over commands (events, both
timings, occupancy, the interpreter, the verifier, drawings, estimates) asks the record, never the number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from ...machine.chip import Chip
from ..columns import CommandColumns
from ..events import Events
from ..fields import Fields
from ..isa import Block, Opcode, select

Array = np.ndarray[Any, Any]
Library = Mapping[str, Callable[[Sequence[Array], Mapping[str, Any]], Sequence[Array]]]


@dataclass(frozen=True)
class Queue:
    """A queue of commands of one unit, of each PE or of the chip; the unit takes them in the order of issue.

    `resource` is the name by which a layer is bound by the unit, with its `meaning`, and "" where the unit
    only passes on what others do; `colour` is the kind of bar that drawings show it as. One core of a PE
    issues what `moves` data, the other one what computes; of a `chip_wide` queue there is one, outside the
    PEs, which no core issues to. Of commands that `fly` a PE has at most `dma.outstanding_transfers` on their
    way. One that `drains` takes its next command when all that the last one needs is done with it, not
    already when the unit is. One that `chains` mostly has commands that read what the one before writes:
    estimates let each wait for the last one's result.
    """

    name: str
    resource: str
    meaning: str
    colour: str
    moves: bool = False
    chip_wide: bool = False
    flies: bool = False
    drains: bool = False
    chains: bool = False


@dataclass(frozen=True)
class Batch:
    """Commands of one kind of a block on a chip, side by side: those numbered `at` among all `commands`.

    `bands` are the block's, row by row of the grid. Commands that look rows up come apart by their table.
    """

    at: Array
    commands: Array
    block: Block
    chip: Chip
    bands: Array

    @cached_property
    def c(self) -> Array:
        """Return the commands' records."""
        return select(self.commands, self.at)

    @cached_property
    def pe(self) -> Array:
        """Return the PE of each command, [command]; the records need not be moved for it."""
        return self.commands["pe"][self.at].astype(int)

    @cached_property
    def cast(self) -> Array:
        """Return the multicast of each command, likewise."""
        return np.asarray(self.commands["cast"][self.at])

    @property
    def elements(self) -> Array:
        """Return rows times columns of each command, [command]."""
        return self.c["rows"].astype(float) * self.c["cols"]

    @property
    def operand_bytes(self) -> Array:
        """Return the bytes of an element of each of the block's operands, [operand]."""
        return self.block.element_bytes

    @property
    def slot_bytes(self) -> Array:
        """Return the bytes of an element of each of the block's slots, [slot]."""
        return np.array([s.dtype.bytes for s in self.block.slots] or [0])


class CommandCost(NamedTuple):
    """What each command of a batch takes, in cycles.

    Its unit is taken for `busy`; its result is there `latency` after all that it shares is done with it; it
    takes `link` (None: none, else as `geometry.links_in` numbers them) for `on_link`.
    """

    busy: Array
    latency: Array | float
    on_link: Array | float = 0.0
    link: Array | None = None


class MemoryDoors(Protocol):
    """A block in execution, as its commands see it: all that they read or write goes through these doors."""

    block: Block
    library: Library

    def take(self, pe: int, index: int, rows: int, cols: int) -> Array:
        """Return what slot `index` of a PE holds, as [rows, cols]."""

    def give(self, pe: int, index: int, rows: int, cols: int) -> Array:
        """Return slot `index` of a PE as [rows, cols], for the caller to write whole."""

    def tile(self, operand: int, row: int, rows: int, col: int, cols: int) -> Array:
        """Return a tile [rows, cols] of an operand."""

    def put(self, operand: int, row: int, col: int, data: Array) -> None:
        """Write a tile [rows, cols] of an operand."""

    def rows(self, operand: int, at: Array) -> Array:
        """Return rows [n, cols] of an operand, by number at[n]."""

    def put_rows(self, operand: int, at: Array, data: Array) -> None:
        """Write rows [n, cols] of an operand, by number at[n]."""

    def whole(self, operand: int) -> Array:
        """Return an operand in its own shape."""

    def receivers(self, pe: int, cast: int) -> range:
        """Return the PEs that a load feeds."""

    def chunk(self, dtype: str, k: int) -> int:
        """Return how many products of k the matrix unit sums before it adds them to the accumulator."""

    def note_zeros(self, pe: int, dtype: str, count: int) -> None:
        """Note multiply-adds with a zero operand."""

    def note_lookups(self, rows: Array) -> None:
        """Note rows[n] of a table that a command looked up."""


MEMBERS = {  # that every kind of command must have, and what each says
    "opcode": "its number",
    "unit": "what executes it, in words",
    "text": "what it does, in words",
    "queue": "the queue that it takes",
    "reads": "the fields that name slots that it reads",
    "writes": "the fields that name slots that it writes",
    "operands": "the fields that name operands of the block, where they are not negative",
    "verify": "what a saved one may say",
    "count": "the events that it causes",
    "cost": "how long it takes its unit, and its result",
    "execute": "what it computes",
    "show": "its text",
}


class CommandKind:
    """One kind of command. A kind that lacks one of `MEMBERS` cannot be declared: `TypeError` says which.

    The other members hold of most kinds as they stand here.
    """

    opcode: ClassVar[Opcode]
    unit: ClassVar[str]
    text: ClassVar[str]
    queue: ClassVar[Queue]
    reads: ClassVar[tuple[str, ...]]
    writes: ClassVar[tuple[str, ...]]
    operands: ClassVar[tuple[str, ...]]

    flagged: ClassVar[tuple[int, Queue] | None] = None  # a flag, and the queue that it takes where it is set
    optional: ClassVar[bool] = False  # a slot that it reads may be IMMEDIATE or none
    casts: ClassVar[bool] = False  # it may write slots of several PEs
    least: ClassVar[int] = 1  # of rows and of columns
    loads_tile: ClassVar[bool] = False  # of `operand`, into a slot: a like tile of another would do as well
    stores: ClassVar[bool] = False  # rows x cols elements of a slot, to a tile of `operand`
    multiplies: ClassVar[bool] = False  # src0 by src1; all that do in a block: the same types, on one unit
    adds: ClassVar[bool] = False  # to what its dst holds, but where the flag `overwrites` is set
    overwrites: ClassVar[int] = 0
    from_peer: ClassVar[bool] = False  # reads its dst of `src_pe` too
    fills_stage: ClassVar[bool] = False  # names a stage slot, which is filled when it ends
    waits_for_stage: ClassVar[bool] = False  # names a stage slot, for which it waits
    looks_up: ClassVar[bool] = False  # rows of the table `operand`, named by the indices `operand2`
    apart: ClassVar[bool] = False  # a batch has those of one `operand`, as of what `looks_up`
    pools: ClassVar[bool] = False  # sums rows that it looks up: how many there are (k), only data tell
    opaque: ClassVar[bool] = False  # how long it takes, no estimate tells

    def __init_subclass__(cls) -> None:
        missing = [name for name in MEMBERS if getattr(cls, name, None) is getattr(CommandKind, name, None)]
        if missing:
            command = f"command {cls.opcode.name}" if "opcode" not in missing else "a command"
            lacks = ", ".join(f"{name} ({MEMBERS[name]})" for name in missing)
            raise TypeError(f"{command}, class {cls.__name__}, lacks {lacks}")

    def verify(self, columns: CommandColumns, at: Array, c: dict[str, Array]) -> None:
        """Refuse commands that say what none may; `c` are their columns [n], at[n] their numbers."""
        raise NotImplementedError

    def count(self, batch: Batch, ev: Events) -> None:
        """Add what commands do to the events of their block."""
        raise NotImplementedError

    def cost(self, batch: Batch, ev: Events) -> CommandCost:
        """Return what commands take, by the rule of the machine's unit and their block's events."""
        raise NotImplementedError

    def execute(self, run: MemoryDoors, c: Fields) -> None:
        """Execute one command."""
        raise NotImplementedError

    def show(self, c: Any, block: Block) -> str:
        """Return a command's text behind its name and PE."""
        raise NotImplementedError


def tile_text(c: Any) -> str:
    """Return the tile that a command names."""
    return f"[{c['row']}+{c['rows']}, {c['col']}+{c['cols']}]"
