"""Exported models with stored inputs and outputs, each compiled and executed in several number formats."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mtia_emu.compiler.frontend.files import read
from mtia_emu.compiler.graph import Graph
from mtia_emu.compiler.passes.set_precision import own_dtype

from .. import api
from ..errors import UserError
from ..files.npz import read_npz
from ..machine.chip import load_chip
from ..oracle import compare_outputs

Array = np.ndarray[Any, Any]
Progress = Callable[[str, int, int], None]
CHIP = "mtia-2i"
DTYPES = ("fp32", "fp16", "bf16")
QUANTISERS = (
    "DynamicQuantizeLinear",
    "QuantizeLinear",
    "MatMulInteger",
    "DynamicQuantizeMatMul",
    "QAttention",
)
SIZES = {"batch": 1, "sequence": 4, "past": 5, "total": 9, "kv_cache": 16}  # of dimensions that nothing binds


@dataclass(frozen=True)
class FormatRun:
    """One model in one number format: its largest relative error and the tolerance; or why it did not run."""

    error: float
    tolerance: float
    reason: str = ""

    @property
    def passed(self) -> bool:
        """Return whether the outputs are within tolerance."""
        return not self.reason and self.error <= self.tolerance


@dataclass(frozen=True)
class ModelVerdict:
    """What became of a model: by number format where it can be executed, else the seconds it was timed at."""

    name: str
    nodes: int
    runs: dict[str, FormatRun]
    seconds: float = 0.0
    reason: str = ""


def run(folder: Path, progress: Progress | None = None) -> list[ModelVerdict]:
    """Return what became of each `NAME/model.onnx` in a folder, `NAME/io.npz` beside it or not."""
    paths = sorted(folder.glob("*/model.onnx"))
    if not paths:
        raise UserError(f"{folder} has no models (right: a folder of NAME/model.onnx with NAME/io.npz)")
    verdicts = []
    for i, path in enumerate(paths):
        if progress is not None:
            progress("models", i, len(paths))
        verdicts.append(judge(path))
    return verdicts


def judge(path: Path) -> ModelVerdict:
    """Compile and execute one model on its stored inputs; only time it where there are none."""
    name, io, proto = path.parent.name, path.with_name("io.npz"), read(path)
    nodes = len(proto.graph.node)
    if not io.exists():
        try:
            report = api.run(path, CHIP, dims=_sizes(proto), gpu=None).report
        except UserError as error:
            return ModelVerdict(name, nodes, {}, 0.0, str(error))
        return ModelVerdict(name, nodes, {}, report.seconds)
    arrays = read_npz(str(io))
    inputs, expected = (
        {k[len(p) :]: x for k, x in arrays.items() if k.startswith(p)} for p in ("in:", "out:")
    )
    return ModelVerdict(name, nodes, {dtype: _run(path, proto, dtype, inputs, expected) for dtype in DTYPES})


def _run(
    path: Path, proto: Any, dtype: str, inputs: Mapping[str, Array], expected: Mapping[str, Array]
) -> FormatRun:
    chip = load_chip(CHIP)
    try:
        with api.open_model(str(path), {}) as source:
            compiled = api.compile_stages(source, chip, dtype=dtype, inputs=inputs)
        outputs = api.run_program(compiled.program, chip, inputs=inputs, gpu=None).outputs
    except UserError as error:
        return FormatRun(float("inf"), 0.0, str(error))
    tolerance = _tolerance(compiled.onnx, proto, dtype)
    return FormatRun(compare_outputs(outputs, expected, tolerance).max_rel_error, tolerance)


def _tolerance(graph: Graph, proto: Any, dtype: str) -> float:
    """Return the error allowed: that of the widest rounding, the emulator's or that of the stored outputs.

    A model that quantises as it runs crosses rounding edges when it computes in 16 bits; one whose products
    are marked with accuracy level 4 was itself executed with operands of 8 bits.
    """
    own = own_dtype(graph).name
    level = max(api.TOLERANCE.get(d, api.NARROW_TOLERANCE) for d in (dtype, own))
    marked = any(a.name == "accuracy_level" and a.i == 4 for n in proto.graph.node for a in n.attribute)
    quantises = any(n.op_type in QUANTISERS for n in proto.graph.node)
    return api.INT8_TOLERANCE if marked or (quantises and level > api.TOLERANCE["fp32"]) else level


def _sizes(proto: Any) -> dict[str, int]:
    """Return sizes for the symbolic dimensions of a model that has no stored inputs."""
    symbols = {d.dim_param for i in proto.graph.input for d in i.type.tensor_type.shape.dim if d.dim_param}
    return {s: size for s in symbols for part, size in SIZES.items() if s.startswith(part)}
