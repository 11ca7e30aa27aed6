"""What a pass is: a frozen value whose fields are its options and whose call makes a graph of a graph."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np

from mtia_emu.types import DType, TensorType

from ..build import NodeBuilder
from ..graph import Graph, Match, Node, Rewrite, RuleOutcome, Skip
from ..rewrite import rule_name

Rule = Callable[[Node, Match], "Rewrite | Skip | None"]
SMALLEST, LARGEST = 2.0**-14, 65504.0  # of the normal numbers of fp16
MADE = 1 << 22  # elements of a constant that a pass makes: one that shapes alone ask for may have no end
ROUNDS = 8  # times a set of rules is offered the graph before it counts as settled
_WORDS = re.compile("(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def pass_name(kind: type[Pass]) -> str:
    """Return the name that the command line uses for a pass: `fuse-tails` for the class `FuseTails`."""
    return _WORDS.sub("-", kind.__name__).lower()


@dataclass(frozen=True)
class Pass:
    """A step of lowering. It may assume a lawful graph and leaves one; the pipeline checks that."""

    @property
    def name(self) -> str:
        """Return the name that the command line uses."""
        return pass_name(type(self))

    @property
    def spelling(self) -> str:
        """Return the pass as a pipeline's text has it: its name, and the options that are set."""
        changed = [f for f in fields(self) if getattr(self, f.name) != f.default]
        values = [(f.name.replace("_", "-"), getattr(self, f.name)) for f in changed]
        options = ",".join(f"{k}={str(v).lower() if isinstance(v, bool) else v}" for k, v in values)
        return f"{self.name}{{{options}}}" if options else self.name

    @property
    def tolerance(self) -> float:
        """Return how far off results may be by what the pass is for, as a share of an output's largest value.

        What rounding to the types of its result explains comes on top of it; most passes change nothing else.
        """
        return 0.0

    @property
    def floats(self) -> str:
        """Return the number format that the pass gives a graph's floats; "" where it leaves it as it is."""
        return ""

    def __call__(self, graph: Graph) -> Graph:
        """Return the graph after this pass."""
        raise NotImplementedError


@dataclass(frozen=True)
class Rules(Pass):
    """A pass made of rewrite rules, offered every node until none fires, `rounds` times at most.

    With `prunes` nodes that are left without a reader go at the end: those that were joined into another.
    """

    rounds: ClassVar[int] = ROUNDS
    prunes: ClassVar[bool] = False

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Return the rules, in the order in which a node is offered to them."""
        raise NotImplementedError

    def __call__(self, graph: Graph) -> Graph:
        return self.apply(graph)[0]

    def apply(self, graph: Graph, most: int | None = None) -> tuple[Graph, list[RuleOutcome]]:
        """Return the graph after the first `most` rewrites (None: all), and what the rules did, in order.

        Of the reasons for not firing only those of the last round are kept: what an earlier round skipped may
        have fired since.
        """
        rules, fired, skipped = self.rules, list[RuleOutcome](), list[RuleOutcome]()

        def first(node: Node, match: Match) -> Rewrite | None:
            reasons = []
            for rule in rules if most is None or len(fired) < most else ():
                answer = rule(node, match)
                if isinstance(answer, Rewrite):
                    fired.append(RuleOutcome(node, rule=rule_name(rule)))
                    return answer
                reasons += [(answer.reason, rule_name(rule))] if isinstance(answer, Skip) else []
            skipped.extend(RuleOutcome(node, *why) for why in reasons)
            return None

        for _ in range(self.rounds if rules else 0):
            before = graph
            skipped.clear()
            graph = graph.rewrite(first)
            if graph is before:
                break
        return graph.prune() if self.prunes and fired else graph, fired + skipped

    def outcomes(self, graph: Graph) -> list[RuleOutcome]:
        """Return what each rule would do to the graph, once: where it fires and why it does not."""
        log: list[RuleOutcome] = []
        for rule in self.rules:
            graph.rewrite(rule, log)
        return log


def is_read(node: Node, match: Match) -> bool:
    """Return whether anything reads a node's result: one that was joined into another has no reader left."""
    return bool(match.users(node.output)) or match.is_output(node.output)


def scalar(match: Match, value: str) -> float | None:
    """Return the value of a constant that holds one number, else None."""
    const = match.const(value)
    if const is None or not const.present or const.type.size != 1:
        return None
    return float(np.asarray(const.array(value)).reshape(-1)[0])


def either(node: Node) -> tuple[tuple[str, str], tuple[str, str]]:
    """Return the two operands of a commutative op, in both orders."""
    a, b = node.inputs
    return (a, b), (b, a)


def strip_casts(match: Match, value: str, to: DType | None = None) -> str:
    """Return the value behind casts between floats that lose nothing, or that round to the type `to`."""
    node = match.producer(value, "cast")
    while node is not None:
        before, after = match.type_of(node.inputs[0]).dtype, node.type.dtype
        if not (before.is_float and after.is_float) or (before.bits >= after.bits and after != to):
            break
        value = node.inputs[0]
        node = match.producer(value, "cast")
    return value


def is_row(kind: TensorType, columns: int) -> bool:
    """Return whether a tensor has one value a column: [columns], behind any dimensions of 1."""
    return kind.rank > 0 and kind.shape == (1,) * (kind.rank - 1) + (columns,)


def is_held(value: float) -> bool:
    """Return whether every float format of 16 bits and more holds a number without losing its digits."""
    return value == 0.0 or SMALLEST <= abs(value) <= LARGEST


def become(node: Node, builder: NodeBuilder, value: str) -> Rewrite:
    """Return the rewrite in which `value` takes the place of the node's result."""
    return builder.rewrite({node.output: value})


def too_many(count: int) -> Skip | None:
    """Return why no constant of so many elements is made; None for what is."""
    return (
        Skip(f"it takes a constant of {count} elements (at most {MADE} are made)") if count > MADE else None
    )


def building(node: Node, match: Match) -> NodeBuilder:
    """Return a builder of nodes that come from this one."""
    builder = NodeBuilder(match)
    builder.origin = node.origin
    return builder
