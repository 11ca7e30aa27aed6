"""What a model rounds is rounded: casts, by themselves, in fused chains and folded, hold to NumPy's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from onnx import NodeProto, TensorProto, helper
from run_model import execute, model_of, read

Array = np.ndarray[Any, Any]
FLOATS: dict[str, Any] = {
    "FLOAT": np.float32,
    "FLOAT16": np.float16,
    "BFLOAT16": ml_dtypes.bfloat16,
    "DOUBLE": np.float64,
    "FLOAT8E4M3FN": ml_dtypes.float8_e4m3fn,
    "FLOAT8E5M2": ml_dtypes.float8_e5m2,
    "FLOAT8E4M3FNUZ": ml_dtypes.float8_e4m3fnuz,
    "FLOAT8E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
}
INTEGERS: dict[str, Any] = {n: np.dtype(n.lower()) for n in ("INT8", "UINT8", "INT16", "INT32", "INT64")}
SPECIAL = [
    0, -0.0, 1, -1, 0.5, 1.5, 2.5, -2.5, 2049, -2051, 65504, 65519, 65520, 70000, -70000, 448, 449, 464, 465,
    240, 248, 57344, 61440, 1e-8, -1e-8, 6e-8, 3e-5, 0.3, 1 / 3, -1.9, 255.5, 127.5, 128.5, -128.6, 1e30,
    -1e38, 1e-40, 3.3895e38, 16777217, np.inf, -np.inf, np.nan,
]  # fmt: skip
X = np.array(SPECIAL, np.float32)


def converted(x: Array, to: str, saturate: bool) -> Array:
    """Return what ONNX's Cast says of values, by NumPy's and ml_dtypes' conversions."""
    if to in INTEGERS:
        return x.astype(INTEGERS[to])
    kind = FLOATS[to]
    if not to.startswith("FLOAT8"):
        return x.astype(kind)
    wide = x.astype(np.float32)
    if saturate:
        top = float(ml_dtypes.finfo(kind).max)
        wide = np.where(np.isnan(wide), wide, np.clip(wide, -top, top))
    return wide.astype(kind)


@dataclass
class Chain:
    """Random casts, and fp32 work between them, with the values that they have."""

    rng: np.random.Generator
    value: Array = field(default_factory=X.copy)
    kind: str = "FLOAT"
    name: str = "x"
    nodes: list[NodeProto] = field(default_factory=list)
    consts: dict[str, Array] = field(default_factory=dict)

    def grow(self) -> Chain:
        for _ in range(self.rng.integers(2, 7)):
            if self.kind == "FLOAT" and self.rng.random() < 0.5:
                self._compute()
            else:
                self._cast(self._next())
        if self.kind != "FLOAT":
            self._cast("FLOAT")
        return self

    def _put(self, op: str, *inputs: str, **attrs: Any) -> None:
        self.name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [self.name], **attrs))

    def _compute(self) -> None:
        op = str(self.rng.choice(["Add", "Mul", "Sub", "Neg"]))
        if op == "Neg":
            self.value = -self.value
            return self._put(op, self.name)
        number, name = np.float32(self.rng.choice([1, 0.5, 3, 0.1, -2, 1e3])), f"c{len(self.nodes)}"
        self.consts[name] = number
        self.value = {"Add": np.add, "Mul": np.multiply, "Sub": np.subtract}[op](self.value, number)
        return self._put(op, self.name, name)

    def _next(self) -> str:
        """Return a type that the values can be cast to: NumPy alone knows what integers overflow to."""
        if self.kind in INTEGERS:
            return str(self.rng.choice([*INTEGERS, *FLOATS]))
        to = str(self.rng.choice([*INTEGERS, *FLOATS, *FLOATS]))
        if to not in INTEGERS:
            return to
        wide, held = np.trunc(self.value.astype(np.float64)), np.iinfo(INTEGERS[to])
        return to if (wide >= held.min).all() and (wide <= min(held.max, 2**52)).all() else "FLOAT16"

    def _cast(self, to: str) -> None:
        if to == self.kind:
            return
        saturate = bool(self.rng.integers(2)) or not to.startswith("FLOAT8")
        self.value = converted(self.value, to, saturate)
        attrs = {} if saturate else {"saturate": 0}
        self._put("Cast", self.name, to=TensorProto.DataType.Value(to), **attrs)
        self.kind = to


