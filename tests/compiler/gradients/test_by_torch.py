"""Gradient rules held to torch.autograd: random shapes, broadcasting, ties, kinks, repeated indices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mtia_emu.compiler.build import NodeBuilder
from mtia_emu.compiler.gradients.differentiate import differentiate, joined, named
from mtia_emu.compiler.graph import Graph
from mtia_emu.compiler.reference import evaluate

from mtia_emu.types import TensorType, dtype_of

torch: Any = pytest.importorskip("torch", reason="torch is not installed: its gradients are the oracle here")
F = torch.nn.functional if hasattr(torch, "nn") else None
UNARY: dict[str, Callable[[Any], Any]] = {
    "abs": torch.abs, "relu": torch.relu, "exp": torch.exp, "sin": torch.sin, "cos": torch.cos,
    "tanh": torch.tanh, "sigmoid": torch.sigmoid, "erf": torch.erf, "gelu": F.gelu, "silu": F.silu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"), "softplus": F.softplus, "neg": torch.neg,
    "sinh": torch.sinh, "cosh": torch.cosh, "asinh": torch.asinh, "atan": torch.atan,
    "floor": torch.floor, "round": torch.round, "sign": torch.sign,
}  # fmt: skip
BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div, "max": torch.maximum,
    "min": torch.minimum, "mod": torch.remainder, "fmod": torch.fmod,
}  # fmt: skip
SEEDS = st.integers(0, 1 << 16)


def ours(op: str, arrays: list[np.ndarray], weights: np.ndarray, **attrs: object) -> list[np.ndarray]:
    """Return the gradients of sum(op(...) * weights) by each float operand."""
    inputs = {f"x{i}": TensorType(dtype_of(a), a.shape) for i, a in enumerate(arrays)}
    graph = Graph("one", [], inputs, list(inputs)[:1])
    b = NodeBuilder(graph)
    value = b.add(op, *inputs, **attrs)  # type: ignore[arg-type]
    product = b.add("mul", value, b.constant(weights))
    axes = tuple(range(weights.ndim))
    total = b.add("reduce_sum", product, axes=axes, keepdims=False) if axes else product
    graph = joined(graph, b, (named(b, total, "loss"),))
    wrt = [n for n, t in inputs.items() if t.dtype.is_float]
    found = evaluate(differentiate(graph, "loss", wrt), dict(zip(inputs, arrays, strict=True)))
    return [found[f"grad.{n}"] for n in wrt]


def theirs(function: Callable[..., Any], arrays: list[np.ndarray], weights: np.ndarray) -> list[np.ndarray]:
    tensors = [torch.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    (function(*tensors) * torch.tensor(weights)).sum().backward()
    return [np.zeros(t.shape) if t.grad is None else t.grad.numpy() for t in tensors if t.requires_grad]


def agree(op: str, function: Callable[..., Any], arrays: list[np.ndarray], **attrs: object) -> None:
    shape = tuple(function(*map(torch.tensor, arrays)).shape)
    weights = np.random.default_rng(7).standard_normal(shape)
    for one, other in zip(ours(op, arrays, weights, **attrs), theirs(function, arrays, weights), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)


def some(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return numbers of which many are equal, and many are at a kink."""
    kind = rng.integers(3)
    return rng.integers(-2, 3, shape).astype(np.float64) if kind == 0 else rng.standard_normal(shape)


