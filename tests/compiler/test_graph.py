"""The graph: order, edges, rewriting."""

from __future__ import annotations

import numpy as np
import pytest
from mtia_emu.compiler.graph import Const, Graph, Match, Node, Rewrite, RuleOutcome, Skip
from mtia_emu.compiler.rewrite import Draft

from mtia_emu.errors import UserError
from mtia_emu.types import FP32, TensorType

T = TensorType(FP32, (2,))


def node(op: str, output: str, *inputs: str, **attrs: object) -> Node:
    return Node(output, op, inputs, (output,), (T,), attrs)  # type: ignore[arg-type]


def chain(*nodes: Node, outputs: tuple[str, ...] = ("y",), consts: dict[str, Const] | None = None) -> Graph:
    return Graph("g", nodes, {"x": T}, outputs, consts)


def test_nodes_are_put_in_order() -> None:
    graph = chain(node("neg", "y", "b"), node("add", "b", "a", "x"), node("exp", "a", "x"))
    assert [n.name for n in graph.nodes] == ["a", "b", "y"]


def test_a_given_order_that_is_right_is_kept() -> None:
    nodes = (node("exp", "b", "x"), node("neg", "a", "x"), node("add", "y", "a", "b"))
    assert chain(*nodes).nodes == nodes


def test_edges_carry_operand_positions() -> None:
    graph = chain(node("exp", "a", "x"), node("mul", "y", "a", "a"))
    assert sorted(graph.network.edges(keys=True)) == [("a", "y", 0), ("a", "y", 1)]
    assert [(n.name, i) for n, i in graph.users("a")] == [("y", 0), ("y", 1)]
    assert graph.before("y") == {"a"}
    assert graph.after("a") == {"y"}


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([node("exp", "y", "b"), node("neg", "b", "y")], "cycle"),
        ([node("exp", "y", "z")], "exp y: operand %z is not defined"),
        ([node("exp", "y", "x"), node("neg", "y", "x")], "two nodes are named 'y'"),
        ([node("exp", "x", "x")], "value %x is defined twice"),
        ([node("exp", "a", "x")], "output %y is not defined"),
    ],
)
def test_unlawful_graphs_are_refused(nodes: list[Node], words: str) -> None:
    with pytest.raises(UserError, match=words):
        chain(*nodes)


def test_attributes_are_read_only_sorted_and_plain() -> None:
    made = node("slice", "y", "x", starts=[0], ends=np.array([1]), steps=(np.int64(1),))
    assert list(made.attrs.items()) == [("ends", (1,)), ("starts", (0,)), ("steps", (1,))]
    with pytest.raises(TypeError):
        made.attrs["ends"] = 2  # type: ignore[index]
    with pytest.raises(UserError, match="an attribute is int"):
        node("slice", "y", "x", starts={})


def test_constants_are_lazy_or_absent() -> None:
    reads: list[int] = []

    def load() -> np.ndarray:
        reads.append(1)
        return np.ones(2, np.float32)

    lazy = Const(T, load)
    assert lazy.present and not reads
    assert lazy.array().tolist() == [1, 1] and reads == [1]
    with pytest.raises(UserError, match=r"%w : fp32.2. has no data"):
        Const(T).array("w")
    with pytest.raises(UserError, match="holds data of float64"):
        Const(T, lambda: np.ones(2)).array("w")


def double_neg(one: Node, match: Match) -> Rewrite | Skip | None:
    if one.op != "neg":
        return None
    inner = match.producer(one.inputs[0], "neg")
    if inner is None:
        return Skip("its operand is no neg")
    return Rewrite(renames={one.output: inner.inputs[0]})


@pytest.mark.parametrize("lazy", [False, True])
def test_constants_do_not_change_in_place(lazy: bool) -> None:
    data = np.ones(3, np.float32)
    const = Const(TensorType(FP32, (3,)), (lambda: data) if lazy else data)
    with pytest.raises(ValueError, match="read-only"):
        const.array()[0] = 2
    data[0] = 3  # whoever made it still may
    assert const.array()[0] == 3