def hold(seed: int) -> None:
    """Compare a chain, executed and folded, with what each of its nodes makes."""
    with np.errstate(all="ignore"):
        chain = Chain(np.random.default_rng(seed)).grow()
        nodes = [*chain.nodes, helper.make_node("Identity", [chain.name], ["y"])]
        run = execute(model_of(nodes, {"x": X}, ["y"], chain.consts), {"x": X}, "fp32")
        folded = execute(model_of(nodes, {}, ["y"], chain.consts | {"x": X}), {}, "fp32")
    for way in (run, folded):
        np.testing.assert_array_equal(way["y"], chain.value, str([n.op_type for n in nodes]))


@pytest.mark.parametrize("seed", range(24))
def test_chains_of_casts(seed: int) -> None:
    hold(seed)


@pytest.mark.deep
@pytest.mark.parametrize("seed", range(24, 600))
def test_many_chains_of_casts(seed: int) -> None:
    hold(seed)


@pytest.mark.parametrize("dtype", [None, "fp32", "fp16", "bf16"])
@pytest.mark.parametrize(
    ("to", "values", "right"),
    [
        (10, [70000.0, 2049.0, -1e6], [np.inf, 2048.0, -np.inf]),  # fp16
        (16, [257.0, 2.0**-130], [256.0, 2.0**-130]),  # bf16
        (17, [500.0, -500.0, 9.5], [448.0, -448.0, 10.0]),  # e4m3fn
        (19, [70000.0, 9.0], [57344.0, 8.0]),  # e5m2
    ],
)
def test_a_narrowing_is_kept_in_every_format(
    to: int, values: list[float], right: list[float], dtype: str | None
) -> None:
    """Between ops that are fused, also where the format that the model runs in is as narrow."""
    text = f"g (float[{len(values)}] x) => (float[{len(values)}] y) {{ a = Mul(x, one) b = Cast<to={to}>(a)"
    text += " c = Cast<to=1>(b) d = Neg(c) y = Neg(d) }"
    model = read(text.replace("{ a", "<float[1] one = {1.0}> { a", 1))
    held = np.array(right).astype(
        {"bf16": ml_dtypes.bfloat16, "fp32": np.float32}.get(str(dtype), np.float16)
    )
    got = execute(model, {"x": np.array(values, np.float32)}, dtype)["y"]
    np.testing.assert_array_equal(got, held.astype(np.float32))


def test_a_cast_behind_a_product_rounds_on_its_tiles() -> None:
    model = read(
        "g (float[2,2] x) => (float[2,2] y) <float[2,2] w = {1.0, 0.0, 0.0, 1.0}> "
        "{ p = MatMul(x, w) h = Cast<to=10>(p) f = Cast<to=1>(h) y = Add(f, w) }"
    )
    x = np.array([[2049, 70000], [1, -2051]], np.float32)
    with np.errstate(over="ignore"):
        right = x.astype(np.float16).astype(np.float32) + np.eye(2, dtype=np.float32)
    np.testing.assert_array_equal(execute(model, {"x": x}, "fp32")["y"], right)


@pytest.mark.parametrize("dtype", [None, "fp32", "bf16"])
def test_integers_wrap_in_narrower_ones(dtype: str | None) -> None:
    model = read(
        "g (int64[4] i, float[3] f) => (int64[4] u, int64[4] s, float[3] q) <int64 one = {1}> "
        "{ a = Cast<to=2>(i) b = Cast<to=7>(a) u = Add(b, one) c = Cast<to=5>(i) s = Cast<to=7>(c) "
        "d = Cast<to=6>(f) q = Cast<to=1>(d) }"
    )
    given = {"i": np.array([300, -1, 255, 70000]), "f": np.array([1.75, -1.75, 100.5], np.float32)}
    got = execute(model, given, dtype)
    assert got["u"].tolist() == [45, 256, 256, 113]
    assert got["s"].tolist() == [300, -1, 255, 4464]
    assert got["q"].tolist() == [1.0, -1.0, 100.0]


def test_doubles_are_rounded_once() -> None:
    """1 + 2**-11 + 2**-40 is above the tie between two neighbours in fp16; in fp32 it is that tie."""
    model = read(
        "g (double[2] x) => (float[2] h, float[2] b, float[2] e) "
        "{ a = Cast<to=10>(x) h = Cast<to=1>(a) c = Cast<to=16>(x) b = Cast<to=1>(c) d = Cast<to=17>(x) "
        "e = Cast<to=1>(d) }"
    )
    x = np.array([1 + 2.0**-11 + 2.0**-40, 1 + 2.0**-4 + 2.0**-40])
    got = execute(model, {"x": x})
    assert got["h"].tolist() == [1 + 2.0**-10, 1 + 2.0**-4]
    assert got["e"].tolist() == [1.0, 1 + 2.0**-3]
