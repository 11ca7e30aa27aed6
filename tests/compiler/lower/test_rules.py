"""How ops are scheduled at the edges of what kernels can do; each case is executed, too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from mtia_emu.compiler import text
from mtia_emu.compiler.check import check
from mtia_emu.compiler.inputs.samples import random_inputs
from mtia_emu.compiler.lower.schedule import schedule
from mtia_emu.compiler.ops import OPS, reference
from mtia_emu.compiler.pipeline import compile_lowered
from mtia_emu.compiler.reference import evaluate
from mtia_emu.kernels import KERNELS
from mtia_emu.kernels.builder import NoRoom
from mtia_emu.kernels.kernel import Kernel
from mtia_emu.kernels.rows.rowwise import emit_rowwise
from mtia_emu.kernels.rows.tape import parse

from mtia_emu import testing
from mtia_emu.engine.function import execute
from mtia_emu.machine.chip import Chip, load_chip
from mtia_emu.program.isa import Block
from mtia_emu.program.verify import verify

Array = np.ndarray[Any, Any]
TINY = load_chip("tiny")
LIBRARY = {name: (lambda arrays, attrs, name=name: reference(name, arrays, attrs)) for name in OPS}


def kernels(body: str, inputs: dict[str, Array] | None = None, tolerance: float = 1e-5) -> list[str]:
    """Return the kernels that run a graph, which is executed as it is and held to its references."""
    graph = check(text.parse(f"graph g {{\n{body}\n}}"))
    program = compile_lowered(graph, TINY, dtype="fp32")
    verify(program, TINY)
    given = inputs or random_inputs(graph)
    with np.errstate(all="ignore"):
        expected = evaluate(graph, given)
    testing.assert_close(execute(program, TINY, given, LIBRARY).outputs, expected, tolerance)
    return [step.kernel for step in schedule(graph, TINY).steps]


@pytest.mark.parametrize("extra", ["", ", %b", ", _, %s", ", %b, %s"])
def test_a_product_over_nothing_is_what_follows_it(extra: str) -> None:
    body = f"""  in %x : fp32[2,3,0]
  in %w : fp32[0,4]
  in %b : fp32[4]
  const %s : fp32[1] = [0.5]
  %y : fp32[2,3,4] = matmul(%x, %w{extra}) {{activation="sigmoid"}}
  out %y"""
    assert kernels(body) == ["map"]


@pytest.mark.parametrize(
    ("kind", "wide", "kernel"),
    [
        ("int8", "int32", "matmul"),
        ("uint8", "int32", "matmul"),
        ("int32", "int32", "matmul"),
        ("int16", "int16", "matmul"),
        ("int64", "int64", "scalar"),
        ("fp64", "fp64", "scalar"),
        ("uint32", "uint32", "scalar"),
    ],
)
def test_products_that_accumulators_do_not_hold_run_on_a_core(kind: str, wide: str, kernel: str) -> None:
    body = f"  in %x : {kind}[3,5]\n  in %w : {kind}[5,4]\n  %y : {wide}[3,4] = matmul(%x, %w)\n  out %y"
    assert kernels(body, tolerance=0.0 if kind != "fp64" else 1e-12) == [kernel]


def test_integers_stay_integers_behind_a_product() -> None:
    body = """  in %x : int8[1,2000]
  in %w : int8[2000,2]
  in %b : int32[2]
  %y : int32[1,2] = matmul(%x, %w, %b) {activation="relu"}
  out %y"""
    x = np.full((1, 2000), 127, np.int8)
    w, b = np.stack([x[0], -x[0]], axis=1), np.array([1, 7], np.int32)
    assert kernels(body, {"x": x, "w": w, "b": b}, 0.0) == ["matmul"]  # 32258001 is no fp32


@pytest.mark.parametrize(
    ("node", "kernel"),
    [
        ("%y : fp32[3,1] = reduce_mean(%x) {axes=[1], keepdims=true}", "row"),
        ("%y : int32[3] = reduce_mean(%i) {axes=[1]}", "scalar"),  # rounds down
        ("%y : int32[3] = reduce_sum(%i) {axes=[1]}", "row"),
        ("%y : bool[3] = reduce_max(%t) {axes=[1]}", "scalar"),
        ("%y : fp64[3] = reduce_sum(%d) {axes=[1]}", "scalar"),
        ("%y : fp64[3,4] = softmax(%d) {axis=1}", "scalar"),
        ("%y : fp32[3] = reduce_max(%none) {axes=[1]}", "scalar"),
        ("%y : fp32[3,4] = slice(%x) {ends=[3, -1], starts=[0, 3], steps=[1, -1]}", "scalar"),
        ("%y : fp32[3,6] = pad(%x) {pads=[0, 1, 0, 1], value=0.1}", "map"),
        ("%y : fp64[3,6] = pad(%d) {pads=[0, 1, 0, 1], value=0.5}", "map"),
        ("%y : fp64[3,6] = pad(%d) {pads=[0, 1, 0, 1], value=0.1}", "scalar"),
        ("%y : int32[3,6] = pad(%i) {pads=[0, 1, 0, 1], value=16777217}", "scalar"),
        ('%y : bool[3,4] = cast(%x) {to="bool"}', "map"),
        ("%y : fp32[3,4] = cumsum(%x) {axis=1}", "scalar"),
    ],
)
def test_where_an_op_runs(node: str, kernel: str) -> None:
    body = f"""  in %x : fp32[3,4]
  in %i : int32[3,4]
  in %t : bool[3,4]
  in %d : fp64[3,4]
  in %none : fp32[3,0]
  {node}
  out %y"""
    assert kernels(body)[0] == kernel


@pytest.mark.parametrize(
    "node",
    [
        "softmax(%x) {axis=1}",
        "layernorm(%x, %w, %b) {epsilon=0.01}",
        "log_softmax(%x) {axis=1}",
    ],
)
def test_rows_of_any_length_run_somewhere(node: str) -> None:
    found = [kernels(rows_of(node, columns), tolerance=2e-5) for columns in (100, 350, 600, 1201, 3000)]
    assert found[0] == ["row"] and {kernel for each in found for kernel in each} == {"row", "map"}


@pytest.mark.parametrize(
    ("node", "steps"),
    [
        ("reduce_mean(%x) {axes=[1]}", ["row", "row"]),
        ("reduce_max(%x) {axes=[1], keepdims=true}", ["row", "row"]),
        ("reduce_sum(%x) {axes=[0, 1]}", ["row", "row"]),
        ("softmax(%x) {axis=1}", ["row", "row", "row", "row", "map"]),
    ],
)
def test_rows_longer_than_local_memory_are_folded_in_pieces(node: str, steps: list[str]) -> None:
    found = kernels(rows_of(node, 4096))
    assert found == steps


def test_long_rows_that_do_not_divide_have_a_last_piece() -> None:
    assert kernels(rows_of("reduce_sum(%x) {axes=[1]}", 5003)) == ["row", "row", "row"]


def test_what_pieces_come_to_is_folded_in_pieces_too() -> None:
    x = np.ones((1, 1 << 19), np.float32)
    body = "  in %x : fp32[1,524288]\n  %y : fp32[1] = reduce_sum(%x) {axes=[1]}\n  out %y"
    assert kernels(body, {"x": x}, 0.0) == ["row", "row", "row"]


def test_long_rows_in_8_bits_have_one_scale() -> None:
    body = """  in %x : fp32[3,3000]
  %q : int8[3,3000], %s : fp32[3,1] = quantise_rows(%x) {to="int8"}
  out %q
  out %s"""
    assert kernels(body, tolerance=0.0) == ["row", "row", "map", "map"]


def rows_of(node: str, columns: int) -> str:
    """Return the body of a graph of one node over five rows of %x, with %w and %b for a norm."""
    kind = {"(%x) {axes=[1]}": "[5]", "=true}": "[5,1]", "[0, 1]}": "[]"}
    shape = next((s for end, s in kind.items() if node.endswith(end)), f"[5,{columns}]")
    return f"""  in %x : fp32[5,{columns}]
  in %w : fp32[{columns}]
  in %b : fp32[{columns}]
  %y : fp32{shape} = {node}
  out %y"""


def test_moves_of_a_transposed_operand() -> None:
    body = """  in %x : fp32[4,6]
  %t : fp32[6,4] = transpose(%x) {perm=[1, 0]}
  %y : fp32[12,12] = tile(%t) {repeats=[2, 3]}
  %p : fp32[9,5] = pad(%t) {pads=[1, 0, 2, 1], value=2.5}
  out %y
  out %p"""
    assert kernels(body, tolerance=0.0) == ["copy", "map", "copy"]


def test_operands_of_a_tail_in_every_shape() -> None:
    tape = (
        "6 -> t4 | t0 = add(x0, x1); t1 = mul(t0, x2); t2 = sub(t1, x3); t3 = max(t2, x4); t4 = add(t3, x5)"
    )
    attrs = f'shape=[2, 3, 5], tape="{tape}", to="fp32"'
    body = f"""  in %a : fp32[2,3,4]
  in %b : fp32[4,5]
  in %row : fp32[5]
  in %column : fp32[3,1]
  in %one : fp32[1,1]
  in %whole : fp32[2,3,5]
  in %batch : fp32[2,1,5]
  %y : fp32[2,3,5] = matmul_map(%a, %b, %row, %column, %one, %whole, %batch) {{{attrs}}}
  out %y"""
    assert kernels(body)[-1] == "matmul"


class _Turned(Kernel):
    """Negation by a kernel of its own, of what has an even number of columns."""

    name = "turned"
    op = "neg"

    def takes(self, types: Any, attrs: Any) -> bool:
        return types[0].shape[-1] % 2 == 0

    def emit(self, chip: Chip, attrs: Any, inputs: Any, outputs: Any) -> Block:
        assert all(x.strides == (x.cols, 1) for x in inputs)  # it reads no views
        return emit_rowwise(chip, self.name, parse("1 -> t0 | t0 = neg(x0)"), inputs, outputs)


def test_a_kernel_with_an_op_runs_the_nodes_that_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KERNELS, "turned", _Turned())
    assert kernels("  in %x : fp32[5,6]\n  %y : fp32[5,6] = neg(%x)\n  out %y") == ["turned"]
    assert kernels("  in %x : fp32[5,7]\n  %y : fp32[5,7] = neg(%x)\n  out %y") == ["map"]
    turned = "  %t : fp32[5,6] = transpose(%x) {perm=[1,0]}\n"
    body = f"  in %x : fp32[6,5]\n{turned}  %y : fp32[5,6] = neg(%t)\n  out %y"
    assert kernels(body) == ["copy", "turned"]


@pytest.mark.parametrize("local", [128, 543])
def test_a_row_of_which_local_memory_holds_no_piece_is_refused(local: int) -> None:
    """Pieces of one element would come to as many as there were: cutting would never end.

    Two slots of x and two of y, of fp32, and as much twice over for what lines of 64 bytes leave unused: 512
    bytes and 16 an element, of which a piece has two.
    """
    line = "%y : fp32[2,1] = reduce_max(%x) {axes=[1], keepdims=true}"
    graph = check(text.parse(f"graph g {{\n  in %x : fp32[2,9]\n  {line}\n  out %y\n}}"))
    message = f"reduce_max %y: local memory of {local} bytes holds no piece of a row of 9 .*at least 544"
    with pytest.raises(NoRoom, match=message):
        schedule(graph, load_chip("tiny", {"pe.local.bytes": local}))
    steps = schedule(graph, load_chip("tiny", {"pe.local.bytes": 544})).steps
    assert {step.kernel for step in steps} == {"row"} and len(steps) > 1


SCANNED = """  in %h : fp32[2,3]
  in %x : fp32[5,2,3]
  in %m : {kind}[5,2,1]
  const %w : fp32[3,6] = [{weight}]
