"""Where constants lie: the matrix unit reads weights k innermost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from mtia_emu.types import TensorType

from ..build import NodeBuilder
from ..graph import Const, Match, Node, Rewrite, Skip
from ..ops.expert_matmul import ROUTED_PRODUCTS
from .base import Rule, Rules, become, building

PRODUCTS = ("matmul", "matmul_map", "matmul_packed", *ROUTED_PRODUCTS)


@dataclass(frozen=True)
class SetWeightLayout(Rules):
    """Store the constant right side of products transposed, [n, k].

    Its tiles then come in long runs and are not turned on the way. A constant that others read too stays.
    """

    rounds: ClassVar[int] = 1  # what it makes, it does not match

    @property
    def rules(self) -> tuple[Rule, ...]:
        return (_Turner().rule,)


@dataclass
class _Turner:
    """The rule for one graph; `stored` has the constants turned so far, by old name.

    `turns` says of constants whether all that read them are right sides: turning one for some leaves it so.
    """

    stored: dict[str, str] = field(default_factory=dict)
    turns: dict[str, bool] = field(default_factory=dict)

    def rule(self, node: Node, match: Match) -> Rewrite | Skip | None:
        """x @ constant."""
        if node.op not in (*PRODUCTS, "conv") or (const := match.const(node.inputs[1])) is None:
            return None
        x, name, *extras = node.inputs
        if name not in self.turns:
            alone = not match.is_output(name)
            self.turns[name] = alone and all(_right_side(user, name) for user in match.users(name))
        if not self.turns[name]:
            return Skip(f"%{name} has other users")
        perm = _stored(node, const)
        b = building(node, match)
        back = tuple(perm.index(axis) for axis in range(len(perm)))
        view = b.add("transpose", self._turned(b, name, const, perm), perm=back, fold=False)
        return become(node, b, b.add(node.op, x, view, *extras, fold=False, **node.attrs))

    def _turned(self, b: NodeBuilder, name: str, const: Const, perm: tuple[int, ...]) -> str:
        if name not in self.stored:
            kind = TensorType(const.type.dtype, tuple(const.type.shape[p] for p in perm))
            data = _later(const, name, perm) if const.present else None
            self.stored[name] = b.put(b.fresh(f"{name}.kn"), Const(kind, data))
        return self.stored[name]


def _stored(node: Node, const: Const) -> tuple[int, ...]:
    """Return the order in which the axes of a constant are stored, the innermost last."""
    rank = const.type.rank
    if node.op != "conv":
        return (*range(rank - 2), rank - 1, rank - 2)
    if const.type.shape[1] == 1:  # of a depthwise one a tap has a weight for each channel
        return (*range(2, rank), 1, 0)
    return (0, *range(2, rank), 1)


def _right_side(user: Node, name: str) -> bool:
    """Return whether a node reads a value as the right side of a product only."""
    return user.op in (*PRODUCTS, "conv") and user.inputs[1] == name and user.inputs.count(name) == 1


def _later(const: Const, name: str, perm: tuple[int, ...]) -> Callable[[], np.ndarray]:
    return lambda: np.ascontiguousarray(const.array(name).transpose(perm))
