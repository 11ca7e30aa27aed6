"""Passes run one by one, with what each did: for those who write them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .check import Known, check
from .graph import Graph, Outcome
from .passes import Pass, Rules


@dataclass(frozen=True)
class Ran:
    """A pass that ran: the graph before and after it, and what its rules did, where it is made of rules."""

    step: Pass
    before: Graph
    after: Graph
    outcomes: tuple[Outcome, ...]
    seconds: float

    @property
    def fired(self) -> int:
        """Return how many rewrites there were."""
        return sum(not outcome.reason for outcome in self.outcomes)

    @property
    def changed(self) -> bool:
        """Return whether the pass did anything to the graph."""
        if self.outcomes or self.after is self.before:
            return self.fired > 0
        old, new = self.before, self.after
        return (old.nodes, old.outputs, dict(old.inputs)) != (new.nodes, new.outputs, dict(new.inputs))

    @property
    def skipped(self) -> Counter[tuple[str, str]]:
        """Return how often each reason was given for not rewriting, by the op of the node."""
        return Counter((o.node.op, o.reason) for o in self.outcomes if o.reason)


def watch(graph: Graph, pipeline: Sequence[Pass]) -> Iterator[Ran]:
    """Yield each pass as it has run, its graph checked; what a pass raises gets a note that names it."""
    known: Known = {}
    for step in pipeline:
        start = time.perf_counter()
        try:
            after, outcomes = step.apply(graph) if isinstance(step, Rules) else (step(graph), [])
        except Exception as error:
            error.add_note(f"in pass {step.spelling}")
            raise
        seconds = time.perf_counter() - start
        check(after, step.name, known)
        yield Ran(step, graph, after, tuple(outcomes), seconds)
        graph = after


def changes(before: Graph, after: Graph) -> dict[str, tuple[int, int]]:
    """Return the nodes of each op, before and after, of the ops whose number changed."""
    old, new = (Counter(node.op for node in graph.nodes) for graph in (before, after))
    return {op: (old[op], new[op]) for op in sorted(old | new) if old[op] != new[op]}
