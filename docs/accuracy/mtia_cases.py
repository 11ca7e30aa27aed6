"""The published results of MTIA as cases to run: each is compiled for a chip file, timed, and compared."""

from __future__ import annotations

import csv
import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mtia_emu import api
from mtia_emu.engine.lookups import from_inputs
from mtia_emu.machine.chip import Chip, load_chip
from mtia_emu.program.isa import Program
from mtia_emu.results.report import Report
from mtia_emu.zoo.operators import Gemm, Tbe

DATA = Path(__file__).parents[1] / "data"
TABLES = 64  # of the embedding bags: not published; enough to fill the chip
SEED = 1  # of the split into a half that is fitted to and a half that is not
SIDE = (4096, 1024)  # of the tensors of other operators: not published


@dataclass(frozen=True)
class Case:
    """One published figure and ours in the same unit; `fitted` where a parameter was fitted to it."""

    name: str
    published: float
    here: float
    bound_by: str
    fitted: bool = False

    @property
    def error(self) -> float:
        """Return the relative error."""
        return self.here / self.published - 1.0


def rows_of(name: str) -> list[dict[str, str]]:
    """Return the rows of a file of published figures."""
    text = (DATA / name).read_text(encoding="utf-8").splitlines()
    return list(csv.DictReader(line for line in text if not line.startswith("#")))


