"""One step of a loop as tapes: its nodes, made once on stand-ins for what changes from step to step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mtia_emu.kernels.rows.tape import Source, Tape, TapeStep

from mtia_emu.machine.units.simd import FUNCTIONS
from mtia_emu.types import BOOL, FP32, DType

if TYPE_CHECKING:
    from ..build import NodeBuilder

PLAIN = ("fp32", "fp16", "bf16", "bool")  # what passes through fp32 unchanged
MOST_STEPS = 48  # of a tape: each may need a register in local memory


class NoTape(Exception):
    """A step has no tape, and why."""


def traced(builder: NodeBuilder, inputs: Sequence[str], results: Sequence[str]) -> tuple[Tape, ...]:
    """Return a tape for each result, the next value of the state that stands at its place in `inputs`.

    The nodes of `builder` compute results from inputs, elementwise. A tape sees the new values of the states
    before its own. Raises `NoTape` where one cannot be had.
    """
    return tuple(_Tracer(builder, inputs, results[:i]).tape(value) for i, value in enumerate(results))


class _Tracer:
    """Writes the tape of one result; `before` are the results that stand in place of the first states."""

    def __init__(self, builder: NodeBuilder, inputs: Sequence[str], before: Sequence[str]) -> None:
        self.builder = builder
        self.count = len(inputs)
        self.known: dict[str, Source] = {v: i for i, v in enumerate(inputs)}
        self.gone = set(inputs[: len(before)]) - set(before)
        self.known |= {v: i for i, v in enumerate(before)}
        self.steps: list[TapeStep] = []

    def tape(self, value: str) -> Tape:
        """Return the tape of a value."""
        source = self._source(value)
        return Tape(self.count, tuple(self.steps), (source,))

    def _source(self, value: str) -> Source:
        if value in self.gone:
            raise NoTape(f"a state reads the old value of another, %{value}, after the new one is there")
        if value not in self.known:
            self.known[value] = self._made(value)
        return self.known[value]

    def _made(self, value: str) -> Source:
        const = self.builder.const_of(value)
        if const is not None and const.type.size == 1 and const.loaded is not None:
            return float(const.loaded.reshape(-1)[0])
        node = self.builder.producer(value)
        if node is None or node.op not in FUNCTIONS:
            raise NoTape(f"%{value} is made by {node.op if node else 'no'} op, not elementwise")
        kinds = [self.builder.type_of(v).dtype for v in (*node.inputs, value)]
        if any(kind.name not in PLAIN for kind in kinds):
            raise NoTape(f"{node.op} works on {', '.join(map(str, kinds))}")
        sources = tuple(self._source(v) for v in node.inputs)
        if sum(isinstance(s, float) for s in sources) > 1:
            raise NoTape(f"{node.op} reads two numbers, and a command holds one")
        if len(self.steps) >= MOST_STEPS:
            raise NoTape(f"a step has more than {MOST_STEPS} operations")
        self.steps.append(TapeStep(node.op, sources, _kept(node.type.dtype)))
        return ~(len(self.steps) - 1)


def _kept(kind: DType) -> DType:
    """Return the type of a value between two steps of a tape: floats stay wide."""
    return BOOL if kind == BOOL else FP32
