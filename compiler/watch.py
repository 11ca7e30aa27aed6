"""Passes run one by one, with what each did: for those who write them."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .check import Known, check
from .foreign import apply, blamed
from .graph import Graph, Outcome
from .passes import Pass

_VALUE = re.compile(r"%[^\s,;:()]+")


@dataclass(frozen=True)
class Skipped:
    """Why a rule did not fire on nodes of an op, how many times, and the first of those nodes.

    Where values are named in the reason, and not always the same, they are `%*`.
    """

    rule: str
    op: str
    reason: str
    times: int
    node: str


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
    def skipped(self) -> list[Skipped]:
        """Return why rules did not fire: by rule, those that skipped most first, then by op and reason.

        Reasons that differ in the values that they name are one.
        """
        found: dict[tuple[str, str, str], list[Outcome]] = {}
        for o in self.outcomes:
            if o.reason:
                found.setdefault((o.rule, o.node.op, _VALUE.sub("%*", o.reason)), []).append(o)
        of_rule = Counter(o.rule for o in self.outcomes if o.reason)
        ranked = sorted(found, key=lambda key: (-of_rule[key[0]], key[0], -len(found[key]), key))
        return [_skipped(key, found[key]) for key in ranked]


def _skipped(key: tuple[str, str, str], outcomes: Sequence[Outcome]) -> Skipped:
    rule, op, reason = key
    said = {o.reason for o in outcomes}
    return Skipped(rule, op, said.pop() if len(said) == 1 else reason, len(outcomes), outcomes[0].node.name)


def watch(graph: Graph, pipeline: Sequence[Pass]) -> Iterator[Ran]:
    """Yield each pass as it has run, its graph checked; what a pass raises gets a note that names it."""
    known: Known = {}
    for step in pipeline:
        start = time.perf_counter()
        try:
            with blamed(step):
                after, outcomes = apply(step, graph)
                seconds = time.perf_counter() - start
                check(after, step.name, known)
        except Exception as error:
            error.add_note(f"in pass {step.spelling}")
            raise
        yield Ran(step, graph, after, tuple(outcomes), seconds)
        graph = after


def changes(before: Graph, after: Graph) -> dict[str, tuple[int, int]]:
    """Return the nodes of each op, before and after, of the ops whose number changed."""
    old, new = (Counter(node.op for node in graph.nodes) for graph in (before, after))
    return {op: (old[op], new[op]) for op in sorted(old | new) if old[op] != new[op]}