def test_a_rule_rewrites_and_says_why_not() -> None:
    graph = chain(node("neg", "a", "x"), node("neg", "b", "a"), node("exp", "y", "b"))
    log: list[RuleOutcome] = []
    after = graph.rewrite(double_neg, log)
    assert after.nodes == (node("exp", "y", "x"),)
    assert [(o.node.name, o.reason) for o in log] == [("a", "its operand is no neg"), ("b", "")]


def test_an_output_keeps_its_name() -> None:
    graph = chain(node("exp", "w", "x"), node("neg", "a", "w"), node("neg", "y", "a"))
    (only,) = graph.rewrite(double_neg).nodes
    assert (only.op, only.inputs, only.outputs) == ("exp", ("x",), ("y",))
    graph = chain(node("neg", "a", "x"), node("neg", "y", "a"))
    (only,) = graph.rewrite(double_neg).nodes
    assert (only.op, only.inputs, only.outputs) == ("copy", ("x",), ("y",))


def test_a_value_that_is_two_outputs_is_copied() -> None:
    graph = chain(node("exp", "w", "x"), node("neg", "a", "w"), node("neg", "y", "a"), outputs=("w", "y"))
    after = graph.rewrite(double_neg)
    assert after.outputs == ("w", "y")
    assert [(n.op, n.output) for n in after.nodes] == [("exp", "w"), ("copy", "y")]


def test_a_rewrite_may_add_nodes_and_constants() -> None:
    def rule(one: Node, match: Match) -> Rewrite | None:
        if one.op != "exp":
            return None
        name = match.fresh("c")
        made = node("mul", match.fresh("m"), one.inputs[0], name)
        return Rewrite([made], {one.output: made.output}, {name: Const(T, np.ones(2, np.float32))})

    after = chain(node("exp", "a", "x"), node("neg", "y", "a")).rewrite(rule)
    assert [n.op for n in after.nodes] == ["mul", "neg"]
    assert len(after.consts) == 1


def test_a_rewrite_that_loses_a_value_is_refused() -> None:
    graph = chain(node("exp", "a", "x"), node("neg", "y", "a"))
    with pytest.raises(UserError, match=r"rewriting a \(exp\) leaves %a undefined"):
        graph.rewrite(lambda n, m: Rewrite() if n.op == "exp" else None)


def test_prune_drops_dead_nodes_and_constants() -> None:
    consts = {"c": Const(T), "d": Const(T)}
    graph = chain(node("add", "y", "x", "c"), node("add", "dead", "x", "d"), consts=consts).prune()
    assert [n.name for n in graph.nodes] == ["y"]
    assert list(graph.consts) == ["c"]
    assert graph.prune() is graph


def test_fresh_names_are_new() -> None:
    graph = chain(node("exp", "y", "x"))
    names = {graph.fresh("y") for _ in range(10)}
    assert len(names) == 10 and not names & {"x", "y"}


def test_a_node_that_reads_a_value_twice_reads_its_new_name_twice() -> None:
    graph = chain(node("neg", "a", "x"), node("neg", "b", "a"), node("add", "y", "b", "b"))
    (only,) = graph.rewrite(double_neg).nodes
    assert only.inputs == ("x", "x")


def test_what_masks_may_be_is_known_by_its_last_dimension() -> None:
    match = Match(Draft(chain(node("neg", "y", "x"))))
    assert match.widths("neg", "exp") == {match.type_of("x").shape[-1]} and not match.widths("exp")


def test_a_sweep_over_five_thousand_nodes() -> None:
    nodes, last = [], "x"
    for i in range(5000):
        nodes.append(node("neg", f"n{i}", last))
        last = f"n{i}"
    graph = chain(*nodes, outputs=("n4999",))
    after = graph.rewrite(double_neg)
    assert len(after.nodes) == 1
