"""Random configurations of one ONNX node, and how our values of it are held to the oracle's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mtia_emu.compiler.check import check
from mtia_emu.compiler.frontend import load
from mtia_emu.compiler.reference import evaluate
from onnx import helper, numpy_helper, save

from mtia_emu.errors import UserError
from mtia_emu.oracle import expected_outputs

Rng = np.random.Generator
Array = np.ndarray[Any, Any]
Maker = Callable[[Rng], "Case"]


class Case:
    """One node: its operands by name in order (None for an omitted one), its constants, results, attributes.

    `rows` says which rows of the first result mean something, [batch, length]; `ends` how many do of the
    others, which are caches [batch, heads, rows, size].
    """

    def __init__(self, op: str, results: int = 1, domain: str = "com.microsoft", **attrs: Any) -> None:
        self.op, self.results, self.domain, self.attrs = op, results, domain, attrs
        self.operands: list[tuple[str, Array | None, bool]] = []
        self.rows: Array | None = None
        self.ends: Array | None = None
        self.tolerance = 2e-5
        self.opset = 21
        self.steps = 0  # of the last place, that a result in bytes may differ by

    def give(self, value: Array | None, const: bool = False) -> Case:
        """Add an operand."""
        name = f"x{len(self.operands)}" if value is not None else ""
        self.operands.append((name, None if value is None else np.asarray(value), const))
        return self

    def build(self, path: Path) -> dict[str, Array]:
        """Write the model; return its inputs."""
        while self.operands and self.operands[-1][1] is None:
            self.operands.pop()
        names = [name for name, _, _ in self.operands]
        outputs = [f"y{i}" for i in range(self.results)]
        node = helper.make_node(self.op, names, outputs, domain=self.domain, **self.attrs)
        given = {n: v for n, v, const in self.operands if v is not None and not const}
        consts = [numpy_helper.from_array(v, n) for n, v, const in self.operands if v is not None and const]
        kinds = [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
            for n, v in given.items()
        ]
        ends = [helper.make_empty_tensor_value_info(n) for n in outputs]
        graph = helper.make_graph([node], "g", kinds, ends, consts)
        opsets = [
            helper.make_opsetid(*o) for o in (("", self.opset), ("com.microsoft", 1), ("ai.onnx.ml", 3))
        ]
        save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
        return given


def f32(rng: Rng, *shape: int) -> Array:
    return rng.standard_normal(shape).astype(np.float32)


def pick(rng: Rng, *choices: Any) -> Any:
    return choices[rng.integers(len(choices))]


def positive(rng: Rng, *shape: int) -> Array:
    return rng.uniform(0.01, 0.1, shape).astype(np.float32)


def byte(rng: Rng, kind: Any, *shape: int) -> Array:
    info = np.iinfo(kind)
    return rng.integers(info.min, info.max + 1, shape).astype(kind)


def hold(make: Maker, seed: int, path: Path) -> None:
    """Compare our values of a random case with the oracle's; skip where that refuses the configuration."""
    case = make(np.random.default_rng([seed, sum(map(ord, make.__name__))]))
    given = case.build(path)
    try:
        right = expected_outputs(path, given).outputs
    except UserError as error:
        pytest.skip(f"the oracle refuses this configuration: {error}")
    got = evaluate(check(load(path, {}, input_shapes={k: v.shape for k, v in given.items()})), given)
    for i, (output, value) in enumerate(right.items()):
        mine = got[output]
        assert (mine.shape, mine.dtype) == (value.shape, value.dtype)
        _compare(case, i, mine.astype(np.float64), value.astype(np.float64), value.dtype.kind in "iu")


def _compare(case: Case, result: int, a: Array, b: Array, exact: bool) -> None:
    if case.rows is not None and result == 0:
        a, b = a[case.rows], b[case.rows]
    if case.ends is not None and result:
        used = np.arange(a.shape[2]) < case.ends[:, None]
        a, b = (x.transpose(0, 2, 1, 3)[used] for x in (a, b))
    scale = max(np.abs(b[np.isfinite(b)]).max(initial=0.0), 1.0)
    np.testing.assert_allclose(a, b, rtol=0, atol=case.steps if exact else case.tolerance * scale)
