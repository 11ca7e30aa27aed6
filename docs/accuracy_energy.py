"""Watts beside published power, the part of them that is inferred, and the chips that are not MTIA 1 or 2i.

`python docs/accuracy_energy.py [power|gap|gpu|peaks|gemm|add ...]` prints docs/accuracy-energy.md's tables.
`gap` infers the size of `energy.clock_pf_per_mm2` anew: the chip files carry what it prints.
"""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np

from mtia_emu import api
from mtia_emu.machine.chip import Chip, load_chip
from mtia_emu.machine.supply import supply_v
from mtia_emu.options import BOARD, CHIP, SERVER
from mtia_emu.results.report import Report, compare
from mtia_emu.silicon import area
from mtia_emu.zoo.operators import Gemm

Table = tuple[Sequence[str], list[list[object]]]
DATA = Path(__file__).resolve().parent / "data"
LLAMA = ("zoo:llama-2-7b", {"seq": 512})
BUSY = ("int8 2048^3, SRAM", "16-bit 2048^3, SRAM", "Llama-2-7B, prefill of 512")
OTHERS = ("16-bit 512x26592x2048, DRAM", "Llama-2-7B, a token after 512", "DLRM-DCNv2, batch 512")
BASED_ON = {"mtia-1": "7 nm", "mtia-2i": "5 nm"}  # the chips with published power on which a size is inferred
PARTS = ("compute", "local", "sram", "noc", "control", "dram", "static", "clock")


@dataclass(frozen=True)
class Add:
    """One addition of two bf16 arrays, as an operator that the product can run."""

    elements: int
    name: str = "add"

    popularity = None  # no rows are looked up

    @property
    def dims(self) -> dict[str, int]:
        """Return the sizes."""
        return {"elements": self.elements}

    def build(self, folder: Path, seed: int | None) -> Path:
        """Write the ONNX file; there is nothing random in it."""
        import onnx
        from onnx import TensorProto, helper

        shape = [self.elements >> 12, 1 << 12]
        x, y, z = (helper.make_tensor_value_info(v, TensorProto.BFLOAT16, shape) for v in "xyz")
        node = helper.make_node("Add", ["x", "y"], ["z"], name="add")
        graph = helper.make_graph([node], "add", [x, y], [z])
        path = folder / "add.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), path)
        return path

    def example_inputs(self, seed: int) -> dict[str, np.ndarray]:
        """Return nothing: it is only timed."""
        return {}


def run_operator(operator: api.Operator, chip: Chip, dtype: str | None, place: str) -> Report:
    """Return the report of one operator on a chip."""
    with api.operator_source(operator, None) as source:
        return api.run_source(source, chip, dtype=dtype, gpu=None, place=place).report


def product(chip: Chip, sizes: tuple[int, int, int], kind: str, place: str) -> Report:
    """Return the report of a product of sizes (m, k, n)."""
    return run_operator(Gemm(*sizes, kind), chip, None if kind == "int8" else kind, place)


def wide(chip: Chip) -> str:
    """Return the 16-bit float that the chip multiplies."""
    return "fp16" if chip.pe.matrix.supports("fp16") else "bf16"


def programs(chip: Chip, names: Iterable[str]) -> dict[str, Report]:
    """Return the reports of named programs on a chip; one whose dtype the chip lacks is left out."""
    cube, thin = (2048, 2048, 2048), (512, 26592, 2048)
    model, prefill = LLAMA
    ways: dict[str, Callable[[], Report]] = {
        BUSY[0]: lambda: product(chip, cube, "int8", "sram"),
        BUSY[1]: lambda: product(chip, cube, wide(chip), "sram"),
        BUSY[2]: lambda: api.run(model, chip, dims=prefill, gpu=None).report,
        OTHERS[0]: lambda: product(chip, thin, wide(chip), "dram"),
        OTHERS[1]: lambda: api.run(model, chip, dims={"seq": 1, "past": 512}, gpu=None).report,
        OTHERS[2]: lambda: api.run("zoo:dlrm-mlperf", chip, dims={"batch": 512}, gpu=None).report,
    }
    skip = {BUSY[0]} if not chip.pe.matrix.supports("int8") else set()
    return {name: ways[name]() for name in names if name not in skip}


def watts(report: Report) -> dict[str, float]:
    """Return average power by component, in watts."""
    return {name: joules / report.seconds for name, joules in asdict(report.joules_by).items()}


