"""`opt`: passes one by one, printed, verified, narrowed and measured; passes of other packages."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from mtia_emu.compiler import text
from mtia_emu.compiler.graph_file import read_graph

Cli = Callable[..., Result]
Refused = Callable[..., str]
GRAPH = """graph t {
  in %x : fp32[4,4]
  in %y : fp32[4,4]
  const %w : fp32[16,16] = absent
  %a : fp32[4,4] = add(%x, %y)
  %r : fp32[1,16] = reshape(%a) {shape=[1, 16]}
  %b : fp32[1,16] = matmul(%r, %w)
  %c : fp32[1,16] = sub(%b, %r)
  %d : fp32[1,16] = sub(%r, %c)
  out %d
}
"""
LESS = """
from dataclasses import dataclass
from mtia_emu.compiler.graph import Graph
from mtia_emu.compiler.passes.base import Pass


@dataclass(frozen=True)
class Less(Pass):
    def __call__(self, graph):
        nodes = [n.renamed({"x": "y"}) for n in graph.nodes]
        return Graph(graph.name, nodes, {"y": graph.inputs["y"]}, graph.outputs, graph.consts)


@dataclass(frozen=True)
class Half(Pass):
    def __call__(self, graph):
        for const in graph.consts.values():
            data = const.array()
            data *= 0.5
        return graph
"""
PASSES = '''
from dataclasses import dataclass
from mtia_emu.compiler.passes.base import Rules, become, building


@dataclass(frozen=True)
class Wrong(Rules):
    """Turn subtractions of what is not an input around, but say so of none."""

    late: bool = False

    @property
    def rules(self):
        return (self._turn,)

    def _turn(self, node, match):
        if node.op != "sub" or (self.late and node.inputs[0] != "r"):
            return None
        new = building(node, match)
        return become(node, new, new.add("add", *node.inputs))


@dataclass(frozen=True)
class Mild(Rules):
    """Make subtractions a little larger."""

    @property
    def rules(self):
        return (self._scale,)

    def _scale(self, node, match):
        if node.op != "sub":
            return None
        new = building(node, match)
        y = new.add("add", node.inputs[0], new.add("neg", node.inputs[1]))
        return become(node, new, new.add("mul", y, new.constant(1.25, node.type.dtype.numpy)))


@dataclass(frozen=True)
class Raises(Rules):
    """Raise at the second subtraction."""

    @property
    def rules(self):
        return (self._fail,)

    def _fail(self, node, match):
        if node.op == "sub" and node.inputs[0] == "r":
            raise KeyError("no luck")
        if node.op != "sub":
            return None
        new = building(node, match)
        return become(node, new, new.add("add", node.inputs[0], new.add("neg", node.inputs[1])))


class NoPass:
    """What is no pass."""
'''
ENTRIES = """[mtia_emu.passes]
wrong = others_passes:Wrong
raises = others_passes:Raises
mild = others_passes:Mild
nopass = others_passes:NoPass
other = others_passes:Wrong
gone = no_such_module:Pass
fold = others_passes:Wrong
"""


@pytest.fixture
def others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install a package with passes; return the folder that it is in."""
    folder = tmp_path / "site"
    about = folder / "others_passes-1.0.dist-info"
    about.mkdir(parents=True)
    (folder / "others_passes.py").write_text(PASSES)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: others-passes\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(ENTRIES)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "others_passes", raising=False)
    return folder


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    path = tmp_path / "t.ir"
    path.write_text(GRAPH)
    return path


def test_without_passes_the_text_comes_back_as_it_is(cli: Cli, graph: Path) -> None:
    assert cli("opt", graph, "--passes", "").stdout == GRAPH


def test_weights_go_beside_the_text_and_come_back(cli: Cli, tmp_path: Path) -> None:
    first, second = tmp_path / "a.ir", tmp_path / "b.ir"
    words = ("opt", "zoo:dlrm-small", "--dim", "batch=2", "--dtype", "bf16", "-o", first, "--verify-each")
    assert cli(*words).exit_code == 0
    assert first.with_suffix(".npz").is_file()
    assert cli("opt", first, "--passes", "", "-o", second).exit_code == 0
    assert first.read_text() == second.read_text()
    one, two = read_graph(first), read_graph(second)
    kinds = {c.type.dtype.name for c in one.consts.values() if c.present and c.type.size > text.INLINE}
    assert "bf16" in kinds
    assert all(np.array_equal(c.array(), two.consts[k].array()) for k, c in one.consts.items())


@pytest.mark.parametrize("dtype", ["int4", "int8", "quantise{activations=static,calibrate=1}"])
def test_a_pass_that_quantises_may_lose_what_it_is_for(cli: Cli, dtype: str) -> None:
    words = ("opt", "zoo:dlrm-small", "--dim", "batch=4", "-q", "--dtype", dtype, "--verify-each")
    assert cli(*words).exit_code == 0
    assert cli(*words, "--tolerance", "1e-5").exit_code == 1


