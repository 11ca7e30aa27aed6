"""Models of one operator: a product, a batched embedding bag. Ordinary ONNX files, like all of the zoo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import streams
from ..errors import UserError, refuse_unknown
from ..types import NARROW_FLOATS, dtype
from .writer import IR_VERSION, OPSET, megabytes

if TYPE_CHECKING:
    import onnx

Array = np.ndarray[Any, Any]
MAX_STORED_BYTES = 1 << 30
GEMM_TYPES = ("fp16", "bf16", "fp32", *(kind.name for kind in NARROW_FLOATS), "int8")
TBE_TYPES = ("fp16", "bf16", "fp32", "int8")


@dataclass(frozen=True)
class _Tensor:
    """A stored tensor: its type, and the function that draws its values."""

    name: str
    kind: str
    shape: tuple[int, ...]
    spread: float = 1.0

    @property
    def bytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.float64)) * dtype(self.kind).bytes

    def values(self, rng: np.random.Generator) -> Array:
        to = dtype(self.kind).numpy
        if to.kind in "iu":
            info = np.iinfo(to)
            return rng.integers(info.min, info.max, self.shape, endpoint=True).astype(to)
        return (rng.standard_normal(self.shape, np.float32) * np.float32(self.spread)).astype(to)


def _check_type(kind: str, known: tuple[str, ...]) -> None:
    if kind not in known:
        raise refuse_unknown("dtype", kind, known)


@dataclass(frozen=True)
class Gemm:
    """a[m,k] times a weight [k,n]; int8 operands give an int32 result."""

    m: int
    k: int
    n: int
    kind: str

    def __post_init__(self) -> None:
        _check_type(self.kind, GEMM_TYPES)

    @property
    def name(self) -> str:
        """Return the model's name, as reports show it."""
        return f"gemm {self.m}x{self.k}x{self.n}"

    @property
    def dims(self) -> dict[str, int]:
        """Return the sizes."""
        return {"m": self.m, "k": self.k, "n": self.n}

    def build(self, folder: Path, seed: int | None) -> Path:
        """Write the ONNX file; with a seed the weight is random, without it is absent."""
        from onnx import helper

        op = "MatMulInteger" if self.kind == "int8" else "MatMul"
        node = helper.make_node(op, ["a", "weight"], ["product"], name="gemm")
        weight = _Tensor("weight", self.kind, (self.k, self.n), self.k**-0.5)
        out = "int32" if self.kind == "int8" else self.kind
        inputs = [("a", self.kind, (self.m, self.k))]
        return _save(folder, _Model([node], inputs, ("product", out, (self.m, self.n)), [weight]), seed)

    def example_inputs(self, seed: int) -> dict[str, Array]:
        """Return a random left side."""
        return {"a": _Tensor("a", self.kind, (self.m, self.k)).values(np.random.default_rng([seed, 1]))}