def shapes(rng: np.random.Generator) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return two shapes that broadcast."""
    whole = tuple(int(n) for n in rng.integers(1, 4, rng.integers(0, 4)))
    first = tuple(1 if rng.random() < 0.3 else n for n in whole)
    return first, tuple(1 if rng.random() < 0.3 else n for n in whole[rng.integers(0, len(whole) + 1) :])


@pytest.mark.parametrize("op", UNARY)
@settings(max_examples=8)
@given(seed=SEEDS)
def test_unary(op: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    agree(op, UNARY[op], [some(rng, shapes(rng)[0])])


@pytest.mark.parametrize("op", BINARY)
@settings(max_examples=15)
@given(seed=SEEDS)
def test_binary(op: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = (some(rng, shape) for shape in shapes(rng))
    agree(op, BINARY[op], [a, np.where(b == 0, 0.5, b) if op in ("div", "mod", "fmod") else b])


@settings(max_examples=20)
@given(seed=SEEDS)
def test_powers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = (np.abs(some(rng, shape)) for shape in shapes(rng))
    agree("pow", torch.pow, [a, np.where(b < 1, b + 1, b)])


@settings(max_examples=20)
@given(seed=SEEDS)
def test_products(seed: int) -> None:
    rng = np.random.default_rng(seed)
    m, k, n = (int(x) for x in rng.integers(1, 5, 3))
    left, right = shapes(rng)
    agree("matmul", torch.matmul, [some(rng, (*left, m, k)), some(rng, (*right, k, n))])


@pytest.mark.parametrize("kind", ["sum", "mean", "max", "min"])
@settings(max_examples=10)
@given(seed=SEEDS)
def test_reductions(kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = some(rng, tuple(int(n) for n in rng.integers(1, 4, 3)))
    axes = tuple(sorted(int(a) for a in rng.choice(3, rng.integers(1, 4), replace=False)))
    names = {"sum": torch.sum, "mean": torch.mean, "max": torch.amax, "min": torch.amin}
    agree(f"reduce_{kind}", lambda t: names[kind](t, dim=axes), [x], axes=axes, keepdims=False)


@settings(max_examples=20)
@given(seed=SEEDS)
def test_look_ups_with_repeated_indices(seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = some(rng, (int(rng.integers(1, 6)), 3))
    indices = rng.integers(0, len(table), tuple(rng.integers(1, 4, 2)))
    agree("gather", lambda t, i: F.embedding(i, t), [table, indices], axis=0)
    places = rng.integers(0, 3, (len(table), 2))
    agree("gather_elements", lambda t, i: torch.gather(t, 1, i), [table, places], axis=1)


@pytest.mark.parametrize("mode", ["sum", "mean"])
@settings(max_examples=15)
@given(seed=SEEDS)
def test_bags(mode: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 8))
    cuts = np.sort(rng.integers(0, count + 1, 3))
    offsets = np.concatenate([[0], cuts, [count]]).astype(np.int64)

    def bag(table: Any, indices: Any, ends: Any) -> Any:
        return F.embedding_bag(indices, table, ends, mode=mode, include_last_offset=True)

    arrays = [some(rng, (5, 2)), rng.integers(0, 5, count), offsets]
    agree("embedding_bag", bag, arrays, mode=mode)


@settings(max_examples=15)
@given(seed=SEEDS)
def test_convolutions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    group = int(rng.integers(1, 3))
    strides, dilations = (tuple(map(int, rng.integers(1, 3, 2))) for _ in "ab")
    before = tuple(int(p) for p in rng.integers(0, 2, 2))
    x = rng.standard_normal((2, 2 * group, 5, 6)).astype(np.float32)
    w = rng.standard_normal((group * int(rng.integers(1, 3)), 2, *rng.integers(1, 3, 2))).astype(np.float32)
    plain = {"strides": strides, "dilations": dilations, "group": group}

    def conv(x: Any, w: Any) -> Any:
        return F.conv2d(x, w, stride=strides, padding=before, dilation=dilations, groups=group)

    shape = tuple(conv(torch.tensor(x), torch.tensor(w)).shape)
    weights = rng.standard_normal(shape).astype(np.float32)
    found = ours("conv", [x, w], weights, **plain, pads=(*before, *before), tape="1 -> x0 |", to="fp32")
    for one, other in zip(found, theirs(conv, [x, w], weights), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_norms_and_softmax() -> None:
    rng = np.random.default_rng(0)
    x, w, b = rng.standard_normal((3, 2, 6)), rng.standard_normal(6), rng.standard_normal(6)
    agree("layernorm", lambda x, w, b: F.layer_norm(x, (6,), w, b, 1e-5), [x, w, b], epsilon=1e-5)
    agree("rmsnorm", lambda x, w: F.rms_norm(x, (6,), w, 1e-5), [x, w], epsilon=1e-5)
    agree("softmax", lambda x: F.softmax(x, 1), [x], axis=1)
    agree("log_softmax", lambda x: F.log_softmax(x, 2), [x], axis=2)
    agree("reduce_prod", lambda x: x.prod(2), [np.where(x > 1, 0.0, x)], axes=(2,), keepdims=False)
    agree("cumsum", lambda x: x.cumsum(1), [x], axis=1)
    agree("topk", lambda x: torch.topk(x, 2, dim=2).values, [x], axis=2, k=2)
