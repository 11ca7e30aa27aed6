"""What passes did, rule by rule."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import pytest
from mtia_emu.compiler.graph import Match, Node, Rewrite, Skip
from mtia_emu.compiler.passes import Rules
from mtia_emu.compiler.rewrite import Rule, rule_name
from mtia_emu.compiler.text import parse
from mtia_emu.compiler.watch import same, watch

GRAPH = """graph g {
  in %x : fp32[4]
  %a : fp32[4] = neg(%x)
  %b : fp32[4] = exp(%a)
  %c : fp32[4] = exp(%b)
  out %c
}
"""


def _never(node: Node, match: Match) -> Rewrite | Skip | None:
    return Skip("it is exp") if node.op == "exp" else None


def _some(node: Node, match: Match, op: str) -> Rewrite | Skip | None:
    return Skip("it is neg") if node.op == op else None


class _Object:
    def rule(self, node: Node, match: Match) -> Rewrite | Skip | None:
        return Skip(f"it reads %{node.inputs[0]}")

    def __call__(self, node: Node, match: Match) -> Rewrite | Skip | None:
        return None


@dataclass(frozen=True)
class Lazy(Rules):
    """Never fires."""

    @property
    def rules(self) -> tuple[Rule, ...]:
        return (partial(_some, op="neg"), _never, _Object().rule)


def test_reasons_are_counted_by_rule_and_op_those_that_skipped_most_first() -> None:
    (ran,) = watch(parse(GRAPH), (Lazy(),))
    assert [(x.rule, x.op, x.reason, x.times, x.node) for x in ran.skipped] == [
        ("object", "exp", "it reads %*", 2, "b"),
        ("object", "neg", "it reads %x", 1, "a"),
        ("never", "exp", "it is exp", 2, "b"),
        ("some", "neg", "it is neg", 1, "a"),
    ]
    assert [o.rule for o in Lazy().outcomes(parse(GRAPH))] == [
        *("some", "never", "never"),
        *("object", "object", "object"),
    ]


def test_a_rule_is_called_by_its_function_or_class() -> None:
    assert rule_name(_never) == "never" and rule_name(partial(partial(_some), op="")) == "some"
    assert rule_name(_Object()) == "object" and rule_name(_Object().rule) == "object"


@pytest.mark.parametrize(
    ("old", "new", "alike"),
    [
        ("", "", True),
        ("%b", "%other", True),  # only a name
        ("%b : fp32[4] = exp(%a)", "%b : fp32[4] = abs(%a)", False),
        ("exp(%b)", "exp(%a)", False),
        ("exp(%b)", "exp(%b)\n  %d : fp32[4] = exp(%b)", False),  # a node twice
        ("[1.0]", "[2.0]", False),
        ("const %k : fp32[1] = [1.0]\n", "", False),
    ],
)
def test_graphs_are_the_same_whatever_their_values_are_called(old: str, new: str, alike: bool) -> None:
    graph = GRAPH.replace("  %a", "  const %k : fp32[1] = [1.0]\n  %a", 1)
    assert old in graph
    assert same(parse(graph), parse(graph.replace(old, new))) is alike


def test_a_rule_that_puts_the_same_node_back_changes_nothing() -> None:
    @dataclass(frozen=True)
    class Again(Rules):
        rounds: ClassVar[int] = 1

        @property
        def rules(self) -> tuple[Rule, ...]:
            return (lambda node, match: Rewrite((replace(node),)),)

    (ran,) = watch(parse(GRAPH), (Again(),))
    assert ran.fired == 3 and not ran.changed
