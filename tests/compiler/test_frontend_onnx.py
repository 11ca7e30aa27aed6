"""ONNX's own node tests: each imports and computes the right values, or is refused by name."""

from __future__ import annotations

import functools
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from mtia_emu.compiler.check import check
from mtia_emu.compiler.frontend import load
from mtia_emu.compiler.reference import evaluate
from onnx import numpy_helper

from mtia_emu.errors import UserError

PASSING = 1280  # of 1,884 node tests of onnx 1.23; the others need operators or operands that we do not have
PARTS = 8


@functools.cache
def cases() -> list[Any]:
    """Return the node tests whose operands are tensors."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = collect_testcases(None)
    arrays = (np.ndarray, np.generic)
    return [c for c in found if c.data_sets and all(isinstance(x, arrays) for x in c.data_sets[0][0])]


def with_constants(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> onnx.ModelProto:
    """Return a model whose inputs are constants, all but the first: for sizes and axes given as inputs."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for value in list(copy.graph.input)[1 if len(feed) > 1 else 0 :]:
        copy.graph.initializer.append(numpy_helper.from_array(feed[value.name], value.name))
        copy.graph.input.remove(value)
    return copy


def outputs_of(case: Any, path: Path) -> dict[str, np.ndarray]:
    """Return what our graph of a node test computes."""
    feed = {i.name: np.asarray(x) for i, x in zip(case.model.graph.input, case.data_sets[0][0], strict=False)}
    for model in (case.model, with_constants(case.model, feed)):
        path.write_bytes(model.SerializeToString())
        names = {i.name for i in model.graph.input}
        given = {k: v for k, v in feed.items() if k in names}
        try:
            graph = check(load(path, {}, input_shapes={k: v.shape for k, v in given.items()}))
        except UserError as error:
            if "depend" not in str(error) or model is not case.model:
                raise
        else:
            return evaluate(graph, given)
    raise AssertionError("not reached")


def wrong(case: Any, got: dict[str, np.ndarray]) -> str:
    """Return how the values differ from the right ones; "" when they do not."""
    for output, right in zip(case.model.graph.output, case.data_sets[0][1], strict=False):
        right, ours = np.asarray(right), got[output.name]
        if (ours.shape, ours.dtype) != (right.shape, right.dtype):
            return f"{output.name} is {ours.dtype}{ours.shape}, not {right.dtype}{right.shape}"
        if right.dtype.kind in "iub":
            if not np.array_equal(ours, right):
                return f"{output.name} differs"
            continue
        narrow = right.dtype.itemsize <= 2
        close = {"rtol": 1e-2 if narrow else max(case.rtol, 1e-4), "atol": 2e-2 if narrow else 1e-6}
        if not np.allclose(ours.astype(np.float64), right.astype(np.float64), equal_nan=True, **close):
            return f"{output.name} differs"
    return ""


@pytest.mark.parametrize("part", range(PARTS))
def test_node_tests_are_right_or_refused(part: int, tmp_path: Path) -> None:
    passed, faults, total = 0, [], cases()[part::PARTS]
    for case in total:
        try:
            got = outputs_of(case, tmp_path / "m.onnx")
        except UserError:
            continue
        fault = wrong(case, got)
        if fault:
            faults.append(f"{case.name}: {fault}")
        passed += not fault
    assert not faults
    assert passed >= PASSING / PARTS * 0.9  # the parts differ a little
