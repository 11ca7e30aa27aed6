"""Making nodes: types are inferred, what is known is folded, and what changes nothing is left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from mtia_emu.errors import UserError
from mtia_emu.types import TensorType

from . import ops
from .graph import Attrs, Const, Loader, Node, Rewrite, freeze_attrs

FOLD_ELEMENTS = 1 << 24  # the largest constant computed when a graph is made
FOLD_BYTES = 1 << 28  # bytes of computed constants that one builder keeps
LONGEST_NAME = 200  # characters of a name that others are made from: a loop makes thousands
FOLD_MACS = 1 << 36  # multiply-adds that one builder spends on computed constants; one of integers is
SLOW = 1 << 6  # so many times as slow: no library multiplies them
FREE = 1024  # elements up to which a computed constant does not count
LAZY = 1 << 16  # elements beyond which constants are transposed, reshaped and cast only when they are read
MAX_ELEMENTS = 1 << 44  # of any one value: weights of experts are gathered for each token, on paper
_RELABEL = ("transpose", "reshape", "cast")  # folded, these keep their operand's name, with the op behind it
SMALL = 64  # elements of the constants that are looked up by their value
_SHORTENED = {"reshape", "expand", "slice", "cast", "copy", "tile", "pad", "transpose", "concat", "mul"}


class RewriteScope(Protocol):
    """What surrounds a builder: a graph being rewritten."""

    def type_of(self, value: str) -> TensorType: ...
    def const(self, value: str) -> Const | None: ...
    def producer(self, value: str) -> Node | None: ...
    def fresh(self, name: str) -> str: ...


class NodeBuilder:
    """Collects new nodes and constants over a scope (a `Match`), or over nothing.

    An op on constants becomes a constant: computed now, when read, or absent as its operands are. The same op
    on the same operands is made once.
    """

    def __init__(self, scope: RewriteScope | None = None) -> None:
        self.scope = scope
        self.origin = ""
        self.nodes: list[Node] = []
        self.consts: dict[str, Const] = {}
        self._types: dict[str, TensorType] = {}
        self._producers: dict[str, Node] = {}
        self._made: dict[object, tuple[str, ...]] = {}
        self._counts: dict[str, int] = {}
        self._folded_bytes = 0
        self._folded_macs = 0

    @staticmethod
    def apart() -> NodeBuilder:
        """Return a builder over nothing: for nodes that are read, and do not come into this one's graph."""
        return NodeBuilder()

    def type_of(self, value: str) -> TensorType:
        """Return the type of a value made here or known to the scope."""
        if value in self._types:
            return self._types[value]
        if self.scope is None:
            raise UserError(f"no value %{value}")
        return self.scope.type_of(value)

    def const_of(self, value: str) -> Const | None:
        """Return the constant of that name, or None."""
        return self.consts.get(value) or (self.scope.const(value) if self.scope is not None else None)

    def producer(self, value: str, *ops: str) -> Node | None:
        """Return the node that makes a value; None when there is none, or its op is not among `ops`."""
        node = self._producers.get(value)
        if node is None and self.scope is not None and value not in self._types:
            node = self.scope.producer(value)
        return node if node is not None and (not ops or node.op in ops) else None

    def known(self, value: str) -> np.ndarray | None:
        """Return the data, of any shape, of a constant small enough to look at; None for other values."""
        const = self.const_of(value)
        if const is None or not const.present or const.type.size > FOLD_ELEMENTS:
            return None
        return const.array(value)

    def sources(self, value: str) -> set[str]:
        """Return the declared values (inputs) that a value is computed from."""
        origins, seen, pending = set(), {value}, [value]
        while pending:
            name = pending.pop()
            node = self._producers.get(name)
            if node is None:
                origins |= set() if name in self.consts else {name}
                continue
            pending += [v for v in node.inputs if v and v not in seen]
            seen.update(node.inputs)
        return origins

    def fresh(self, hint: str) -> str:
        """Return a value name not taken: `hint` itself when it is free."""
        if self.scope is not None:
            return self.scope.fresh(hint)
        hint = hint[:LONGEST_NAME] or "v"
        name = hint
        while name in self._types:
            count = self._counts[hint] = self._counts.get(hint, 0) + 1
            name = f"{hint}.{count}"
        return name

    def declare(self, name: str, kind: TensorType) -> None:
        """Let a value that no node makes (an input) be known."""
        if name in self._types:
            raise UserError(f"value %{name} is defined twice")
        self._types[name] = kind

    def put(self, name: str, const: Const) -> str:
        """Add a constant under a name; return the name."""
        self.declare(name, const.type)
        self.consts[name] = const
        return name

    def constant(
        self, array: np.ndarray | Sequence[object] | float, like: np.dtype | None = None, hint: str = "c"
    ) -> str:
        """Return the name of a constant with this value and shape; small equal ones are one."""
        data = np.asarray(array) if like is None else np.asarray(array).astype(like)
        key = ("const", data.dtype.name, data.shape, data.tobytes()) if data.size <= SMALL else None
        if key is not None and key in self._made:
            return self._made[key][0]
        name = self.put(self.fresh(hint), Const.of(data))
        if key is not None:
            self._made[key] = (name,)
        return name

    def add(self, op: str, *inputs: str, hint: str = "", fold: bool = True, **attrs: object) -> str:
        """Return the result of an op that has one; see `adds`."""
        return self.adds(op, *inputs, hint=hint, fold=fold, **attrs)[0]

    def adds(
        self, op: str, *inputs: str, hint: str = "", fold: bool = True, **attrs: object
    ) -> tuple[str, ...]:
        """Return the results of an op: new values, constants, or operands that it does not change."""
        return self.make(op, inputs, freeze_attrs(attrs, op), hint, fold)

    def make(
        self, op: str, inputs: tuple[str, ...], frozen: Attrs, hint: str = "", fold: bool = True
    ) -> tuple[str, ...]:
        """Return the results of an op with attributes already frozen; see `adds`."""
        while inputs and not inputs[-1]:
            inputs = inputs[:-1]
        key = (op, inputs, tuple(frozen.items()))
        if key in self._made:
            return self._made[key]
        types = ops.infer(op, [self.type_of(v) if v else None for v in inputs], frozen)
        self._limit(op, types)
        shortcut = self._shortcut(op, inputs, frozen, types)
        if shortcut is None and fold and not ops.op_named(op).stored:
            shortcut = self._fold(op, inputs, frozen, types, hint)
        if shortcut is None:
            shortcut = self._node(op, inputs, frozen, types, hint)
        self._made[key] = shortcut
        return shortcut

    def rewrite(self, renames: Mapping[str, str]) -> Rewrite:
        """Return what was made here as a rule's answer."""
        return Rewrite(tuple(self.nodes), dict(renames), dict(self.consts))

    @staticmethod
    def _limit(op: str, types: tuple[TensorType, ...]) -> None:
        for kind in types:
            if kind.size > MAX_ELEMENTS:
                raise UserError(f"{op} makes a tensor {kind} of more than {MAX_ELEMENTS} elements")

    def _node(
        self, op: str, inputs: tuple[str, ...], attrs: Attrs, types: tuple[TensorType, ...], hint: str
    ) -> tuple[str, ...]:
        outputs: list[str] = []
        for kind in types:
            outputs.append(self.fresh(hint or op))
            self._types[outputs[-1]] = kind
        node = Node(
            outputs[0] if outputs else self.fresh(op), op, inputs, tuple(outputs), types, attrs, self.origin
        )
        self.nodes.append(node)
        self._producers.update((v, node) for v in outputs)
        return node.outputs

    def _shortcut(
        self, op: str, inputs: tuple[str, ...], attrs: Attrs, types: tuple[TensorType, ...]
    ) -> tuple[str, ...] | None:
        """Return the operand, where the op leaves it as it is."""
        if op not in _SHORTENED or not inputs or not inputs[0]:
            return None
        if op == "reshape":
            maker = self.producer(inputs[0], "reshape")
            if maker is not None:
                return self.make("reshape", maker.inputs[:1], attrs)
        same = self.type_of(inputs[0]) == types[0] and not attrs.get("rounds")
        if same and (
            op in ("reshape", "expand", "slice", "cast", "copy", "tile", "pad") and _plain_slice(op, attrs)
        ):
            return (inputs[0],)
        if same and op == "transpose" and attrs["perm"] == tuple(range(types[0].rank)):
            return (inputs[0],)
        if same and op == "concat" and len(inputs) == 1:
            return (inputs[0],)
        return self._by_one(op, inputs, types[0])

    def _by_one(self, op: str, inputs: tuple[str, ...], kind: TensorType) -> tuple[str, ...] | None:
        """Return the other operand of a product with ones."""
        if op != "mul":
            return None
        for ones, other in (inputs, inputs[::-1]):
            const = self.consts.get(ones)
            if const is None or const.loaded is None or self.type_of(other) != kind:
                continue
            if const.type.size and bool((const.loaded == 1).all()):
                return (other,)
        return None

    def _fold(
        self, op: str, inputs: tuple[str, ...], attrs: Attrs, types: tuple[TensorType, ...], hint: str
    ) -> tuple[str, ...] | None:
        """Return constants in place of an op on constants; None when it must stay a node."""
        operands = [self.const_of(v) if v else None for v in inputs]
        if any(c is None and v for c, v in zip(operands, inputs, strict=True)) or op == "ragged_split":
            return None
        given = [c for c in operands if c is not None]
        hint = f"{inputs[0]}.{op}" if op in _RELABEL else hint or op
        size = sum(t.size for t in types)
        if size > max(FOLD_ELEMENTS, sum(c.type.size for c in given)):
            return None
        if not self._multiplies(op, [None if c is None else c.type for c in operands], types, attrs):
            return None
        if not all(c.present for c in given):
            return tuple(self.put(self.fresh(hint), Const(t)) for t in types)
        limit = LAZY if op in _RELABEL else FOLD_ELEMENTS
        if max([size, *(c.type.size for c in given)]) <= limit and self._affords(types):
            arrays = ops.reference(op, [None if c is None else c.array() for c in operands], attrs)
            return tuple(self._known(_packed(a), hint) for a in arrays)
        if len(types) != 1:
            return None
        return (self.put(self.fresh(hint), Const(types[0], _later(op, operands, attrs))),)

    def _multiplies(
        self, op: str, operands: Sequence[TensorType | None], types: tuple[TensorType, ...], attrs: Attrs
    ) -> bool:
        """Return whether the products of an op on constants are few enough to be worked out now."""
        macs = ops.op_named(op).count(operands, types, attrs).macs
        self._folded_macs += macs if types and types[0].dtype.is_float else SLOW * macs
        return not macs or self._folded_macs <= FOLD_MACS

    def _affords(self, types: tuple[TensorType, ...]) -> bool:
        self._folded_bytes += sum(t.bytes for t in types if t.size > FREE)
        return self._folded_bytes <= FOLD_BYTES

    def _known(self, data: np.ndarray, hint: str) -> str:
        if data.size <= SMALL:
            return self.constant(data, hint=hint)
        return self.put(self.fresh(hint), Const.of(data))


def stays(op: str, inputs: tuple[str, ...], scope: RewriteScope) -> bool:
    """Return whether a builder over a scope makes the very node of an op on operands, and nothing less."""
    return (
        op not in _SHORTENED
        and all(inputs[-1:])  # operands that are left out at the end are not written
        and any(v and scope.const(v) is None for v in inputs)
    )


def _plain_slice(op: str, attrs: Attrs) -> bool:
    """Return whether an op keeps the order of elements, given that it keeps the type: a slice may not."""
    steps = attrs.get("steps", ())
    return op != "slice" or (isinstance(steps, tuple) and all(s == 1 for s in steps))


def _packed(array: np.ndarray) -> np.ndarray:
    """Return an array of the same shape, contiguous and holding its own elements only."""
    return np.array(array, order="C", copy=None if array.flags.owndata else True)


def _later(op: str, operands: Sequence[Const | None], attrs: Attrs) -> Loader:
    def load() -> np.ndarray:
        arrays = [None if c is None else c.array() for c in operands]
        return _packed(ops.reference(op, arrays, attrs)[0])

    return load
