"""Kernels from outside: held to their reference when they are read, used only where the user gave them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import Result
from mtia_emu.compiler.lower import split as splitting
from mtia_emu.compiler.ops import ONNX, OPS
from mtia_emu.compiler.user_kernels import INSTALLED
from onnx import TensorProto, helper

import mtia_emu
from mtia_emu import UserError
from mtia_emu.plugins.kernels import load_kernels

Cli = Callable[..., Result]
Refused = Callable[..., str]
HEADER = """
import numpy as np
from mtia_emu import Kernel, UserError
from mtia_emu.program.isa import FUNCTION_NAMES, Opcode
from mtia_emu.kernels.builder import Builder
"""
SCALED = '''
class Scaled(Kernel):
    """x times a number."""

    op = "com.example::Scaled"
    flops = 1
    attributes = {"by": 2.0}
    operands = (1, 1)

    def infer(self, types, attrs):
        if not types[0].dtype.is_float or types[0].rank != 2:
            raise UserError("Scaled takes a matrix of floats")
        return [types[0]]

    def reference(self, arrays, attrs):
        return [(arrays[0].astype(np.float32) * attrs["by"]).astype(arrays[0].dtype)]

    def takes(self, types, attrs):
        return types[0].shape[-1] <= 64

    def examples(self, rng):
        yield [rng.standard_normal((3, 5)).astype(np.float32)], {}
        yield [rng.standard_normal((8, 64)).astype(np.float32)], {"by": -0.5}

    def emit(self, chip, attrs, inputs, outputs):
        (x,), (out,) = inputs, outputs
        build = Builder(chip, "scaled", (x, out))
        a, b = (build.slot(o.dtype, x.rows * x.cols) for o in (x, out))
        tile = {"row": 0, "rows": x.rows, "col": 0, "cols": x.cols}
        size = {"rows": x.rows, "cols": x.cols}
        build.add(Opcode.LOAD, 0, pe=0, operand=0, dst=a, **tile)
        mul = FUNCTION_NAMES.index("mul")
        build.add(Opcode.SIMD, 1, pe=0, fn=mul, src0=a, src1=-2, imm=attrs["by"], dst=b, **size)
        build.add(Opcode.STORE, 2, pe=0, operand=1, src0=b, **tile)
        return build.block()
'''


@pytest.fixture
def scaled(tmp_path: Path) -> Path:
    path = tmp_path / "scaled.py"
    path.write_text(HEADER + SCALED)
    return path


def model(path: Path, cols: int = 12, **attrs: float) -> Path:
    """Write a model of the operator and an addition."""
    nodes = [
        helper.make_node("Scaled", ["x"], ["s"], domain="com.example", **attrs),
        helper.make_node("Add", ["s", "x"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [4, cols]) for n in "xy")
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.example", 1)]
    graph = helper.make_graph(nodes, "scaled", [x], [y])
    onnx.save(helper.make_model(graph, ir_version=10, opset_imports=opsets), path)
    return path


def test_a_kernel_runs_its_operator(scaled: Path, tmp_path: Path, cli: Cli) -> None:
    file = model(tmp_path / "m.onnx", by=3.0)
    done = cli("run", file, "--kernel", scaled, "--check", "--gpu", "none")
    assert done.exit_code == 0, done.output
    assert "scaled" in done.stdout and "passed" in done.stdout
    assert not INSTALLED and "com_example_Scaled" not in OPS and "com.example::Scaled" not in ONNX


def test_attributes_have_their_defaults(scaled: Path, tmp_path: Path) -> None:
    x = np.arange(48, dtype=np.float32).reshape(4, 12) / 64
    with mtia_emu.use_kernels(scaled):
        done = mtia_emu.run(model(tmp_path / "m.onnx"), "tiny", inputs={"x": x}, gpu=None)
    np.testing.assert_allclose(done.outputs["y"], 3 * x, rtol=2e-3)


def test_what_a_kernel_does_not_take_runs_on_a_core(scaled: Path, tmp_path: Path) -> None:
    with mtia_emu.use_kernels(scaled):
        done = mtia_emu.run(model(tmp_path / "m.onnx", cols=65), "tiny", check=True, gpu=None)
    assert done.check is not None and done.check.passed
    assert [layer.kernel for layer in done.report.layers] == ["scalar", "map"]
    assert any("runs no node" in note for note in done.program.notes)


def test_a_compiled_program_needs_no_kernel(scaled: Path, tmp_path: Path, cli: Cli) -> None:
    file, program = model(tmp_path / "m.onnx"), tmp_path / "m.mtia"
    assert cli("compile", file, "--kernel", scaled, "-o", program).exit_code == 0
    assert "scaled" in cli("run", program, "--gpu", "none").stdout


def test_a_model_alone_brings_no_code(scaled: Path, tmp_path: Path, refused: Refused) -> None:
    scaled.write_text("raise SystemExit(3)")
    assert "no such operator" in refused("run", model(tmp_path / "m.onnx"))


def test_passes_see_the_op(scaled: Path, tmp_path: Path, cli: Cli) -> None:
    done = cli("opt", model(tmp_path / "m.onnx"), "--kernel", scaled, "--verify-each", "--bisect")
    assert done.exit_code == 0 and "com_example_Scaled(%x) {by=2.0}" in done.stdout


def test_an_op_of_ours_can_be_given_another_kernel() -> None:
    class Plain(mtia_emu.Kernel):
        op = "softmax"

        def examples(self, rng: np.random.Generator):  # type: ignore[no-untyped-def]
            yield [rng.standard_normal((5, 7)).astype(np.float32)], {"axis": 1}

        def emit(self, chip, attrs, inputs, outputs):  # type: ignore[no-untyped-def]
            from mtia_emu.kernels.rows.rowwise import emit_rowwise
            from mtia_emu.kernels.rows.tape import TapeBuilder

            tape = TapeBuilder(1)
            powers = tape.call("exp", 0)
            result = tape.call("div", powers, tape.call("fold_sum", powers))
            return emit_rowwise(chip, "plain", tape.done(result), inputs, outputs)

    with mtia_emu.use_kernels(Plain()) as (kernel,):
        assert {"softmax": kernel} == INSTALLED
    assert not INSTALLED and "softmax" in OPS


WRONG = {
    "values": ('imm=attrs["by"]', "imm=2.0", "example 1 (fp32[8, 64]) on tiny: result 0 at [0, 0] is"),
    "narrow": ("imm=attrs[", "imm=(1.01 if x.dtype.bits == 16 else 1) * attrs[", "example 0 (fp16[3, 5])"),
    "strides": ("(x, out))", "(replace(x, strides=(x.cols, 1)), out))", "read through a transposition"),
    "unwritten": (
        "build.add(Opcode.STORE",
        "0 and build.add(Opcode.STORE",
        "15 of 15 elements were never written",
    ),
    "slot": ("dst=b", "dst=7", "names no slot"),
    "room": ("x.rows * x.cols)", "1 << 40)", "ran on none of its examples"),
    "none": ("<= 64", "<= 2", "it takes none of them"),
    "raises": ("(x,), (out,)", "(x, z), (out,)", "emit raises ValueError"),
    "no block": ("return build.block()", "return build", "right: a Block"),
    "operands": ("(x, out))", "(out, x))", "must begin with those given"),
    "reference": (
        ".astype(arrays[0].dtype)]",
        ".T]",
        "reference gives float32[5, 3], infer says float32[3, 5]",
    ),
    "shape rule": ("return [types[0]]", "return types[0].shape", "right: a TensorType for each result"),
    "no flops": ("flops = 1", "", "says no `flops`"),
    "no examples": ("def examples", "def samples", "does not define examples"),
    "bad examples": (', {"by": -0.5}', "", "examples raises ValueError"),
    "bad op": ('"com.example::Scaled"', '"a b"', "op = 'a b'"),
    "unknown op": ('"com.example::Scaled"', '"sotfmax"', "did you mean 'softmax'"),
    "no kernel": ("(Kernel)", "", "has no kernel"),
    "syntax": ("class", "klass", "scaled.py, line 8: SyntaxError"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_kernel_is_refused(case: str, scaled: Path, tmp_path: Path, refused: Refused) -> None:
    old, new, said = WRONG[case]
    text = scaled.read_text()
    assert old in text
    scaled.write_text(
        text.replace(old, new).replace("\nimport numpy", "\nfrom dataclasses import replace\nimport numpy")
    )
    message = refused("run", model(tmp_path / "m.onnx"), "--kernel", scaled)
    assert said in message
    assert not INSTALLED and "com_example_Scaled" not in OPS


def test_what_is_no_kernel_is_refused(tmp_path: Path, refused: Refused) -> None:
    assert "no such file" in refused("run", "zoo:dlrm-small", "--kernel", tmp_path / "none.py")
    assert "no file FILE.py" in refused("run", "zoo:dlrm-small", "--kernel", "none")


def test_unknown_attributes_are_refused(scaled: Path, tmp_path: Path, refused: Refused) -> None:
    file = model(tmp_path / "m.onnx", bi=1.0)
    assert "did you mean 'by'" in refused("run", file, "--kernel", scaled)


def test_packages_bring_kernels(scaled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = tmp_path / "others_kernels-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: others-kernels\nVersion: 1.0\n")
    lines = "scaled = scaled:Scaled\nall = scaled\nwrong = scaled:Builder\ngone = no_such_module\n"
    (about / "entry_points.txt").write_text("[mtia_emu.kernels]\n" + lines)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "scaled", raising=False)
    for name in ("scaled", "all"):
        assert [kernel.op for kernel in load_kernels(name)] == ["com.example::Scaled"]
    for name, said in {"wrong": "is no kernel", "gone": "cannot be imported", "scald": "'scaled'"}.items():
        with pytest.raises(UserError, match=said):
            load_kernels(name)


TILED = (
    SCALED.replace("class Scaled(Kernel)", "class Tiled(Kernel)").partition("    def emit")[0]
    + """
    shares_launch = True

    def candidates(self, problem, chip, count, memoise):
        return (1, 4)[:count]

    def emit_mapping(self, chip, call, mapping):
        (x,), (out,) = call.inputs, call.outputs
        build = Builder(chip, "tiled", (x, out), f"rows={mapping}")
        a, b = (build.slot(o.dtype, mapping * x.cols, 2) for o in (x, out))
        t = np.arange(-(-x.rows // mapping))
        size = {"rows": np.minimum(mapping, x.rows - t * mapping), "cols": x.cols}
        tile = {"row": t * mapping, "col": 0, **size}
        build.add(Opcode.LOAD, t * 3, pe=0, operand=0, dst=a + t % 2, **tile)
        mul, by = FUNCTION_NAMES.index("mul"), call.params["by"]
        slots = {"src0": a + t % 2, "src1": -2, "dst": b + t % 2}
        build.add(Opcode.SIMD, t * 3 + 1, pe=0, fn=mul, imm=by, **slots, **size)
        build.add(Opcode.STORE, t * 3 + 2, pe=0, operand=1, src0=b + t % 2, **tile)
        return build.block()
"""
)


@pytest.fixture
def tiled(tmp_path: Path) -> Path:
    path = tmp_path / "tiled.py"
    path.write_text(HEADER + TILED)
    return path


def test_of_several_mappings_the_fastest_is_taken(tiled: Path, tmp_path: Path) -> None:
    file = model(tmp_path / "m.onnx")
    with mtia_emu.use_kernels(tiled):
        mappings = [
            [b.mapping for b in mtia_emu.compile_model(file, "tiny", tune=tune).blocks if b.kernel == "tiled"]
            for tune in ("fast", "full")
        ]
        done = mtia_emu.run(file, "tiny", tune="full", check=True, gpu=None)
    assert mappings == [["rows=4"], ["rows=4"]]  # it has a fourth of the commands of the first
    assert done.check is not None and done.check.passed


def test_a_mapping_that_is_wrong_is_refused_though_another_comes_first(tiled: Path) -> None:
    tiled.write_text(tiled.read_text().replace('call.params["by"]', 'call.params["by"] + (mapping == 4)'))
    with pytest.raises(UserError, match=r"kernel Tiled .* example 0 .* result 0 at \[0, 0\] is"):
        load_and_hold(tiled)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("(1, 4)[:count]", "()", r"candidates gives none \(right: one mapping at least"),
        ("(1, 4)[:count]", "([1], [4])", r"candidates gives \[1\] \(right: what can be a key of a dict"),
        ("(1, 4)[:count]", "1 / 0", "candidates raises ZeroDivisionError"),
        ("return build.block()", "return None", "emit_mapping gives None"),
        ("def emit_mapping", "def emit_other", "Tiled .* does not define emit_mapping"),
    ],
)
def test_what_is_wrong_with_mappings_is_said(tiled: Path, old: str, new: str, message: str) -> None:
    tiled.write_text(tiled.read_text().replace(old, new))
    with pytest.raises(UserError, match=message):
        load_and_hold(tiled)


def test_a_kernel_may_order_the_operands_of_its_block(scaled: Path, tmp_path: Path) -> None:
    text = scaled.read_text().replace("(x, out))", "(out, x))").replace("operand=0, dst", "operand=1, dst")
    text = text.replace("operand=1, src0", "operand=0, src0")
    order = "    def arranged(self, inputs, outputs):\n        return [*outputs, *inputs]\n"
    scaled.write_text(text + order)
    with mtia_emu.use_kernels(scaled):
        run = mtia_emu.run(model(tmp_path / "m.onnx"), "tiny", check=True, gpu=None)
    assert run.check is not None and run.check.passed


HALVES = """
    def halves(self, call):
        from mtia_emu.kernels.halves import in_two, part

        (x,), (out,) = call.inputs, call.outputs
        return in_two(x.shape[0], lambda at, n: call.of([part(x, 0, at, n)], [part(out, 0, at, n)]))
"""


def test_a_call_is_cut_where_its_block_would_be_too_large(
    tiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four rows, a tile each, are 12 commands; a block is to have at most 6: two rows."""
    monkeypatch.setattr(splitting, "SMALL_ELEMENTS", 1)
    monkeypatch.setattr(splitting, "CUT_COMMANDS", 6)
    tiled.write_text(tiled.read_text().replace("(1, 4)[:count]", "(1,)") + HALVES)
    with mtia_emu.use_kernels(tiled):
        run = mtia_emu.run(model(tmp_path / "m.onnx"), "tiny", check=True, gpu=None)
    sizes = [len(block.commands) for block in run.program.blocks if block.kernel == "tiled"]
    assert sizes == [6] and [x.kernel for x in run.report.layers].count("tiled") == 2
    assert run.check is not None and run.check.passed


def test_a_weight_is_an_input(scaled: Path) -> None:
    scaled.write_text(scaled.read_text().replace("    flops = 1\n", "    flops = 1\n    weight = 1\n"))
    with pytest.raises(UserError, match=r"kernel Scaled .*: weight = 1 \(right: .* below 1, or None"):
        load_and_hold(scaled)


def load_and_hold(path: Path) -> None:
    with mtia_emu.use_kernels(path):
        pass


@pytest.mark.parametrize("shares", [True, False])
def test_a_kernel_may_share_a_launch_where_it_says_so(shares: bool, tiled: Path, tmp_path: Path) -> None:
    tiled.write_text(tiled.read_text().replace("shares_launch = True", f"shares_launch = {shares}"))
    nodes = [helper.make_node("Scaled", [x], [y], domain="com.example") for x, y in ("ac", "bd")]
    a, b, c, d = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [16, 60]) for n in "abcd")
    graph = helper.make_graph(nodes, "two", [a, b], [c, d])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.example", 1)]
    onnx.save(helper.make_model(graph, ir_version=10, opset_imports=opsets), tmp_path / "two.onnx")
    with mtia_emu.use_kernels(tiled):
        done = mtia_emu.run(tmp_path / "two.onnx", "tiny", check=True, gpu=None)
    assert [block.kernel for block in done.program.blocks] == (["tiled + tiled"] if shares else ["tiled"])
    assert done.check is not None and done.check.passed
