"""What a model's inputs stand for, as far as its graph tells: rows of tables, cuts between bags, divisors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mtia_emu.types import BOOL

from ..graph import Graph, Node
from ..ops.embedding_bag import bag_operand
from ..ops.expert_matmul import ROUTED_PRODUCTS

MOVES = ("reshape", "slice", "transpose", "concat", "append", "expand", "tile", "copy")
THROUGH = (*MOVES, "cast", "ragged_split")
"""Ops behind which a value is still what it was."""
INDICES = ("gather", "gather_elements", "gather_nd", "scatter_elements", "scatter_nd")
ROWS, OFFSETS, DIVISOR, EXPONENT, SHIFT, SMALL = "rows", "offsets", "divisor", "exponent", "shift", "small"
OPERANDS = {  # where an operand's values are bounded, by op and position
    **{(op, 1): DIVISOR for op in ("div", "mod", "fmod")},
    ("pow", 1): EXPONENT,
    **{(op, 1): SHIFT for op in ("shift_left", "shift_right")},
    ("ragged_split", 1): SMALL,
    ("range", 0): SMALL,
    ("range", 1): SMALL,
    ("roi_align", 2): SMALL,
}


@dataclass(frozen=True)
class Role:
    """What an input stands for: `rows` and `offsets` count from 0 to `size`, the others need no size.

    `small` is what becomes an index by arithmetic, whose bounds `Lawful` finds, or sizes, of which none is
    known. With `wraps` -1 is the last row.
    """

    what: str
    size: int = 0
    wraps: bool = False


def role_of(graph: Graph, name: str) -> Role | None:
    """Return the role that binds an input most; None where any value of its type is lawful."""
    roles = list(_roles(graph, name))
    order = (ROWS, OFFSETS, SMALL, DIVISOR, EXPONENT, SHIFT)
    what = min((role.what for role in roles), key=order.index, default=None)
    if what is None:
        return None
    same = [role for role in roles if role.what == what]
    return Role(what, min(role.size for role in same), all(role.wraps for role in same))


def bounds(graph: Graph, name: str) -> Iterator[tuple[str, Role]]:
    """Yield each value made of an input, or itself, that has a role, with that role."""
    yield from ((value, role) for value, role, _ in _uses(graph, name))


def _roles(graph: Graph, name: str) -> Iterator[Role]:
    """Yield a role for each use of a value, directly or behind other work."""
    for _, role, direct in _uses(graph, name):
        yield role if direct or role.what in (DIVISOR, EXPONENT, SHIFT) else Role(SMALL)


def _uses(graph: Graph, name: str) -> Iterator[tuple[str, Role, bool]]:
    """Yield the operands made of a value that have roles, and whether nothing is computed in between."""
    seen, work = {name}, [(name, True)]
    while work:
        value, direct = work.pop()
        for node, position in graph.users(value):
            role = _use(graph, node, position)
            if role is not None:
                yield value, role, direct
                continue
            fresh = [
                v for v, t in zip(node.outputs, node.types, strict=True) if v not in seen and t.dtype != BOOL
            ]
            seen.update(fresh)
            work += [(v, direct and node.op in THROUGH) for v in fresh]


def _use(graph: Graph, node: Node, position: int) -> Role | None:
    """Return what an operand of a node has to be; None where its values are only computed with."""
    part, first = bag_operand(node.op, node.attrs, position)
    if part == "indices":
        return Role(ROWS, graph.type_of(node.inputs[first]).shape[0], True)
    if part == "offsets":
        return Role(OFFSETS, graph.type_of(node.inputs[first + 1]).shape[0])
    if node.op in ROUTED_PRODUCTS and position == 2:
        return Role(ROWS, graph.type_of(node.inputs[1]).shape[0], True)
    if node.op in INDICES and position == 1:
        return Role(ROWS, _rows(graph, node), True)
    kind = graph.type_of(node.inputs[position]).dtype
    what = OPERANDS.get((node.op, position))
    return None if what is None or kind.is_float else Role(what)


def _rows(graph: Graph, node: Node) -> int:
    """Return how many rows the indices of a node may name, at least."""
    shape = graph.type_of(node.inputs[0]).shape
    if node.op.endswith("_nd"):
        first = int(node.attrs.get("batch_dims", 0))
        depth = graph.type_of(node.inputs[1]).shape[-1]
        return min(shape[first : first + depth], default=1)
    return shape[int(node.attrs.get("axis", 0))]
