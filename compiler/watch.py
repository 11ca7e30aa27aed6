"""Passes run one by one, with what each did: for those who write them."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .check import Known, check_made
from .foreign import apply, blamed
from .graph import Graph, RuleOutcome
from .nodes import Const
from .passes import Pass

SMALL = 4096  # elements of a constant whose numbers are compared
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
class PassRun:
    """A pass that ran: the graph before and after it, and what its rules did, where it is made of rules."""

    step: Pass
    before: Graph
    after: Graph
    outcomes: tuple[RuleOutcome, ...]
    seconds: float

    @property
    def fired(self) -> int:
        """Return how many rewrites there were."""
        return sum(not outcome.reason for outcome in self.outcomes)

    @property
    def changed(self) -> bool:
        """Return whether the pass did anything to the graph but name values, and whatever its rules say."""
        return not same(self.before, self.after)

    @property
    def skipped(self) -> list[Skipped]:
        """Return why rules did not fire: by rule, those that skipped most first, then by op and reason.

        Reasons that differ in the values that they name are one.
        """
        by_reason: dict[tuple[str, str, str], list[RuleOutcome]] = {}
        for o in self.outcomes:
            if o.reason:
                by_reason.setdefault((o.rule, o.node.op, _VALUE.sub("%*", o.reason)), []).append(o)
        of_rule = Counter(o.rule for o in self.outcomes if o.reason)
        ranked = sorted(by_reason, key=lambda key: (-of_rule[key[0]], key[0], -len(by_reason[key]), key))
        return [_skipped(key, by_reason[key]) for key in ranked]


def _skipped(key: tuple[str, str, str], outcomes: Sequence[RuleOutcome]) -> Skipped:
    rule, op, reason = key
    said = {o.reason for o in outcomes}
    return Skipped(rule, op, said.pop() if len(said) == 1 else reason, len(outcomes), outcomes[0].node.name)


def watch(graph: Graph, pipeline: Sequence[Pass]) -> Iterator[PassRun]:
    """Yield each pass as it has run, its graph checked; what a pass raises gets a note that names it."""
    known: Known = {}
    for step in pipeline:
        start = time.perf_counter()
        try:
            with blamed(step):
                after, outcomes = apply(step, graph)
                seconds = time.perf_counter() - start
                check_made(graph, after, step.name, step.floats, known)
        except Exception as error:
            error.add_note(f"in pass {step.spelling}")
            raise
        yield PassRun(step, graph, after, tuple(outcomes), seconds)
        graph = after


def same(one: Graph, other: Graph) -> bool:
    """Return whether two graphs hold the same nodes between the same inputs, constants and outputs.

    What values and nodes are called makes no difference, nor does the order of nodes.
    """
    if one is other:
        return True
    numbers: dict[object, int] = {}
    return _form(one, numbers) == _form(other, numbers)


def _form(graph: Graph, numbers: dict[object, int]) -> tuple[list[int], Counter[int]]:
    """Return the outputs of a graph and how often it has each value, by numbers that two graphs share.

    A value goes by what makes it and by the numbers of the operands.
    """

    def number(*key: object) -> int:
        return numbers.setdefault(key, len(numbers))

    known = {"": number()}
    known |= {name: number("input", name, kind) for name, kind in graph.inputs.items()}
    known |= {name: number("const", *_content(name, const)) for name, const in graph.consts.items()}
    counts = Counter(known.values())
    for node in graph.nodes:
        operands = tuple(known[v] for v in node.inputs)
        for place, value in enumerate(node.outputs):
            known[value] = number(node.op, operands, node.types, repr(dict(node.attrs)), place)
            counts[known[value]] += 1
    return [known[v] for v in graph.outputs], counts


def _content(name: str, const: Const) -> tuple[object, ...]:
    """Return what tells a constant from another: of large ones which array it is, not what is in it."""
    data = const.loaded
    if data is not None and data.size <= SMALL:
        return const.type, data.tobytes()
    return const.type, id(const.data) if const.present else name


def changes(before: Graph, after: Graph) -> dict[str, tuple[int, int]]:
    """Return the nodes of each op, before and after, of the ops whose number changed."""
    old, new = (Counter(node.op for node in graph.nodes) for graph in (before, after))
    return {op: (old[op], new[op]) for op in sorted(old | new) if old[op] != new[op]}
