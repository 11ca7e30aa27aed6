"""What every expert computes of every row, computed for the experts that each row is routed to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

from mtia_emu.machine.units.simd import FUNCTIONS

from ..build import NodeBuilder
from ..graph import Match, Node
from .base import scalar
from .expert_masks import Mask, column_of, mask_of

EXPERT, FEATURE, ONE, BOTH = -1, -2, -3, -4  # what an axis is of; BOTH: experts by features; 0, 1, ..: tokens
KEEP_ZERO = ("neg", "abs", "relu", "tanh", "sqrt", "erf", "sign", "silu", "gelu", "gelu_tanh", "cast")
WIDEST = 400  # nodes behind a sum over experts that are looked at
Roles = tuple[int, ...]
Lanes = tuple[str, ...]  # the values of all experts, or one value that has them on an axis


@dataclass(frozen=True)
class ChoiceRows:
    """A value [rows, features]: a row a token (`routed` False), or one for each of a token's choices.

    Of `same` there is one row for all. `hidden` says that it is zero where a row is not routed.
    """

    value: str
    routed: bool = False
    hidden: bool = False
    same: bool = False


@dataclass
class RoutedRows:
    """Values of all experts, made again for the choices of a mask."""

    match: Match
    b: NodeBuilder
    mask: Mask
    known: dict[tuple[Lanes, Roles], ChoiceRows | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        *lead, self.each = self.match.type_of(self.mask.chosen).shape
        self.lead = tuple(lead)
        self.tokens = prod(lead)
        self.experts = self.mask.experts
        self.chosen = self.b.add("reshape", self.mask.chosen, shape=(self.tokens, self.each))

    def rows(self, lanes: Lanes, roles: Roles) -> ChoiceRows | None:
        """Return a value of all experts for the choices; None where it is no such value."""
        key = (lanes, roles)
        if key not in self.known:
            self.known[key] = None
            if len(self.known) <= WIDEST and len(roles) == self.match.type_of(lanes[0]).rank:
                self.known[key] = self._rows(lanes, roles)
        return self.known[key]

    def summed(self, rows: ChoiceRows) -> str:
        """Return [tokens, features]: the sum over a token's choices."""
        size = self.b.type_of(rows.value).shape[1]
        each = self.b.add("reshape", rows.value, shape=(self.tokens, self.each, size))
        return self.b.add("reduce_sum", each, axes=(1,), keepdims=False)

    def product(self, left: ChoiceRows, right: ChoiceRows) -> ChoiceRows | None:
        """Return the elementwise product of two values."""
        return self._joined("mul", {}, [left, right])

    def _rows(self, lanes: Lanes, roles: Roles) -> ChoiceRows | None:
        if EXPERT not in roles and BOTH not in roles and len(set(lanes)) == 1:
            return self._of_tokens(lanes[0], roles)
        if all(self.match.const(v) is not None for v in lanes):
            return self._of_experts(lanes, roles)
        share = self._share(lanes, roles)
        if share:
            return ChoiceRows(share, routed=True, hidden=True)
        nodes = [n for n in map(self.match.producer, lanes) if n is not None]
        if len(nodes) < len(lanes) or any(_unlike(n, nodes[0]) for n in nodes):
            return None
        if nodes[0].op in FUNCTIONS or nodes[0].op == "cast":
            return self._elementwise(nodes, roles)
        rule = {"matmul": self._matmul, "slice": self._slice}.get(nodes[0].op)
        if rule is not None:
            return rule(nodes, roles)
        alone = {
            "transpose": self._transpose,
            "reshape": self._reshape,
            "expand": self._expand,
            "concat": self._concat,
        }.get(nodes[0].op)
        if alone is not None and len(lanes) == 1:
            return alone(nodes[0], roles)
        return self._reshaped_lanes(nodes, roles) if nodes[0].op == "reshape" else None

    def _of_tokens(self, value: str, roles: Roles) -> ChoiceRows | None:
        """A value without experts: rows of tokens, or one row for all."""
        b, kind = self.b, self.match.type_of(value)
        tokens = tuple(a for a in range(len(roles)) if roles[a] >= 0)
        size = prod(s for s, r in zip(kind.shape, roles, strict=True) if r == FEATURE)
        if not tokens:
            return ChoiceRows(b.add("reshape", value, shape=(1, size)), same=True)
        if sorted(roles[a] for a in tokens) != list(range(len(self.lead))):
            return None
        order = sorted(range(len(roles)), key=lambda a: (roles[a] < 0, roles[a] if roles[a] >= 0 else a))
        turned = b.add("transpose", value, perm=tuple(order)) if order != list(range(len(roles))) else value
        return ChoiceRows(b.add("reshape", turned, shape=(self.tokens, size)))

    def _of_experts(self, lanes: Lanes, roles: Roles) -> ChoiceRows | None:
        """Constants of experts, such as shifts: the row of each choice's expert."""
        if any(r >= 0 for r in roles):
            return None
        if self._alike(lanes):
            return self._of_tokens(lanes[0], roles)
        stacked = self._stacked(lanes, roles)
        size = self.b.type_of(stacked).shape[1]
        picked = self.b.add("gather", stacked, self.chosen, axis=0)
        return ChoiceRows(self.b.add("reshape", picked, shape=(self.tokens * self.each, size)), routed=True)

    def _alike(self, lanes: Lanes) -> bool:
        """Return whether all experts have one number, under names of their own."""
        numbers = {scalar(self.match, v) for v in lanes}
        return len(lanes) > 1 and len(numbers) == 1 and None not in numbers

    def _stacked(self, lanes: Lanes, roles: Roles) -> str:
        """Return constants as one [experts, features]."""
        b, kind = self.b, self.match.type_of(lanes[0])
        size = prod(s for s, r in zip(kind.shape, roles, strict=True) if r == FEATURE)
        if len(lanes) > 1:
            return b.add("concat", *(b.add("reshape", v, shape=(1, size)) for v in lanes), axis=0)
        if BOTH in roles:
            return b.add("reshape", lanes[0], shape=(self.experts, kind.size // self.experts))
        order = sorted(range(len(roles)), key=lambda a: (roles[a] != EXPERT, a))
        turned = b.add("transpose", lanes[0], perm=tuple(order))
        return b.add("reshape", turned, shape=(self.experts, size))

    def _share(self, lanes: Lanes, roles: Roles) -> str:
        """Return what the mask has for each choice, [rows, 1], where the value is a mask of this routing."""
        if len(lanes) > 1:
            columns = [column_of(self.match, v) for v in lanes]
            first = columns[0]
            if first is None or any(c is None or c.mask != first.mask for c in columns):
                return ""
            if [c.expert for c in columns if c is not None] != list(range(self.experts)):
                return ""
            return self._read(first.mask)
        tokens = tuple(range(len(self.lead)))
        mask = mask_of(self.match, lanes[0])
        if mask is None or sorted(roles) != sorted((EXPERT, *tokens)) or roles != (*tokens, EXPERT):
            return ""
        return self._read(mask)

    def _read(self, mask: Mask) -> str:
        """Return the shares of a mask of these choices, [rows, 1]; "" for a mask of others."""
        if mask.chosen != self.mask.chosen or mask.experts != self.experts:
            return ""
        shares = mask.shares
        if not shares:
            index = self.mask.chosen
            shares = self.b.add("gather_elements", mask.value, index, axis=len(self.lead))
        for kind in mask.casts if mask.shares else ():
            shares = self.b.add("cast", shares, to=kind)
        return self.b.add("reshape", shares, shape=(self.tokens * self.each, 1))

    def _elementwise(self, nodes: Sequence[Node], roles: Roles) -> ChoiceRows | None:
        """Apply a function to what its operands are."""
        operands: list[ChoiceRows] = []
        for at in range(len(nodes[0].inputs)):
            lanes = tuple(n.inputs[at] for n in nodes)
            found = self.rows(lanes, self._aligned(lanes[0], nodes[0], roles))
            if found is None:
                return None
            operands.append(found)
        return self._joined(nodes[0].op, dict(nodes[0].attrs), operands)

    def _aligned(self, value: str, node: Node, roles: Roles) -> Roles:
        """Return the roles of an operand's axes, that is broadcast to a node's result."""
        shape = self.match.type_of(value).shape
        pairs = zip(
            shape, node.type.shape[len(roles) - len(shape) :], roles[len(roles) - len(shape) :], strict=True
        )
        return tuple(r if s == whole else ONE for s, whole, r in pairs)

    def _joined(self, op: str, attrs: dict[str, Any], operands: Sequence[ChoiceRows]) -> ChoiceRows | None:
        """Apply a function to rows; rows of tokens are repeated for each choice where others are routed."""
        routed = any(x.routed for x in operands)
        values = [self._spread(x) if routed and not (x.routed or x.same) else x.value for x in operands]
        same = all(x.same for x in operands)
        hidden = _hidden(op, [x.hidden for x in operands])
        return ChoiceRows(self.b.add(op, *values, **attrs), routed, hidden, same)

    def _spread(self, rows: ChoiceRows) -> str:
        size = self.b.type_of(rows.value).shape[1]
        one = self.b.add("reshape", rows.value, shape=(self.tokens, 1, size))
        wide = self.b.add("expand", one, shape=(self.tokens, self.each, size))
        return self.b.add("reshape", wide, shape=(self.tokens * self.each, size))

    def _matmul(self, nodes: Sequence[Node], roles: Roles) -> ChoiceRows | None:
        """Multiply by the weights of each choice's expert, and add its shift."""
        node = nodes[0]
        if node.attrs or not 2 <= len(node.inputs) <= 3 or len(roles) < 2:
            return None
        if roles[-1] not in (FEATURE, BOTH) or roles[-2] in (EXPERT, FEATURE):
            return None
        left, right = (tuple(n.inputs[at] for n in nodes) for at in (0, 1))
        of_left, weights = self._aligned_rows(left[0], node, roles), self._weights(right, roles)
        rows = self.rows(left, of_left) if of_left is not None and weights else None
        if rows is None or rows.same:
            return None
        if self.b.type_of(weights).rank == 2:  # of all experts alike
            made = ChoiceRows(self.b.add("matmul", rows.value, weights), rows.routed, rows.hidden)
        else:
            product = self.b.add("expert_matmul", rows.value, weights, self.chosen)
            made = ChoiceRows(product, routed=True, hidden=rows.hidden)
        shifts = tuple(v for n in nodes for v in n.inputs[2:])
        if not shifts:
            return made
        shift = self.rows(shifts, self._aligned(shifts[0], node, roles))
        return None if shift is None else self._joined("add", {}, [made, shift])

    def _aligned_rows(self, value: str, node: Node, roles: Roles) -> Roles | None:
        """Return the roles of a product's left operand."""
        shape = self.match.type_of(value).shape
        if len(shape) < 2 or len(shape) > len(roles):
            return None
        outer = zip(
            shape[:-1],
            node.type.shape[len(roles) - len(shape) : -1],
            roles[len(roles) - len(shape) : -1],
            strict=True,
        )
        return (*(r if s == whole else ONE for s, whole, r in outer), FEATURE)

    def _weights(self, lanes: Lanes, result: Roles) -> str:
        """Return weights [experts, k, n], or [k, n] of all experts alike; "" for what is none.

        `result` are the roles of the product's axes.
        """
        b, shape = self.b, self.match.type_of(lanes[0]).shape
        if not 2 <= len(shape) <= len(result):
            return ""
        lead = tuple(r if s > 1 else ONE for s, r in zip(shape[:-2], result[-len(shape) : -2], strict=True))
        k, n = shape[-2:]
        if any(r not in (EXPERT, ONE) for r in lead):
            return ""
        if len(set(lanes)) > 1:
            if any(self.match.const(v) is None for v in lanes):
                return ""
            return b.add("concat", *(b.add("reshape", v, shape=(1, k, n)) for v in lanes), axis=0)
        if result[-1] == BOTH:
            apart = b.add("reshape", lanes[0], shape=(k, self.experts, n // self.experts))
            return b.add("transpose", apart, perm=(1, 0, 2))
        return b.add("reshape", lanes[0], shape=(self.experts, k, n) if EXPERT in lead else (k, n))

    def _slice(self, nodes: Sequence[Node], roles: Roles) -> ChoiceRows | None:
        """Take some of the features."""
        node = nodes[0]
        before = self.match.type_of(node.inputs[0]).shape
        cut = [a for a in range(len(roles)) if before[a] != node.type.shape[a]]
        if any(node.attrs["starts"][a] for a in range(len(roles)) if a not in cut):
            return None
        if cut != [len(roles) - 1] or roles[-1] not in (FEATURE, ONE):
            return None
        rows = self.rows(tuple(n.inputs[0] for n in nodes), (*roles[:-1], FEATURE))
        if rows is None or rows.same:
            return None
        height = self.b.type_of(rows.value).shape[0]
        start, end, step = (node.attrs[name][-1] for name in ("starts", "ends", "steps"))
        part = self.b.add("slice", rows.value, starts=(0, start), ends=(height, end), steps=(1, step))
        return ChoiceRows(part, rows.routed, rows.hidden)

    def _transpose(self, node: Node, roles: Roles) -> ChoiceRows | None:
        perm = node.attrs["perm"]
        before = tuple(roles[perm.index(a)] for a in range(len(perm)))
        return self.rows(node.inputs[:1], before)

    def _reshape(self, node: Node, roles: Roles) -> ChoiceRows | None:
        """Axes of one come and go; experts by features are one axis; rows are repeated for each expert."""
        before, after = self.match.type_of(node.inputs[0]).shape, node.type.shape
        tiled = self._tiled(node, roles)
        if tiled is not None:
            return tiled
        full = [(s, r) for s, r in zip(after, roles, strict=True) if s > 1]
        if [s for s, _ in full] == [s for s in before if s > 1]:
            left = iter(full)
            return self.rows(node.inputs[:1], tuple(next(left)[1] if s > 1 else ONE for s in before))
        if roles[-2:] == (EXPERT, FEATURE) and before == (*after[:-2], after[-2] * after[-1]):
            return self.rows(node.inputs[:1], (*roles[:-2], BOTH))
        return None

    def _tiled(self, node: Node, roles: Roles) -> ChoiceRows | None:
        """[experts * tokens, features], all tokens once for each expert, seen as [experts, tokens, ..]."""
        tile = self.match.producer(node.inputs[0], "tile")
        if tile is None or roles != (EXPERT, 0, FEATURE) or tile.attrs["repeats"] != (self.experts, 1):
            return None
        return self.rows(tile.inputs[:1], (0, FEATURE))

    def _expand(self, node: Node, roles: Roles) -> ChoiceRows | None:
        """Rows of one number, repeated over the features, get their width; other axes are not repeated."""
        rows = self.rows(node.inputs[:1], self._aligned(node.inputs[0], node, roles))
        parts = {FEATURE: 1, BOTH: self.experts}
        wide = [s // parts[r] for s, r in zip(node.type.shape, roles, strict=True) if r in parts]
        if rows is None or not wide:
            return rows
        height = self.b.type_of(rows.value).shape[0]
        return replace(rows, value=self.b.add("expand", rows.value, shape=(height, *wide)))

    def _concat(self, node: Node, roles: Roles) -> ChoiceRows | None:
        """The results of experts that stand apart, one after another."""
        at = node.attrs["axis"]
        kinds = [self.match.type_of(v) for v in node.inputs]
        if roles[at] != EXPERT or len(kinds) != self.experts or any(k.shape[at] != 1 for k in kinds):
            return None
        return self.rows(node.inputs, tuple(ONE if a == at else r for a, r in enumerate(roles)))

    def _reshaped_lanes(self, nodes: Sequence[Node], roles: Roles) -> ChoiceRows | None:
        """Axes of one come and go."""
        before, after = self.match.type_of(nodes[0].inputs[0]).shape, nodes[0].type.shape
        full = [(s, r) for s, r in zip(after, roles, strict=True) if s > 1]
        if [s for s, _ in full] != [s for s in before if s > 1]:
            return None
        left = iter(full)
        lanes = tuple(n.inputs[0] for n in nodes)
        return self.rows(lanes, tuple(next(left)[1] if s > 1 else ONE for s in before))


def _unlike(node: Node, first: Node) -> bool:
    """Return whether a node does something else than the first."""
    return (node.op, node.attrs, node.types, len(node.inputs)) != (
        first.op,
        first.attrs,
        first.types,
        len(first.inputs),
    )


def _hidden(op: str, operands: Sequence[bool]) -> bool:
    """Return whether a function of what is zero for other experts is so itself."""
    if op == "mul":
        return any(operands)
    if op == "div":
        return operands[0]
    if op == "where":
        return all(operands[1:])
    return all(operands) and (op in KEEP_ZERO or op in ("add", "sub", "max", "min"))
