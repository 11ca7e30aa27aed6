"""Embedding bags of many tables as few batched look-ups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..graph import Match, Node, Rewrite, Skip
from .base import Rule, Rules, building, is_read


@dataclass(frozen=True)
class MergeTables(Rules):
    """Make embedding bags of tables of one width and type, which pool alike, one op: `embedding_bags`.

    One launch then looks up all tables, and the PEs that one table leaves idle work on the next. Bags of
    which one needs another's result stay apart. `max_tables` bounds the tables of one op.
    """

    prunes: ClassVar[bool] = True
    rounds: ClassVar[int] = 1  # what it makes, it does not match

    max_tables: int = 1024

    @property
    def rules(self) -> tuple[Rule, ...]:
        return (self._merge,)

    def _merge(self, node: Node, match: Match) -> Rewrite | Skip | None:
        if node.op != "embedding_bag" or not is_read(node, match):
            return None
        reason = _why_not(node, match)
        if reason:
            return Skip(reason)
        kind = _alike(node, match)
        group = [n for n in match.nodes("embedding_bag") if is_read(n, match) and _alike(n, match) == kind]
        group = [n for n in group if not _why_not(n, match)][: self.max_tables]
        return _merged(node, group, match) if len(group) > 1 else Skip("no other table is like it")


def _alike(node: Node, match: Match) -> tuple[object, ...]:
    """Return what bags must have in common to be one op: width, types and mode."""
    table, *_ = kinds = [match.type_of(v) for v in node.inputs]
    return table.shape[1], table.dtype, [k.dtype for k in kinds[3:]], tuple(node.attrs.items())


def _why_not(node: Node, match: Match) -> str:
    """Return why a bag stays by itself; "" where it need not."""
    if match.type_of(node.inputs[0]).dtype.name == "fp64" or not match.type_of(node.inputs[1]).size:
        return "a core looks its rows up"
    seen, work = set[str](), list(node.inputs)
    while work:
        maker = match.producer(work.pop())
        if maker is None or maker.name in seen:
            continue
        if maker.op in ("embedding_bag", "embedding_bags"):
            return f"it needs the rows that %{maker.output} looks up"
        seen.add(maker.name)
        work += maker.inputs
    return ""


def _merged(node: Node, group: list[Node], match: Match) -> Rewrite:
    """Return one op in place of all bags."""
    b = building(node, match)
    operands = [v for bag in group for v in bag.inputs]
    attrs: dict[str, Any] = dict(node.attrs) | ({"weighted": True} if len(node.inputs) > 3 else {})
    results = b.adds("embedding_bags", *operands, fold=False, **attrs)
    return b.rewrite({bag.output: value for bag, value in zip(group, results, strict=True)})