def halves(count: int) -> list[bool]:
    """Return, for each of so many cases, whether it is in the half that is fitted to."""
    order = np.random.default_rng(SEED).permutation(count)
    return [bool(i in order[: count // 2]) for i in range(count)]


def compiled(operator: Gemm | Tbe, chip: Chip, place: str, dtype: str | None = None) -> tuple[Program, Any]:
    """Return an operator's program without weights, and what is known of its look-ups."""
    with api.operator_source(operator, None) as source:
        program = api.compile_stages(source, chip, place=place, dtype=dtype).program
    lookups = from_inputs(program, operator.example_inputs(0)) if isinstance(operator, Tbe) else None
    return program, lookups


def timed(operator: Gemm | Tbe, chip: Chip, place: str, dtype: str | None = None) -> Report:
    """Return the report of one operator."""
    program, lookups = compiled(operator, chip, place, dtype)
    return api.run_program(program, chip, lookups=lookups, gpu=None).report


def fc(chip: Chip) -> Iterator[Case]:
    """Yield MTIA 1's fully connected layers in SRAM, in us; the one that spills is never fitted to."""
    rows = rows_of("mtia1_fc.csv")
    for row, fitted in zip(rows, halves(len(rows)), strict=True):
        m, k, n = (int(row[x]) for x in "mkn")
        report = timed(Gemm(m, k, n, "int8"), chip, "sram")
        fitted = fitted and m * k * n < 4096**3
        yield Case(f"{m} x {k} x {n}", float(row["us"]), report.seconds * 1e6, _bound(report), fitted)


def tbe_operator(row: dict[str, str]) -> Tbe:
    """Return the embedding bags of a published row, with rows of 8 bits an element."""
    return Tbe(TABLES, int(row["rows"]), int(row["dim"]), int(row["pooling"]), int(row["batch"]), "int8")


def tbe_rate(operator: Tbe, seconds: float) -> float:
    """Return the GB/s of looked-up elements, a byte each."""
    return operator.tables * operator.batch * operator.pooling * operator.dim / seconds / 1e9


def tbe(chip: Chip) -> Iterator[Case]:
    """Yield MTIA 1's embedding bags, in GB/s."""
    rows = rows_of("mtia1_tbe.csv")
    for row, fitted in zip(rows, halves(len(rows)), strict=True):
        operator = tbe_operator(row)
        report = timed(operator, chip, "weights-dram")
        name = f"pooling {row['pooling']}, {row['rows']} rows of {row['dim']}, batch {row['batch']}"
        rate = tbe_rate(operator, report.seconds)
        yield Case(name, float(row["gb_per_s"]), rate, _bound(report), fitted)


def in_sram(row: dict[str, str]) -> bool:
    """Return whether DRAM does not bound a published row.

    Constants of the PE are fitted to such rows, how DRAM's channels interleave to the others.
    """
    return not (row["rows"] == "1000000" and row["dim"] == "256" and row["pooling"] != "1")


def fc_lpddr(chip: Chip) -> Iterator[Case]:
    """Yield MTIA 1's fully connected layers, all operands in LPDDR, in us; nothing is fitted to them.

    Our results are sums of INT32, four times as many bytes as the published ones.
    """
    for row in rows_of("mtia1_fc_lpddr.csv"):
        m, k, n = (int(row[x]) for x in "mkn")
        report = timed(Gemm(m, k, n, "int8"), chip, "dram")
        yield Case(f"{m} x {k} x {n}", float(row["us"]), report.seconds * 1e6, _bound(report))


def other_ops(chip: Chip, file: str = "mtia1_ops.csv", place: str = "sram") -> Iterator[Case]:
    """Yield MTIA 1's other operators, in GB/s read plus written; nothing is fitted to them."""
    for row in rows_of(file):
        with tempfile.TemporaryDirectory() as folder:
            path, moved = _operator_model(row["op"], Path(folder))
            report = api.run(path, chip, gpu=None, place=place).report
        yield Case(row["op"], float(row["gb_per_s"]), moved / report.seconds / 1e9, _bound(report))


def _operator_model(op: str, folder: Path) -> tuple[Path, int]:
    """Write a model of one operator on fp16 tensors of SIDE; return its path and the bytes that it moves."""
    import onnx
    from onnx import TensorProto as T
    from onnx import helper

    n, m = SIDE
    half, narrow = T.FLOAT16, T.INT8
    forms: dict[str, tuple[Any, ...]] = {  # node, inputs, output
        "Tanh": ("Tanh", {}, [(half, [n, m])], (half, [n, m])),
        "Transpose": ("Transpose", {"perm": [1, 0]}, [(half, [n, m])], (half, [m, n])),
        "Concat": ("Concat", {"axis": 1}, [(half, [n, m // 2])] * 2, (half, [n, m])),
        "Quantize": ("QuantizeLinear", {}, [(half, [n, m])], (narrow, [n, m])),
        "Dequantize": ("DequantizeLinear", {}, [(narrow, [n, m])], (half, [n, m])),
        "BatchMatMul": ("MatMul", {}, [(half, [n * m // 4096, 64, 64])] * 2, (half, [n * m // 4096, 64, 64])),
    }
    kind, attrs, ins, out = forms[op]
    names = [f"x{i}" for i in range(len(ins))]
    infos = [helper.make_tensor_value_info(name, *x) for name, x in zip(names, ins, strict=True)]
    stored = []
    if "Linear" in kind:
        stored = [helper.make_tensor("scale", half, [], [0.5]), helper.make_tensor("zero", narrow, [], [0])]
    node = helper.make_node(kind, [*names, *(t.name for t in stored)], ["y"], **attrs)
    graph = helper.make_graph([node], op, infos, [helper.make_tensor_value_info("y", *out)], stored)
    path = folder / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]), path)
    width = {half: 2, narrow: 1}
    return path, sum(int(np.prod(shape)) * width[t] for t, shape in [*ins, out])


def _bound(report: Report) -> str:
    return max(report.layers, key=lambda layer: layer.cycles).bound_by


@dataclass(frozen=True)
class Claim:
    """What is published of MTIA 2i, as it is published, and what comes out here; `low` to `high` meets it."""

    name: str
    published: str
    low: float
    high: float
    here: float
    unit: str

    @property
    def met(self) -> bool:
        """Return whether what comes out is what is published."""
        return self.low <= self.here <= self.high


CODED = [
    ("Llama-2-7B, prefill of 512", "zoo:llama-2-7b", {"seq": 512}),
    ("Llama-2-7B, a token after 2048", "zoo:llama-2-7b", {"seq": 1, "past": 2048}),
    ("DLRM-DCNv2, batch 512", "zoo:dlrm-mlperf", {"batch": 512}),
    ("DLRM-DCNv2, batch 2048", "zoo:dlrm-mlperf", {"batch": 2048}),
]


def anchors() -> Iterator[Claim]:
    """Yield what is published of MTIA 2i (Coburn et al., ISCA 2025) and what comes out."""
    chip = load_chip("mtia-2i")
    yield from _products(chip)
    for label, model, dims in CODED:
        with_code, without = (
            api.run(model, each, dims=dims, gpu=None).report.seconds
            for each in (chip, load_chip("mtia-2i", {"dram.ecc_data_bytes": 0}))
        )
        lost = 100 * (1 - without / with_code)
        yield Claim(f"throughput that ECC takes, {label}", "10 to 15", 10, 15, lost, "%")
    for name, dims in (("dlrm-small", {}), ("dlrm-mlperf", {"batch": 512}), ("dlrm-mlperf", {"batch": 4096})):
        slow, fast = (
            api.run(f"zoo:{name}", load_chip("mtia-2i", {"clock_hz": hz}), dims=dims, gpu=None).report.seconds
            for hz in (1.1e9, 1.35e9)
        )
        label = f"1.1 to 1.35 GHz on {name}" + (f", batch {dims['batch']}" if dims else "")
        yield Claim(label, "+5 to +20", 5, 20, 100 * (slow / fast - 1), "%")
    for seq in (512, 2048):
        prefill = api.run("zoo:llama-2-7b", chip, dims={"seq": seq}, gpu=None).report
        yield Claim(f"Llama-2-7B FP16, prefill of {seq}", "within 600", 0, 600, prefill.seconds * 1e3, "ms")
    decode = api.run("zoo:llama-2-7b", chip, dims={"seq": 1, "past": 2048}, gpu=None).report
    label = "Llama-2-7B FP16, a token after 2048"
    yield Claim(label, "above 60", 60, math.inf, decode.seconds * 1e3, "ms")


def _products(chip: Chip) -> Iterator[Claim]:
    """Yield the claims about single products."""
    square = timed(Gemm(2048, 2048, 2048, "fp16"), chip, "sram")
    label = "FP16 2048 x 2048 x 2048 in SRAM"
    yield Claim(label, "above 92", 92, 100, 100 * square.utilization, "% of peak")
    deep = timed(Gemm(512, 26592, 2048, "fp16"), chip, "weights-dram")
    share = 100 * pins_share(deep, chip)
    label = "FP16 512 x 26592 x 2048, weights in LPDDR"
    yield Claim(label, "above 95", 95, 100, share, "% of DRAM bandwidth, code included")
    narrow = timed(Gemm(2048, 2048, 2048, "fp16"), chip, "sram", "int8")
    label = "INT8 with dynamic quantisation, 2048 x 2048 x 2048"
    yield Claim(label, "about 1.6", 1.55, 1.65, square.seconds / narrow.seconds, "x FP16")


def pins_share(report: Report, chip: Chip) -> float:
    """Return the share of DRAM's bandwidth that streams of a report's bytes take, with their code."""
    assert chip.dram_timing is not None
    code = float(chip.dram_timing.code_per_byte(np.array(1e9), chip.dram.channels))
    moved = (report.traffic.dram_read_bytes + report.traffic.dram_write_bytes) * (1 + code)
    return moved / report.seconds / chip.dram.bytes_per_s
