"""`reduce`: the smallest part of a model with which a command still fails."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from click.testing import Result
from hypothesis import given, settings
from hypothesis import strategies as st
from mtia_emu.compiler import text
from mtia_emu.compiler.check import check
from mtia_emu.compiler.graph_file import read_graph
from onnx import TensorProto, helper

from mtia_emu import testing
from mtia_emu.testing.shrink import ddmin, part, shrink

Cli = Callable[..., Result]
Refused = Callable[..., str]
GRAPH = """graph t {
  in %x : fp32[2,80]
  const %w : fp32[80] = absent
  const %b : fp32[2] = [1.5, 2.5]
  %a : fp32[2,80] = add(%x, %w)
  %e : fp32[2,80] = exp(%a)
  %s : fp32[2] = reduce_sum(%e) {axes=[1]}
  %t : fp32[2] = add(%s, %b)
  %u : fp32[2,80] = neg(%e)
  out %t
  out %u
}
"""


def failing(words: str, code: int = 3) -> list[str]:
    """Return a command that fails where a file holds all of some words."""
    wanted = words.encode().split()
    test = (
        "import sys; b = open(sys.argv[1], 'rb').read(); "
        f"sys.exit({code} if all(w in b for w in {wanted!r}) else 0)"
    )
    return [sys.executable, "-c", test]


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    path = tmp_path / "t.ir"
    path.write_text(GRAPH)
    return path


@settings(max_examples=60)
@given(st.sets(st.integers(0, 30)), st.integers(0, 40))
def test_ddmin_finds_exactly_what_is_needed(needed: set[int], size: int) -> None:
    items = list(range(max(size, max(needed, default=0) + 1)))
    found = ddmin(items, lambda some: needed <= set(some))
    assert set(found) == needed or (len(found) == 1 and needed <= set(found))


@settings(max_examples=40)
@given(testing.graphs(), st.data())
def test_every_part_of_a_graph_is_a_lawful_graph(graph: object, data: st.DataObject) -> None:
    names = [node.name for node in graph.nodes if node.op != "ragged_split"]  # type: ignore[attr-defined]
    some = data.draw(st.sets(st.sampled_from(names), min_size=1)) if names else set()
    try:
        made = check(part(graph, some))  # type: ignore[arg-type]
    except Exception as error:
        assert "ragged_split" in str(error)
    else:
        assert {node.name for node in made.nodes} == some


def test_a_graph_shrinks_to_the_nodes_that_fail() -> None:
    small = shrink(text.parse(GRAPH), lambda g: {"exp", "reduce_sum"} <= {n.op for n in g.nodes})
    assert [n.op for n in small.nodes] == ["exp", "reduce_sum"]
    assert list(small.inputs) == ["a"] and small.outputs == ("s",) and not small.consts


def test_constants_become_zeros() -> None:
    small = shrink(text.parse(GRAPH), lambda g: "%s, %b" in text.dump(g))
    assert [n.op for n in small.nodes] == ["add"] and not small.consts["b"].array().any()


def test_the_command_runs_on_smaller_and_smaller_texts(cli: Cli, graph: Path, tmp_path: Path) -> None:
    out = tmp_path / "small.ir"
    done = cli("reduce", graph, "-o", out, "--", *failing("exp("), "{}")
    assert done.exit_code == 0, done.stderr
    assert [n.op for n in read_graph(out).nodes] == ["exp"]
    assert "5 nodes -> 1" in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["small.ir", "t.ir"]


def test_an_onnx_model_shrinks(cli: Cli, tmp_path: Path) -> None:
    path, out = tmp_path / "m.onnx", tmp_path / "s.onnx"
    nodes = [
        helper.make_node("Add", ["x", "w"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Softmax", ["b"], ["c"]),
        helper.make_node("Mul", ["c", "a"], ["d"]),
    ]
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, 3]) for n in ("x", "d")]
    weight = helper.make_tensor("w", TensorProto.FLOAT, [3], [1, 2, 3])
    made = helper.make_graph(nodes, "m", value[:1], value[1:], [weight])
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    done = cli("reduce", path, "-o", out, "--", *failing("Softmax Relu"))
    assert done.exit_code == 0, done.stderr
    small = onnx.load(out)
    onnx.checker.check_model(small)
    assert [n.op_type for n in small.graph.node] == ["Relu", "Softmax"]
    assert [v.name for v in small.graph.input] == ["a"] and not small.graph.initializer


def test_only_the_same_failure_counts(cli: Cli, graph: Path, tmp_path: Path) -> None:
    code = "import sys; b = open(sys.argv[1]).read(); sys.exit(3 if 'exp(' in b and 'neg(' in b else 4)"
    out = tmp_path / "s.ir"
    assert cli("reduce", graph, "-o", out, "--", sys.executable, "-c", code, "{}").exit_code == 0
    assert [n.op for n in read_graph(out).nodes] == ["exp", "neg"]


def test_the_runs_are_bounded(cli: Cli, graph: Path, tmp_path: Path) -> None:
    done = cli("reduce", graph, "-o", tmp_path / "s.ir", "--runs", 2, "--", *failing("exp("))
    assert "the runs were used up" in done.stderr


def test_nothing_of_a_command_reaches_a_shell(cli: Cli, graph: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    done = cli("reduce", graph, "-o", tmp_path / "s.ir", "--", *failing("graph"), "{}", f"; touch {mark}")
    assert done.exit_code == 0 and not mark.exists()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (failing("no such words"), "the command does not fail on the whole model"),
        (["no-such-command"], "the command 'no-such-command' cannot be run"),
        ([sys.executable, "-c", "import time; time.sleep(9)"], "the command takes more than 0.5 s"),
    ],
)
def test_a_command_that_does_not_fail_is_refused(
    refused: Refused, graph: Path, tmp_path: Path, command: list[str], message: str
) -> None:
    out = tmp_path / "s.ir"
    assert message in refused("reduce", graph, "-o", out, "--seconds", "0.5", "--", *command)
    assert not out.exists()


def test_the_failure_must_say_what_is_asked_for(refused: Refused, graph: Path, tmp_path: Path) -> None:
    words = ("reduce", graph, "-o", tmp_path / "s.ir", "--match", "no luck", "--", *failing("exp("))
    assert "the command fails with 3, but does not print 'no luck'" in refused(*words)


@pytest.mark.parametrize(("model", "output"), [("t.ir", "s.onnx"), ("t.txt", "s.txt")])
def test_both_files_are_of_one_kind(refused: Refused, tmp_path: Path, model: str, output: str) -> None:
    message = refused("reduce", tmp_path / model, "-o", tmp_path / output, "--", "true")
    assert "right: both FILE.ir, or both FILE.onnx" in message


@pytest.mark.parametrize(("words", "told"), [("", True), ("exp(", False), ("relu", False)])
def test_a_failure_on_any_model_is_told(
    words: str, told: bool, cli: Cli, graph: Path, tmp_path: Path
) -> None:
    graph.write_text(GRAPH.replace("= neg(", "= relu("))
    done = cli("reduce", graph, "-o", tmp_path / "s.ir", "--", *failing(words), "{}")
    assert done.exit_code == 0 and "-> 1" in done.stderr
    assert ("the command fails with 3 on a model of one other node as well" in done.stderr) == told
