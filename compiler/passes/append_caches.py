"""States that grow in place: caches of keys and values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from ..graph import Graph, Match, Node, Rewrite, RuleOutcome, Skip
from ..ops.base import integer
from .base import Rule, Rules


@dataclass(frozen=True)
class AppendCaches(Rules):
    """Make concat(past, new), of an input of the model to one of its outputs, the op `append`, in place.

    The output is then the next value of the past, a state of the graph: it begins where the past lies, and
    only what is new is written. That is so where the caller leaves room behind the past and hands in one
    memory for both, as serving runtimes do with a cache of keys and values; the report says so. The past must
    have no other reader.
    """

    rounds: ClassVar[int] = 1  # what it makes, it does not match

    @property
    def rules(self) -> tuple[Rule, ...]:
        return (_append,)

    def apply(self, graph: Graph, most: int | None = None) -> tuple[Graph, list[RuleOutcome]]:
        """Return the graph after the first `most` rewrites, each with its state, and what the rules did."""
        appended, outcomes = super().apply(graph, most)
        known = {node.name for node in graph.nodes if node.op == "append"}
        new = {n.output: n.inputs[0] for n in appended.nodes if n.op == "append" and n.name not in known}
        return appended.with_states({**graph.states, **new}), outcomes


def _append(node: Node, match: Match) -> Rewrite | Skip | None:
    if node.op != "concat" or len(node.inputs) < 2 or not match.is_output(node.output):
        return None
    past = node.inputs[0]
    if not match.is_input(past):
        return Skip("its first operand is no input of the model")
    if match.only_user(past) is not node or past in node.inputs[1:]:
        return Skip(f"%{past} has other readers")
    if not match.type_of(past).shape[integer(node.attrs, "axis")]:
        return Skip("there is no past")
    return Rewrite((replace(node, op="append"),))