def power() -> Table:
    """Return average watts by component of busy and other programs, beside the published band."""
    rows: list[list[object]] = []
    for name in (*BASED_ON, "tpu-v4i", "mtia-300"):
        chip = load_chip(name)
        for program, report in programs(chip, (*BUSY, *OTHERS)).items():
            total = report.watts
            side = "below" if total < chip.typical_w else "above" if total > chip.tdp_w else "between"
            parts = watts(report)
            band = f"{chip.typical_w:g} / {chip.tdp_w:g}"
            rows.append([name, program, *(f"{parts[p]:.1f}" for p in PARTS), f"{total:.1f}", band, side])
    head = ["chip", "program", *PARTS[:-1], "clock (inferred)", "watts", "typical / TDP", "stands"]
    return head, rows


@cache
def ungapped(name: str, price_voltage_v: float) -> float:
    """Return the mean power of the busy programs without the inferred part, in watts."""
    settings = {"energy.price_voltage_v": price_voltage_v, "energy.clock_pf_per_mm2": 0.0}
    return mean(r.watts for r in programs(load_chip(name, settings), BUSY).values())


def inferred_pf_per_mm2(name: str, price_voltage_v: float) -> float:
    """Return the gap on a chip: what brings the busy mean midway between typical power and TDP."""
    chip = load_chip(name)
    gap = (chip.typical_w + chip.tdp_w) / 2 - ungapped(name, price_voltage_v)
    return max(0.0, gap / clock_w_per_pf_per_mm2(chip))


def clock_w_per_pf_per_mm2(chip: Chip) -> float:
    """Return the watts that 1 pF/mm2 of switched capacitance takes on a chip."""
    return 1e-12 * area(chip).total_mm2 * supply_v(chip) ** 2 * chip.clock_hz


def gap() -> Table:
    """Return the inferred size on each chip, and what it predicts on the other."""
    rows: list[list[object]] = []
    for volts in (load_chip("mtia-1").energy.price_voltage_v, 0.85):
        for name in BASED_ON:
            other = next(x for x in BASED_ON if x != name)
            size, chip = inferred_pf_per_mm2(name, volts), load_chip(other)
            bare = ungapped(name, volts)
            predicted = ungapped(other, volts) + size * clock_w_per_pf_per_mm2(chip)
            rows.append(
                [
                    f"{volts:g}",
                    name,
                    f"{bare:.1f}",
                    f"{size * clock_w_per_pf_per_mm2(load_chip(name)):.1f}",
                    f"{size:.1f}",
                    f"{load_chip(name).energy.clock_pf_per_mm2:g}",
                    other,
                    f"{predicted:.1f}",
                    f"{chip.typical_w:g} / {chip.tdp_w:g}",
                ]
            )
    head = ["price V", "inferred on", "events and static, W", "gap, W", "gap, pF/mm2", "in its file"]
    return [*head, "predicts", "mean busy W", "typical / TDP"], rows


BESIDE = (
    ("zoo:dlrm-small", {"batch": 64}),
    ("zoo:dlrm-small", {"batch": 2048}),
    ("zoo:dlrm-mlperf", {"batch": 512}),
    ("zoo:dlrm-mlperf", {"batch": 2048}),
    LLAMA,
)


def gpu() -> Table:
    """Return performance per watt of MTIA 2i over an H100's, on each basis."""
    rows: list[list[object]] = []
    for model, dims in BESIDE:
        done = api.run(model, "mtia-2i", dims=dims, gpu="h100-sxm")
        assert done.gpu is not None
        given = ", ".join(f"{k}={v}" for k, v in done.report.dims.items())
        each = {basis: compare(done.report, done.gpu, basis) for basis in (CHIP, BOARD, SERVER)}
        board = each[BOARD]
        rows.append(
            [f"`{model}`", given, f"{board.chip_joules:.3g}", f"{board.gpu_joules:.3g}",
             *(f"{x.perf_per_watt:.2f}" for x in each.values())]
        )  # fmt: skip
    return ["model", "sizes", "MTIA 2i, J (board)", "H100, J (board)", *(CHIP, BOARD, SERVER)], rows


