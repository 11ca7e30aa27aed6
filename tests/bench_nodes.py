"""What models of very many nodes take: processor seconds and memory of a whole `run`, mappings kept.

Run it with `python tests/bench_nodes.py`. One model is 61 layers whose 256 experts an exporter unrolled,
each on every row with a column of a mask as its share; the other is 4,000 tables looked up one by one.
Weights are absent.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

LAYERS, EXPERTS, WIDTH, INNER, CHOSEN, HEADS = 61, 256, 1024, 512, 8, 8
TABLES, BAGS, IN_A_BAG, COLUMNS = 4000, 256, 20, 64
PROGRAM = "from mtia_emu.cli.start import main; main()"


@dataclass
class Writer:
    """The nodes and constants of a model that is being written."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    consts: list[onnx.TensorProto] = field(default_factory=list)

    def weight(self, name: str, *shape: int) -> str:
        """Add an absent fp16 weight."""
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT16, dims=shape, data_location=1)
        tensor.external_data.add(key="location", value="absent.bin")
        self.consts.append(tensor)
        return name

    def const(self, name: str, values: list[float], shape: list[int], kind: int = TensorProto.INT64) -> str:
        """Add a small constant."""
        self.consts.append(helper.make_tensor(name, kind, shape, values))
        return name

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        """Add a node; return its last result."""
        names = [f"v{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, names, name=f"n{len(self.nodes)}", **attributes))
        return names[-1]


def write(writer: Writer, path: Path, inputs: dict[str, tuple[int, list[int]]], result: str) -> int:
    """Write a model whose result is fp16; return how many nodes it has."""
    given = [helper.make_tensor_value_info(name, *kind) for name, kind in inputs.items()]
    out = helper.make_tensor_value_info(result, TensorProto.FLOAT16, None)
    graph = helper.make_graph(writer.nodes, path.stem, given, [out], writer.consts)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return len(writer.nodes)


def experts(path: Path) -> int:
    """Write the mixture of experts."""
    w, x = Writer(), "x"
    half = TensorProto.FLOAT16
    w.const("two", [2.0], [], half), w.const("tiny", [1e-5], [], half), w.const("none", [0.0], [], half)
    w.const("chosen", [CHOSEN], [1]), w.const("all", [1, EXPERTS], [2]), w.const("last", [1], [1])
    w.const("heads", [1, HEADS, WIDTH // HEADS], [3]), w.const("row", [1, WIDTH], [2])
    for e in range(EXPERTS):
        w.const(f"e{e}", [e], [])
    for layer in range(LAYERS):
        x = w.op("Add", x, attention(w, norm(w, x, f"{layer}.a"), f"{layer}"))
        x = w.op("Add", x, mixture(w, norm(w, x, f"{layer}.m"), f"{layer}"))
    return write(w, path, {"x": (half, [1, WIDTH])}, x)


def norm(w: Writer, x: str, name: str) -> str:
    """Add RMSNorm as exporters spell it."""
    mean = w.op("ReduceMean", w.op("Pow", x, "two"), axes=[-1], keepdims=1)
    return w.op("Mul", w.op("Div", x, w.op("Sqrt", w.op("Add", mean, "tiny"))), w.weight(name, WIDTH))


def attention(w: Writer, x: str, layer: str) -> str:
    """Add attention of one token to itself."""
    q, k, v = (
        w.op("Transpose", w.op("Reshape", project(w, x, f"{layer}.{p}"), "heads"), perm=[1, 0, 2])
        for p in "qkv"
    )
    scores = w.op("Softmax", w.op("MatMul", q, w.op("Transpose", k, perm=[0, 2, 1])), axis=-1)
    seen = w.op("Transpose", w.op("MatMul", scores, v), perm=[1, 0, 2])
    return project(w, w.op("Reshape", seen, "row"), f"{layer}.o")


def project(w: Writer, x: str, name: str) -> str:
    """Add a product with a square weight."""
    return w.op("MatMul", x, w.weight(name, WIDTH, WIDTH))


def mixture(w: Writer, x: str, layer: str) -> str:
    """Add all experts, each times its column of the mask."""
    scores = w.op("Softmax", w.op("MatMul", x, w.weight(f"{layer}.r", WIDTH, EXPERTS)), axis=-1)
    places = w.op("TopK", scores, "chosen", outputs=2, axis=-1)
    shares = places.removesuffix("1") + "0"
    mask = w.op("ScatterElements", w.op("Expand", "none", "all"), places, shares, axis=1)
    total = ""
    for e in range(EXPERTS):
        gate = w.op("MatMul", x, w.weight(f"{layer}.{e}.g", WIDTH, INNER))
        up = w.op("MatMul", x, w.weight(f"{layer}.{e}.u", WIDTH, INNER))
        hidden = w.op("Mul", w.op("Mul", gate, w.op("Sigmoid", gate)), up)
        made = w.op("MatMul", hidden, w.weight(f"{layer}.{e}.d", INNER, WIDTH))
        part = w.op("Mul", made, w.op("Unsqueeze", w.op("Gather", mask, f"e{e}", axis=1), "last"))
        total = w.op("Add", total, part) if total else part
    return total


def tables(path: Path) -> int:
    """Write the tables: a Gather and a sum for each, and all side by side."""
    w, inputs = Writer(), {}
    w.const("bag", [1], [1])
    for i in range(TABLES):
        inputs[f"i{i}"] = (TensorProto.INT64, [BAGS, IN_A_BAG])
        rows = w.op("Gather", w.weight(f"t{i}", 10000 + i % 7 * 1000, COLUMNS), f"i{i}", axis=0)
        w.op("ReduceSum", rows, "bag", keepdims=0)
    sums = [node.output[0] for node in w.nodes if node.op_type == "ReduceSum"]
    return write(w, path, inputs, w.op("Concat", *sums, axis=1))


def main() -> None:
    """Print what a run of each model takes."""
    for name, make in (("61 layers of 256 experts", experts), ("4,000 tables", tables)):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            nodes = make(path)
            for _ in range(2):
                process = subprocess.Popen(
                    [sys.executable, "-c", PROGRAM, "run", str(path)],
                    stdout=subprocess.DEVNULL,
                    env=os.environ | {"MTIA_EMU_ANSWERS": "0"},
                )
                _, status, used = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)
        cpu_s, memory = used.ru_utime + used.ru_stime, used.ru_maxrss / 1e3
        print(
            f"{name}: {nodes:,} nodes, {cpu_s:.1f} s of processor, {memory:.0f} MB, exit {process.returncode}"
        )


if __name__ == "__main__":
    main()
