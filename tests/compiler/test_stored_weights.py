"""Constant matrices of few bits behind DequantizeLinear: onnxruntime's values, moved as codes."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mtia_emu.compiler.frontend import load
from mtia_emu.compiler.pipeline import compile_graph
from onnx import TensorProto, helper, numpy_helper, save

from mtia_emu import api
from mtia_emu.engine.function import execute
from mtia_emu.errors import UserError
from mtia_emu.machine.chip import load_chip
from mtia_emu.oracle import expected_outputs

pytest.importorskip("onnxruntime")
K, N = 96, 24
CODES = {"INT4": (-8, 8), "UINT4": (0, 16), "INT8": (-128, 128), "UINT8": (0, 256)}
SCALES = {  # of a matrix of a shape: their shape, and the attributes that say so
    "one": lambda shape: ((), {}),
    "rows": lambda shape: ((shape[0],), {"axis": 0}),
    "columns": lambda shape: ((shape[1],), {"axis": 1}),
    "blocks of rows": lambda shape: ((-(-shape[0] // 32), shape[1]), {"axis": 0, "block_size": 32}),
    "blocks of columns": lambda shape: ((shape[0], -(-shape[1] // 32)), {"axis": 1, "block_size": 32}),
}
READERS = ("MatMul", "Transpose", "Gemm", "Add")


def write(path: Path, codes: str, scales: str, reader: str, *, zeros: bool, seed: int) -> dict[str, Any]:
    """Write a model that reads weights with a product or an addition; return its inputs."""
    rng = np.random.default_rng(seed)
    shape = (N, K) if reader in ("Transpose", "Gemm") else (K, N)
    spread, attrs = SCALES[scales](shape)
    kind, (low, high) = getattr(TensorProto, codes), CODES[codes]
    consts = [
        helper.make_tensor("q", kind, shape, rng.integers(low, high, shape).ravel()),
        numpy_helper.from_array(np.asarray(rng.uniform(0.01, 0.1, spread), np.float32), "s"),
    ]
    if zeros:
        points = np.asarray(rng.integers(low, high, spread))
        consts.append(helper.make_tensor("z", kind, spread, points.ravel()))
    nodes = [helper.make_node("DequantizeLinear", [c.name for c in consts], ["w"], **attrs)]
    if reader == "Transpose":
        nodes.append(helper.make_node("Transpose", ["w"], ["t"], perm=[1, 0]))
    form = {"Transpose": ("MatMul", "t", {}), "Gemm": ("Gemm", "w", {"transB": 1})}
    op, right, more = form.get(reader, (reader, "w", {}))
    nodes.append(helper.make_node(op, ["x", right], ["y"], **more))
    sizes = {"MatMul": ([2, 3, K], [2, 3, N]), "Add": ([K, N], [K, N])}
    given, made = sizes.get(op, ([3, K], [3, N]))
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", given), ("y", made))]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], consts)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return {"x": rng.standard_normal(given).astype(np.float32)}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("codes", CODES)
def test_values_are_those_of_onnxruntime(codes: str, reader: str, tmp_path: Path) -> None:
    chip, path = load_chip("mtia-2i"), tmp_path / "m.onnx"
    for seed, (scales, zeros) in enumerate(product(SCALES, (False, True))):
        inputs = write(path, codes, scales, reader, zeros=zeros, seed=seed)
        program = compile_graph(load(path), chip, dtype="fp32").program
        got = execute(program, chip, inputs, api.core_library()).outputs["y"]
        right = expected_outputs(path, inputs).outputs["y"]
        assert np.abs(got - right).max() <= 1e-5 * np.abs(right).max()
        turned = reader in ("Transpose", "Gemm")
        along_k = ("rows", "blocks of columns") if turned else ("columns", "blocks of rows")
        kernels = {block.kernel for block in program.blocks}
        assert ("matmul_packed" in kernels) == (reader != "Add" and scales in along_k) or scales == "one"


def test_four_bits_are_stored_two_in_a_byte(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    write(path, "UINT4", "blocks of rows", "MatMul", zeros=True, seed=0)
    program = compile_graph(load(path), load_chip("mtia-2i"), dtype="fp16").program
    codes, scales, zeros = 2 * 32 * N, 3 * N * 2, 2 * N  # two blocks in the low halves, one in the high ones
    assert sum(c.type.bytes for c in program.consts) == codes + scales + zeros


def test_scales_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    graph = helper.make_graph(
        [helper.make_node("DequantizeLinear", ["q", "s"], ["y"], axis=0, block_size=16)],
        "g",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [K, N])],
        [
            helper.make_tensor("q", TensorProto.INT4, [K, N], np.zeros(K * N, int)),
            numpy_helper.from_array(np.ones((3, N), np.float32), "s"),
        ],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    with pytest.raises(UserError, match="is not a value for each block of 16"):
        load(path)