def test_given_inputs_bind_shapes_and_are_verified_on(
    cli: Cli, refused: Refused, graph: Path, tmp_path: Path
) -> None:
    import onnx
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["rows", 4]) for n in "xy")
    body = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    onnx.save(
        helper.make_model(body, ir_version=10, opset_imports=[helper.make_opsetid("", 20)]),
        tmp_path / "m.onnx",
    )
    np.savez(
        tmp_path / "io.npz", **{"in:x": np.ones((3, 4), np.float32), "out:y": np.ones((3, 4), np.float32)}
    )
    words = ("opt", tmp_path / "m.onnx", "--inputs", tmp_path / "io.npz")
    done = cli(*words, "--verify-each")
    assert done.exit_code == 0 and "in %x : fp16[3,4]" in done.stdout
    assert "rows" in refused("opt", tmp_path / "m.onnx")
    assert "the array given is [3, 4]" not in refused("opt", graph, "--inputs", tmp_path / "none.npz")
    np.savez(tmp_path / "io.npz", x=np.ones((3, 4), np.float32))
    assert "input %x is fp32[4,4]; the array given is [3, 4]" in refused(
        "opt", graph, "--inputs", tmp_path / "io.npz"
    )


def test_passes_stand_around_the_default_ones(cli: Cli) -> None:
    plain = cli("opt", "zoo:dlrm-small", "--chip", "tiny").stdout
    assert cli("opt", "zoo:dlrm-small", "--chip", "tiny", "--passes", "default").stdout == plain
    words = ("-q", "--stats", "--passes", "fuse-maps{max-inputs=2}, default,prune", "--chip", "tiny")
    names = [
        line.split()[1] for line in cli("opt", "zoo:dlrm-small", *words).stderr.splitlines() if "->" in line
    ]
    assert names[0].startswith("fuse-maps{max-i") and names[1] == "keep-rounding" and names[-1] == "prune"
    assert names.count("prune") == 3


def test_graphs_are_printed_after_passes(cli: Cli, graph: Path) -> None:
    said = cli("opt", graph, "-q", "--passes", "legalise,fold,prune", "--print-after", "fold").stderr
    assert said.count("# after") == 1 and "# after fold\ngraph t {" in said
    said = cli("opt", graph, "-q", "--passes", "legalise,fold,prune", "--print-after", "all").stderr
    assert said.count("# after") == 3


def test_what_passes_did_and_why_not(cli: Cli) -> None:
    done = cli("opt", "zoo:llama-tiny", "-q", "--stats", "--why")
    assert done.exit_code == 0 and done.stdout == ""
    assert "rmsnorm +5" in done.stderr and "has other users" in done.stderr
    said = [line.split() for line in done.stderr.partition("rules that did not fire")[2].splitlines()]
    assert [words[1:5] for words in said if words[1:2] == ["fuse-maps"]] == [
        ["fuse-maps", "fuse", "add", "3"]
    ]


def test_cycles_with_the_passes_up_to_each(cli: Cli) -> None:
    said = cli("opt", "zoo:llama-tiny", "-q", "--measure").stderr
    rows = [line.split() for line in said.splitlines() if line.strip()]
    cycles = {row[0]: int(row[1].replace(",", "")) for row in rows if len(row) > 5 and row[1][:1].isdigit()}
    assert cycles["set-weight-layout"] < cycles["fuse-norms"] < cycles["none"]


def test_the_pipeline_keeps_results(cli: Cli) -> None:
    done = cli("opt", "zoo:llama-tiny", "--dim", "seq=3", "-q", "--verify-each", "--chip", "tiny")
    assert done.exit_code == 0 and "keep the results on 6 random inputs" in done.stderr


@pytest.mark.parametrize(
    ("name", "number", "node"), [("wrong", "1 of 2", "%c"), ("wrong{late=true}", "1 of 1", "%d")]
)
def test_a_wrong_pass_and_its_rewrite_are_named(
    cli: Cli, graph: Path, others: Path, name: str, number: str, node: str
) -> None:
    done = cli("opt", graph, "-q", "--passes", f"legalise,{name}", "--bisect")
    assert done.exit_code == 1 and f"wrong: pass 2, {name}: output %d[" in done.stderr
    assert f"rewrite {number}: {node} : fp32[1,16] = sub" in done.stderr
    assert "\n-  %" in done.stderr and "\n+  %" in done.stderr


def test_passes_that_had_nothing_to_do_are_named(cli: Cli, graph: Path) -> None:
    words = ("opt", graph, "-q", "--verify-each", "--passes")
    said = cli(*words, "fuse-bags").stderr
    assert (
        said == "verified: 1 pass keeps the results on 6 random inputs; 1 of 1 changed nothing: fuse-bags\n"
    )
    said = cli(*words, "legalise,prune,fuse-maps,prune").stderr
    assert "verified: 4 passes keep" in said and said.endswith(
        "changed nothing: legalise, prune.1, prune.2\n"
    )


