"""Chains of elementwise work as one kernel call."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mtia_emu.kernels.rows.tape import Source, Tape, TapeStep, parse

from mtia_emu.machine.units.simd import FUNCTIONS
from mtia_emu.types import FP32, DType

from ..graph import Match, Node, Rewrite, Skip
from .base import Rule, Rules, become, building

WIDE = ("int64", "uint64", "fp64", "int32", "uint32")  # what does not pass through fp32 unchanged

BYTES = ("int8", "uint8")  # integers that quantised models turn floats into and back


@dataclass(frozen=True)
class FuseMaps(Rules):
    """Fuse an elementwise op into the only user of its result, where shapes are equal.

    Floats between them stay in fp32, but where a cast `rounds`. A fused node has at most `max_inputs`
    operands and `max_steps` steps.
    """

    max_inputs: int = 6
    max_steps: int = 24

    @property
    def rules(self) -> tuple[Rule, ...]:
        return (self._fuse,)

    def _fuse(self, node: Node, match: Match) -> Rewrite | Skip | None:
        tape = tape_of(node, match)
        if tape is None:
            return None
        skipped: Skip | None = None
        for position, value in enumerate(node.inputs):
            maker = match.producer(value)
            before = tape_of(maker, match) if maker is not None else None
            if maker is None or before is None or maker.type.shape != node.type.shape:
                continue
            if match.only_user(value) is None:
                skipped = Skip(f"%{value} has other users")
                continue
            inputs, joined = splice(before, maker.inputs, tape, node.inputs, position, maker.type.dtype)
            if len(inputs) > self.max_inputs or len(joined.steps) > self.max_steps:
                skipped = Skip(f"fused it would have {len(inputs)} operands and {len(joined.steps)} steps")
                continue
            b = building(node, match)
            return become(node, b, b.add("map", *inputs, tape=str(joined), to=node.type.dtype.name))
        return skipped


def tape_of(node: Node, match: Match) -> Tape | None:
    """Return the tape of an elementwise node, None for any other."""
    if node.op == "map":
        return parse(str(node.attrs["tape"]))
    if node.op != "cast" and (node.op not in FUNCTIONS or node.op == "copy"):
        return None
    kinds = [node.type.dtype, *(match.type_of(v).dtype for v in node.inputs)]
    if any(k.name in WIDE for k in kinds):
        return None
    if node.op == "cast":
        if not all(k.is_float or k.name in BYTES for k in kinds) or not any(k.is_float for k in kinds):
            return None
        if node.type.dtype.is_float and node.type.dtype.bits <= 8:  # these saturate
            return None
        return _copy(node.type.dtype, rounds=bool(node.attrs.get("rounds")))
    return Tape(
        len(node.inputs), (TapeStep(node.op, tuple(range(len(node.inputs))), node.type.dtype),), (~0,)
    )


def _copy(kind: DType, *, rounds: bool) -> Tape:
    return Tape(1, (TapeStep("copy", (0,), kind, rounds),), (~0,))


def splice(
    before: Tape,
    before_inputs: tuple[str, ...],
    after: Tape,
    after_inputs: tuple[str, ...],
    position: int,
    between: DType,
) -> tuple[list[str], Tape]:
    """Return operands and tape of `after` with its operand at `position` computed by `before`.

    All places where `after` reads that operand read the one computed value. A float is not rounded to its
    stored type `between` them: it stays in a register; a step that only rounds to that type is the last one's
    own. Operands that both read appear once.
    """
    value = after_inputs[position]
    names = list(dict.fromkeys((*before_inputs, *(n for n in after_inputs if n != value))))
    shift = len(before.steps)

    def first(source: Source) -> Source:
        return names.index(before_inputs[source]) if not isinstance(source, float) and source >= 0 else source

    def second(source: Source) -> Source:
        if isinstance(source, float):
            return source
        if source < 0:
            return source - shift
        return result if after_inputs[source] == value else names.index(after_inputs[source])

    (result,) = (first(r) for r in before.results)
    steps = [replace(s, sources=tuple(map(first, s.sources))) for s in before.steps]
    last = ~result if not isinstance(result, float) and result < 0 else -1
    if last >= 0 and after == _copy(between, rounds=True):
        steps[last] = replace(steps[last], to=between, rounds=True)
        return names, Tape(len(names), tuple(steps), (result,))
    if last >= 0 and between.is_float and not steps[last].rounds:
        steps[last] = replace(steps[last], to=FP32)
    steps += [replace(s, sources=tuple(map(second, s.sources))) for s in after.steps]
    return names, Tape(len(names), tuple(steps), tuple(map(second, after.results)))
