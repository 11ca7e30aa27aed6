"""What a kernel is: how one op becomes commands, and what whoever calls it must know.

The kernels of this tree are values of `Kernel` and stand in `kernels/__init__.py`; so are kernels of the
user's own. A kernel knows operands, a chip and the command set: it is written, run and tested with neither a
graph nor a model.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from mtia_emu.errors import UserError
from mtia_emu.machine.chip import Chip
from mtia_emu.program.isa import Block, Operand
from mtia_emu.types import TensorType

from .halves import Portion

T = TypeVar("T")
Memoise = Callable[[str, Hashable, Chip, Callable[[Chip], Any]], Any]


def unmemoised(kind: str, key: Hashable, chip: Chip, work: Callable[[Chip], Any]) -> Any:
    """Do the work: what `candidates` is given where no results are kept."""
    return work(chip)


@dataclass(frozen=True)
class KernelCall:
    """What a kernel is called with: its operands as they lie in memory, and what else it needs, by name.

    All that its block depends on besides the chip: equal calls have equal blocks. `stage_bytes` of SRAM may
    be taken to stage operands in; 0: the share that is kept for that on every chip.
    """

    inputs: tuple[Operand, ...]
    outputs: tuple[Operand, ...]
    named: tuple[tuple[str, Any], ...] = ()
    stage_bytes: int = 0

    @property
    def params(self) -> dict[str, Any]:
        """Return what the kernel needs besides its operands."""
        return dict(self.named)


class Kernel:
    """A way to run an op; derive from it, and list a value of the class.

    A kernel with one mapping defines `emit`. One with several defines `candidates`, and `emit_mapping` in
    place of `emit`. One with an `op` runs the nodes of that op which it `takes`, with their operands and
    attributes as they are; others are called by the rules of `compiler/lower`.
    """

    op: str = ""
    summary: str = ""
    reads_views: bool = False  # any strided view of memory; else packed ones
    writes_views: bool = False
    stages_both: bool = False  # goes through SRAM with two operands in DRAM, by as few slabs as there is room
    shares_launch: bool = False  # may run on some rows of the grid, beside others; else alone
    copies: bool = (
        False  # its result is its one operand, moved: whoever makes that may write the place itself
    )
    overwrites: int | None = None  # of inputs from this one on, an element is read before it is written where
    # the result lies in the place of an input
    slow_search: bool = False  # ranking candidates takes long: it is not tried on part of a grid
    weight: int | None = None  # input that may be stored in the order of its tiles, if constant

    @property
    def name(self) -> str:
        """Return what programs and reports call it."""
        raise NotImplementedError

    def takes(self, types: Sequence[TensorType | None], attrs: Mapping[str, Any]) -> bool:
        """Return whether it runs such operands of its op; others run as they would without it."""
        return True

    def problem(self, call: KernelCall) -> Hashable:
        """Return what candidates are ranked by: sizes, dtypes, spaces; of two equal ones the same is best."""
        return call

    def candidates(self, problem: Any, chip: Chip, count: int, memoise: Memoise) -> Sequence[Any]:
        """Return up to `count` different mappings of a problem, the one thought fastest first.

        `memoise(kind, key, chip, work)` gives `work(chip)`, maybe from an earlier time. Raises `NoRoom` where
        the chip's memories hold none.
        """
        return (None,)

    def spelled(self, mapping: Any) -> str:
        """Return a candidate as text, as the programs of `emit_mapping` print it."""
        return str(mapping)

    def fixed(self, text: str, call: KernelCall, chip: Chip) -> Any:
        """Return the mapping that a text spells, which need be no candidate.

        Raises `UserError` for a text that spells none, or one that the call or the chip cannot have.
        """
        raise UserError(f"mapping {text!r}: {self.name} has one mapping only (right: leave it out)")

    def emit(
        self, chip: Chip, attrs: Mapping[str, Any], inputs: Sequence[Operand], outputs: Sequence[Operand]
    ) -> Block:
        """Return the commands of a kernel with one mapping; its operands begin with those of `arranged`.

        Raises `NoRoom` where the chip's memories cannot hold them.
        """
        raise NotImplementedError

    def emit_mapping(self, chip: Chip, call: KernelCall, mapping: Any) -> Block:
        """Return the commands of a call under one of its candidates; raise as `emit` does."""
        return self.emit(chip, call.params, call.inputs, call.outputs)

    def arranged(self, inputs: Sequence[T], outputs: Sequence[T]) -> list[T]:
        """Return operands, or what belongs to each (an address), in the order of a block's operands."""
        return [*inputs, *outputs]

    @property
    def mapped(self) -> bool:
        """Return whether there are mappings to choose from."""
        return type(self).candidates is not Kernel.candidates

    def macs(self, params: Mapping[str, Any]) -> int:
        """Return about how many multiply-adds a call takes; 0 for what is no product."""
        return 0

    def streamed(self, inputs: Sequence[T], outputs: Sequence[T]) -> Sequence[T]:
        """Return the inputs that a call reads all of: not tables in which it looks rows up."""
        return inputs

    def halves(self, call: Portion) -> list[Portion]:
        """Return two calls that do what one does, each a part of the results; [] for what cannot be cut."""
        return []
