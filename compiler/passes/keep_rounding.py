"""Where rounding decides: what a narrow model turns into integers and truth values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mtia_emu.machine.units.simd import FUNCTIONS
from mtia_emu.types import FP32

from ..graph import Graph, Match, Node, Rewrite
from .base import Rule, Rules, building

COMPARES = ("equal", "less", "less_equal", "greater", "greater_equal")
STEPS = ("round", "floor", "ceil", "sign", "mod", "fmod", "isinf", *COMPARES)
MOVES = ("reshape", "transpose", "slice", "concat", "expand", "gather", "pad", "tile")
PRODUCTS = ("matmul", "conv")
SUMS = ("matmul", "matmul_map", "conv", "softmax", "log_softmax", "rmsnorm", "layernorm", "attention")


@dataclass(frozen=True)
class KeepRounding(Rules):
    """Round what a model computes in a float of 16 bits before it becomes an integer or a truth value.

    Later passes keep floats in fp32 between fused ops, and `set-precision` may make them wider for good. That
    does no harm where a value changes by a rounding; where 0.9999 is cast to an integer it decides between 0
    and 1.
    """

    rounds: ClassVar[int] = 1  # what it makes, it matches again

    @property
    def rules(self) -> tuple[Rule, ...]:
        return (_round,)


def _round(node: Node, match: Match) -> Rewrite | None:
    """step(x) of a computed x of 16 bits is step(round(x)), behind casts that lose nothing too."""
    if not is_step(node, match):
        return None
    b = building(node, match)

    def rounded(value: str) -> str:
        maker = match.producer(value) if value else None
        if maker is None:
            return value
        kind = match.type_of(value).dtype
        if maker.op == "cast":
            source = match.type_of(maker.inputs[0]).dtype
            inner = rounded(maker.inputs[0]) if source.is_float and source.bits < kind.bits else ""
            return value if inner in ("", maker.inputs[0]) else b.add("cast", inner, **maker.attrs)
        narrow = kind.is_float and 8 < kind.bits < FP32.bits
        return b.add("cast", value, to=kind.name, rounds=True) if narrow else value

    inputs = tuple(map(rounded, node.inputs))
    if inputs == node.inputs:
        return None
    results = b.adds(node.op, *inputs, **node.attrs)
    return b.rewrite(dict(zip(node.outputs, results, strict=True)))


def is_step(node: Node, match: Match | Graph) -> bool:
    """Return whether a result jumps where an operand changes by little: it is whole, or true or false."""
    if node.op == "cast":
        return match.type_of(node.inputs[0]).dtype.is_float and not node.type.dtype.is_float
    return node.op in STEPS and any(match.type_of(v).dtype.is_float for v in node.inputs)


def decided(graph: Graph) -> set[str]:
    """Return the floats from inputs to steps and to where the model rounds, with what steps make of them.

    So are those from sums of integers, which are as exact as an input. Only what is computed element by
    element, for nothing else, is on such a way.
    """
    ends = _leading(graph)
    given = dict.fromkeys(graph.consts, False) | {v: t.dtype.is_float for v, t in graph.inputs.items()}
    values: set[str] = set()
    for node in graph.nodes:
        if is_total(node):
            given[node.output] = True
            continue
        if node.name not in ends or any(v not in given for v in node.inputs):
            continue
        shown = any(given[v] for v in node.inputs)
        given |= dict.fromkeys(node.outputs, shown)
        values |= {*node.inputs, *node.outputs} if shown else set()
    return values


def is_total(node: Node) -> bool:
    """Return whether a node sums products of integers."""
    return node.op in PRODUCTS and not node.type.dtype.is_float


def _leading(graph: Graph) -> set[str]:
    """Return the nodes that are steps or round on purpose, and those that only such read."""
    values: set[str] = set()
    for node in reversed(graph.nodes):
        users = [user.name for v in node.outputs for user, _ in graph.users(v)]
        alone = bool(users) and values.issuperset(users) and not set(node.outputs) & set(graph.outputs)
        on_the_way = node.op in (*FUNCTIONS, *MOVES, "cast") and alone
        if on_the_way or is_step(node, graph) or node.attrs.get("rounds"):
            values.add(node.name)
    return values


def step_follows(node: Node, match: Match, within: int) -> bool:
    """Return whether a step, or a cast to 8 bits, sees the last digit of a result.

    It is looked for `within` so many ops, up to sums: their order leaves that digit open anyway.
    """
    seen, reached = {node.name}, [node]
    for _ in range(within):
        users = {u.name: u for n in reached for v in n.outputs for u in match.users(v)}
        reached = [u for u in users.values() if u.name not in seen and not _sums(u)]
        if any(is_step(u, match) or _is_code(u) for u in reached):
            return True
        seen.update(users)
    return False


def _sums(node: Node) -> bool:
    return node.op in SUMS or node.op.startswith("reduce_")


def _is_code(node: Node) -> bool:
    """Return whether a node casts to a float of so few bits that a rounding before it may show."""
    return node.op == "cast" and node.type.dtype.is_float and node.type.dtype.bits <= 8
