"""Where constants lie: the matrix unit reads weights k innermost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mtia_emu.types import TensorType

from ..graph import Const, Match, Node, Rewrite, Skip
from .base import Rule, Rules, become, building


@dataclass(frozen=True)
class Layout(Rules):
    """Store the constant right side of a product transposed, [n, k].

    Its tiles then come in long runs and are not turned on the way.
    """

    rounds: ClassVar[int] = 1  # what it makes, it does not match

    @property
    def rules(self) -> tuple[Rule, ...]:
        return (_weight,)


def _weight(node: Node, match: Match) -> Rewrite | Skip | None:
    if node.op not in ("matmul", "matmul_map") or (const := match.const(node.inputs[1])) is None:
        return None
    name = node.inputs[1]
    if len(match.users(name)) > 1:
        return Skip(f"%{name} has other users")
    rank = const.type.rank
    perm = (*range(rank - 2), rank - 1, rank - 2)
    shape = tuple(const.type.shape[p] for p in perm)
    b = building(node, match)
    stored = b.put(
        b.fresh(f"{name}.kn"), Const(TensorType(const.type.dtype, shape), _turned(const, name, perm))
    )
    view = b.add("transpose", stored, perm=perm, fold=False)
    return become(node, b, b.add(node.op, node.inputs[0], view, *node.inputs[2:], fold=False, **node.attrs))


def _turned(const: Const, name: str, perm: tuple[int, ...]) -> np.ndarray | Callable[[], np.ndarray] | None:
    if not const.present:
        return None
    return lambda: np.ascontiguousarray(const.array(name).transpose(perm))