def test_a_pass_that_changes_inputs_is_refused_by_name(refused: Refused, graph: Path, tmp_path: Path) -> None:
    (tmp_path / "less.py").write_text(LESS)
    said = refused("run", graph, "--passes", f"+{tmp_path}/less.py:less@before:fold")
    assert "after less: its inputs are %y, not %x, %y" in said


def test_a_pass_cannot_change_constants_in_place(cli: Cli, graph: Path, tmp_path: Path) -> None:
    (tmp_path / "less.py").write_text(LESS)
    done = cli("opt", graph, "-q", "--verify-each", "--passes", f"{tmp_path}/less.py:half")
    assert done.exit_code == 1 and "raises ValueError: " in done.stderr
    assert "(right: a new constant: those of a graph do not change)" in done.stderr


def test_a_tolerance_may_be_given(cli: Cli, graph: Path, others: Path) -> None:
    words = ("opt", graph, "-q", "--passes", "mild", "--verify-each")
    assert cli(*words).exit_code == 1
    assert cli(*words, "--tolerance", "1").exit_code == 0


def test_a_pass_that_raises_is_named_with_its_rewrite(cli: Cli, graph: Path, others: Path) -> None:
    done = cli("opt", graph, "-q", "--passes", "raises", "--bisect")
    assert done.exit_code == 1 and "wrong: pass 1, raises: raises KeyError: 'no luck'" in done.stderr
    assert "rewrite 2 of 2" in done.stderr


def test_a_pass_without_rules_is_wrong_as_a_whole() -> None:
    from dataclasses import dataclass

    from mtia_emu.compiler.graph import Graph
    from mtia_emu.compiler.inputs.samples import random_inputs
    from mtia_emu.compiler.passes import Pass

    from mtia_emu.testing.verify import first_fault, narrow, with_weights

    @dataclass(frozen=True)
    class Cut(Pass):
        def __call__(self, graph: Graph) -> Graph:
            return graph.with_nodes(graph.nodes, outputs=["c"])

    graph = with_weights(text.parse(GRAPH))
    inputs = [random_inputs(graph)]
    fault = first_fault(graph, [Cut()], inputs)
    assert fault is not None and fault.what.startswith("its outputs are %c, not %d (right: ")
    assert "-  out %d" in narrow(fault, graph, inputs).diff


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wrang", "unknown pass 'wrang'; did you mean 'wrong'?"),
        ("nopass", "is not a pass (right: a frozen dataclass derived from Pass)"),
        ("other", "the class is Wrong (right: an entry 'wrong')"),
        ("gone", "cannot be imported: ModuleNotFoundError"),
        ("wrong{late=perhaps}", "option 'late=perhaps' is not late=bool"),
    ],
)
def test_what_others_bring_is_checked(
    refused: Refused, graph: Path, others: Path, name: str, message: str
) -> None:
    assert message in refused("opt", graph, "--passes", name)


def test_our_own_passes_are_not_replaced(cli: Cli, graph: Path, others: Path) -> None:
    assert "sub(" in cli("opt", graph, "--passes", "fold").stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--print-after", "fild"), "unknown pass of --print-after 'fild'; did you mean 'fold'?"),
        (("-o", "t.txt"), "--output 't.txt': a graph's text is a file FILE.ir"),
        (("--dim", "x=4"), "--dim has no meaning for a graph's text"),
    ],
)
def test_what_makes_no_sense_is_refused(
    refused: Refused, graph: Path, words: tuple[str, ...], message: str
) -> None:
    assert message in refused("opt", graph, "--passes", "fold", *words)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"graph t {\n  %a : fp32[1] = neg(%b)\n}", "operand %b is not defined"),
        (b"graph t {\n  in %a : fp32[2]\n  %b : fp32[3] = neg(%a)\n  out %b\n}", "stated as fp32[3]"),
        (b"\xff\xfe", "not text"),
        (b"", "expected 'graph'"),
    ],
)
def test_a_text_that_is_no_graph_is_refused(
    refused: Refused, tmp_path: Path, body: bytes, message: str
) -> None:
    path = tmp_path / "bad.ir"
    path.write_bytes(body)
    said = refused("opt", path)
    assert message in said and "bad.ir" in said


def test_weights_of_another_graph_are_refused(refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "t.ir"
    path.write_text(GRAPH.replace("absent", "sha256:" + "0" * 64))
    np.savez(tmp_path / "t.npz", w=np.zeros((16, 16), np.float32))
    assert "have another digest" in refused("opt", path, "--passes", "")


def test_a_graph_too_large_to_execute_is_refused(refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "t.ir"
    path.write_text(
        "graph t {\n  in %x : fp32[1]\n  const %w : fp32[99999999999] = absent\n"
        "  %y : fp32[99999999999] = add(%x, %w)\n  out %y\n}"
    )
    assert "choose smaller dimensions" in refused("opt", path, "--passes", "", "--verify-each")


def test_help_answers_without_the_compiler() -> None:
    code = (
        "import sys; from mtia_emu.cli import main; sys.argv = ['x', 'opt', '--help']\n"
        "try: main()\nexcept SystemExit: pass\n"
        "assert 'onnx' not in sys.modules and 'numba' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