@dataclass(frozen=True)
class Tbe:
    """Bags of `pooling` rows of each of `tables` tables, summed; the tables lie one after another as one.

    With `kind` "int8" a row is `dim` uint8 values with an fp32 scale and offset of its own; results are fp32.
    """

    tables: int
    rows: int
    dim: int
    pooling: int
    batch: int
    kind: str
    skew: str = "uniform"

    def __post_init__(self) -> None:
        _check_type(self.kind, TBE_TYPES)
        if self.tables * self.rows > 1 << 40:
            raise UserError(f"{self.tables} tables of {self.rows} rows are more than 2^40 rows")
        assert self.law is not None  # a wrong skew is refused before work begins

    @cached_property
    def law(self) -> streams.Law:
        """Return how look-ups fall on the rows of a table."""
        return streams.parse(self.skew)

    @property
    def name(self) -> str:
        """Return the model's name, as reports show it."""
        return f"tbe {self.tables}x{self.rows}x{self.dim} pooling {self.pooling} batch {self.batch}"

    @property
    def dims(self) -> dict[str, int]:
        """Return the sizes."""
        return {
            "tables": self.tables,
            "rows": self.rows,
            "dim": self.dim,
            "pooling": self.pooling,
            "batch": self.batch,
        }

    def build(self, folder: Path, seed: int | None) -> Path:
        """Write the ONNX file; with a seed the tables are random, without they are absent."""
        from onnx import helper

        rows, bags = self.tables * self.rows, self.tables * self.batch
        axes = _stored(helper, "axes", np.array([1], np.int64))
        if self.kind == "int8":
            nodes, stored, out = self._quantised_nodes(helper), self._quantised_tensors(rows), "fp32"
        else:
            nodes = [helper.make_node("Gather", ["table", "indices"], ["found"], name="gather", axis=0)]
            stored, out = [_Tensor("table", self.kind, (rows, self.dim))], self.kind
        nodes.append(helper.make_node("ReduceSum", ["found", "axes"], ["pooled"], name="tbe", keepdims=0))
        inputs, output = [("indices", "int64", (bags, self.pooling))], ("pooled", out, (bags, self.dim))
        return _save(folder, _Model(nodes, inputs, output, stored, [axes]), seed)

    @staticmethod
    def _quantised_nodes(helper: Any) -> list[onnx.NodeProto]:
        """Return rows[i] * scale[i] + offset[i] of gathered rows."""
        gathers = [
            helper.make_node("Gather", [x, "indices"], [f"{x}.rows"], name=f"{x}.gather", axis=0)
            for x in ("table", "scale", "offset")
        ]
        return [
            *gathers,
            helper.make_node("Cast", ["table.rows"], ["wide"], name="cast", to=1),
            helper.make_node("Mul", ["wide", "scale.rows"], ["scaled"], name="scaled"),
            helper.make_node("Add", ["scaled", "offset.rows"], ["found"], name="found"),
        ]

    def _quantised_tensors(self, rows: int) -> list[_Tensor]:
        return [
            _Tensor("table", "uint8", (rows, self.dim)),
            _Tensor("scale", "fp32", (rows, 1), 0.01),
            _Tensor("offset", "fp32", (rows, 1)),
        ]

    @property
    def popularity(self) -> streams.Popularity:
        """Return how unevenly rows of the joined tables are looked up."""
        return streams.Popularity(self.law, self.tables)

    def example_inputs(self, seed: int) -> dict[str, Array]:
        """Return random indices into the joined tables, spread over each table's rows as `skew` says."""
        rng, shape = np.random.default_rng([seed, 2]), (self.batch, self.pooling)
        each = [
            streams.draw(self.law, rng, self.rows, shape) + table * self.rows for table in range(self.tables)
        ]
        return {"indices": np.concatenate(each)}


def _onnx_type(kind: np.dtype[Any]) -> int:
    """Return ONNX's number of an element type; raise `UserError` for one that it has none for."""
    from onnx import helper

    try:
        return int(helper.np_dtype_to_tensor_dtype(kind))
    except (KeyError, ValueError):  # older releases of onnx look it up
        others = ", ".join(name for name in GEMM_TYPES if dtype(name).numpy != kind)
        raise UserError(f"ONNX has no element type {kind} (right: {others})") from None


def _stored(helper: Any, name: str, array: Array) -> onnx.TensorProto:
    return helper.make_tensor(name, _onnx_type(array.dtype), array.shape, array)


def _info(name: str, kind: str, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
    from onnx import helper

    return helper.make_tensor_value_info(name, _onnx_type(dtype(kind).numpy), shape)


_Declared = tuple[str, str, tuple[int, ...]]  # a value's name, dtype and shape


@dataclass(frozen=True)
class _Model:
    """The parts of a model; `stored` are weights, drawn or absent, `constants` are there in any case."""

    nodes: list[onnx.NodeProto]
    inputs: Sequence[_Declared]
    output: _Declared
    stored: list[_Tensor]
    constants: list[onnx.TensorProto] = field(default_factory=list)


def _save(folder: Path, model: _Model, seed: int | None) -> Path:
    """Write the model `operator.onnx` and return its path."""
    import onnx
    from onnx import helper

    size = sum(t.bytes for t in model.stored)
    if seed is not None and size > MAX_STORED_BYTES:
        raise UserError(
            f"executing needs {megabytes(size)} of weights, at most {megabytes(MAX_STORED_BYTES)} are made; "
            "leave out --check and --outputs to only time it"
        )
    tensors = [
        _absent(t) if seed is None else _drawn(t, np.random.default_rng([seed, i]))
        for i, t in enumerate(model.stored)
    ]
    inputs = [_info(*declared) for declared in model.inputs]
    weights = tensors + model.constants
    graph = helper.make_graph(model.nodes, "operator", inputs, [_info(*model.output)], weights)
    file = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    path = folder / "operator.onnx"
    onnx.save(file, path)
    return path


def _drawn(tensor: _Tensor, rng: np.random.Generator) -> onnx.TensorProto:
    from onnx import helper

    values = tensor.values(rng)
    kind = _onnx_type(values.dtype)
    return helper.make_tensor(tensor.name, kind, tensor.shape, values.tobytes(), raw=True)


def _absent(tensor: _Tensor) -> onnx.TensorProto:
    import onnx

    out = onnx.TensorProto(
        name=tensor.name,
        dims=tensor.shape,
        data_location=onnx.TensorProto.EXTERNAL,
        data_type=_onnx_type(dtype(tensor.kind).numpy),
    )
    out.external_data.add(key="location", value="operator.weights")
    return out