PEAKS = [  # chip, dtype, published peak in TOPS, source
    ("mtia-1", "int8", 102.4, "ISCA 2023, table I"),
    ("mtia-1", "fp16", 51.2, "ISCA 2023, table I"),
    ("mtia-2i", "int8", 354, "ISCA 2025, table 2"),
    ("mtia-2i", "fp16", 177, "ISCA 2025, table 2"),
    ("mtia-300", "fp8_e4m3", 1120, "ISCA 2026, table I"),
    ("mtia-300", "fp16", 560, "ISCA 2026, table I"),
    ("tpu-v4i", "int8", 138, "Jouppi et al., ISCA 2021 (recalled)"),
    ("tpu-v4i", "bf16", 138, "Jouppi et al., ISCA 2021 (recalled)"),
]


def peaks() -> Table:
    """Return each chip's peak beside the published one, and what large products reach of it."""
    rows: list[list[object]] = []
    for name, kind, tops, source in PEAKS:
        chip = load_chip(name)
        peak = 2e-12 * chip.pes * chip.pe.matrix.macs_per_cycle(kind) * chip.clock_hz
        reached = product(chip, (2048, 2048, 2048), kind, "sram").utilization
        rows.append([name, kind, f"{tops:g}", f"{peak:.1f}", f"{reached:.1%}", source])
    return ["chip", "type", "published, TOPS", "here, TOPS", "2048^3 in SRAM reaches", "source"], rows


def published(name: str) -> list[Mapping[str, str]]:
    """Return the rows of a file of published figures."""
    lines = [x for x in (DATA / name).read_text(encoding="utf-8").splitlines() if not x.startswith("#")]
    return list(csv.DictReader(lines))


def gemm() -> Table:
    """Return bf16 products of MTIA 300 by arithmetic intensity, with stand-ins of that intensity."""
    rows: list[list[object]] = []
    edges = [0.0, 100.0, 200.0, 400.0, 800.0, 2000.0]
    cases = [(float(r["flop_per_byte"]), float(r["tflops"])) for r in published("mtia300_gemm.csv")]
    for low, high in pairwise(edges):
        here = [case for case in cases if low <= case[0] < high]
        ours = [_stand_in_tflops(round(intensity / (1 - intensity / 2048))) for intensity, _ in here]
        ratios = [got / want for got, (_, want) in zip(ours, here, strict=True)]
        theirs = [want for _, want in here]
        cell = [f"{median(x):.0f}" for x in (theirs, ours)]
        rows.append([f"{low:g} to {high:g}", len(here), *cell, f"{median(ratios):.2f}"])
    return ["FLOP/B", "cases", "published, TFLOP/s", "here, TFLOP/s", "median ratio"], rows


@cache
def _stand_in_tflops(m: int) -> float:
    """Return the rate of a bf16 product m x 4096 x 4096 on MTIA 300, of m / (1 + m / 2048) FLOP a byte."""
    report = product(load_chip("mtia-300"), (m, 4096, 4096), "bf16", "dram")
    return 2e-12 * report.macs / report.seconds


def add() -> Table:
    """Return additions of bf16 arrays on MTIA 300 beside published times."""
    chip = load_chip("mtia-300")
    rows: list[list[object]] = []
    for row in published("mtia300_add.csv"):
        elements, want = int(row["elements"]), float(row["microseconds"])
        report = run_operator(Add(elements), chip, "bf16", "dram")
        got = report.seconds * 1e6
        rate = 6 * elements / report.seconds / 1e9
        theirs = 6 * elements / want / 1e3
        numbers = [f"{theirs:.0f}", f"{rate:.0f}", f"{got / want:.2f}"]
        rows.append([f"2^{int(math.log2(elements))}", want, f"{got:.1f}", *numbers])
    return ["elements", "published, us", "here, us", "published, GB/s", "here, GB/s", "ratio of time"], rows


SECTIONS: dict[str, Callable[[], Table]] = {f.__name__: f for f in (power, gap, gpu, peaks, gemm, add)}


def main(names: Sequence[str]) -> None:
    """Print the named tables, or all."""
    from rich.console import Console

    from mtia_emu.view.terminal import print_table

    unknown = [name for name in names if name not in SECTIONS]
    if unknown:
        sys.exit(f"error: no table {unknown[0]!r} (known: {', '.join(SECTIONS)})")
    for name in names or SECTIONS:
        head, rows = SECTIONS[name]()
        cells: list[list[Any]] = [[str(cell) for cell in row] for row in rows]
        print_table(name, head, cells, Console(width=None if sys.stdout.isatty() else 200))


if __name__ == "__main__":
    main(sys.argv[1:])