"""


def test_a_loop_with_a_product_is_a_product_and_the_tapes_of_all_states_a_step() -> None:
    weight = ", ".join(map(str, np.linspace(-1, 1, 18).round(3)))
    body = SCANNED.format(kind="bool", weight=weight)
    first = "6 -> t1 | t0 = add(x0, x2); t1 = where(x5, t0, x0)"
    last = "6 -> t2 | t0 = tanh(x0); t1 = mul(t0, x3); t2 = add(t1, x4)"
    attrs = f'{{product=true, scanned=2, tapes=["{first}", "{last}"]}}'
    body += f"  %y : fp32[5,2,3], %c : fp32[2,3] = scan(%h, %h, %w, %x, %m) {attrs}\n  out %y\n  out %c"
    assert kernels(body) == ["matmul", "map"] * 5


def test_a_loop_without_one_is_a_kernel_call() -> None:
    body = """  in %h : fp32[2,3]
  in %x : fp32[5,2,3]
  in %s : fp32[5,1,3]
  in %k : fp32[3]
  %y : fp32[5,2,3] = scan(%h, %x, %s, %k) {scanned=2, tapes=["TAPE"]}
  out %y"""
    body = body.replace("TAPE", "4 -> t2 | t0 = mul(x0, x2); t1 = add(t0, x1); t2 = sub(t1, x3)")
    assert kernels(body) == ["copy", "copy", "scan"]  # what is broadcast is spread first


def test_a_loop_in_doubles_runs_on_a_core() -> None:
    body = """  in %h : fp64[3]
  in %x : fp64[5,3]
  %y : fp64[5,3] = scan(%h, %x) {scanned=1, tapes=["2 -> t0 | t0 = add(x0, x1)"]}
  out %y"""
    assert kernels(body) == ["scalar"]
