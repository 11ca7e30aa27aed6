"""Operators at the edges of their domain: the lowest integer, NaN, negative pads, axes without elements."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mtia_emu.compiler.frontend import load
from mtia_emu.compiler.graph import freeze_attrs
from mtia_emu.compiler.ops import reference
from mtia_emu.compiler.reference import evaluate
from node_cases import Case

from mtia_emu import api
from mtia_emu.errors import UserError

Array = np.ndarray[Any, Any]
NAN, INF = np.nan, np.inf
INTEGERS = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
SPECIAL = np.array(
    [[2, NAN, 7, 4, 1, -INF], [NAN, 2, 7, NAN, 1, INF], [2, 4, 7, 1, NAN, 7], [0, -0.0, -INF, INF, 5, 5]],
    np.float32,
)


def node(op: str, *operands: Array | None, consts: int = 0, opset: int = 19, **attrs: Any) -> Case:
    """Return a case of one standard node whose last `consts` operands are constants."""
    case = Case(op, 2 if op == "TopK" else 1, "", **attrs)
    case.opset = opset
    for i, value in enumerate(operands):
        case.give(value, const=i >= len(operands) - consts)
    return case


def both(case: Case, folder: Path) -> tuple[list[Array], list[Array]]:
    """Return our results, and those of onnx's own evaluator."""
    from onnx.reference import ReferenceEvaluator

    inputs = case.build(folder / "m.onnx")
    graph = load(folder / "m.onnx")
    right = ReferenceEvaluator(str(folder / "m.onnx")).run(None, inputs)
    ours = evaluate(graph, inputs)
    return [ours[name] for name in graph.outputs], list(right)


def held(case: Case, folder: Path) -> None:
    for ours, right in zip(*both(case, folder), strict=True):
        assert ours.dtype == right.dtype
        np.testing.assert_array_equal(ours, right)


def pairs(kind: str) -> list[tuple[int, int]]:
    """Return dividends and divisors of a type, its extremes among them; without the one that overflows."""
    info = np.iinfo(kind)
    low, high = int(info.min), int(info.max)
    edges = {low, low + 1, -7, -1, 0, 1, 3, 7, high // 2, high - 1, high}
    fits = sorted(v for v in edges if low <= v <= high)
    return [(a, b) for a in fits for b in fits if b and (a, b) != (low, -1)]


@pytest.mark.parametrize("kind", INTEGERS)
def test_integers_divide_towards_zero_over_their_whole_range(kind: str) -> None:
    a, b = (np.array(side, kind) for side in zip(*pairs(kind), strict=True))
    quotients = [abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1) for x, y in pairs(kind)]
    right = {
        "div": quotients,
        "mod": [x % y for x, y in pairs(kind)],
        "fmod": [x - y * q for (x, y), q in zip(pairs(kind), quotients, strict=True)],
    }
    for op, values in right.items():
        (ours,) = reference(op, [a, b], {})
        assert ours.dtype == a.dtype and ours.tolist() == values, op


@pytest.mark.parametrize("kind", ["int8", "int64"])
def test_the_lowest_integer_by_minus_one_wraps(kind: str) -> None:
    low = np.array([np.iinfo(kind).min], kind)
    assert reference("div", [low, np.array(-1, kind)], {})[0] == low
    assert reference("mod", [low, np.array(-1, kind)], {})[0] == 0


@pytest.mark.parametrize("kind", ["int32", "int64"])
def test_means_of_integers_are_divided_towards_zero(kind: str, tmp_path: Path) -> None:
    x = np.array([[-7, 2, -2], [-5, 0, 5], [5, 5, 4]], kind)
    held(node("ReduceMean", x, np.array([1]), consts=1, keepdims=0), tmp_path)
    held(node("ReduceMean", x, np.array([0]), consts=1), tmp_path)


@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("largest", [0, 1])
@pytest.mark.parametrize("kind", ["float32", "float16", "float64"])
def test_nan_is_the_largest_of_topk(kind: str, largest: int, axis: int, tmp_path: Path) -> None:
    for k in (0, 1, 3, SPECIAL.shape[axis]):
        held(
            node("TopK", SPECIAL.astype(kind), np.array([k]), consts=1, axis=axis, largest=largest), tmp_path
        )


@pytest.mark.parametrize("kind", INTEGERS)
def test_topk_orders_extreme_integers(kind: str) -> None:
    info = np.iinfo(kind)
    x = np.array([info.min, info.max, 0, info.min + 1, info.max - 1, info.max, info.min, 3], kind)
    for largest in (True, False):
        order = sorted(range(len(x)), key=lambda i: -int(x[i]) if largest else int(x[i]))
        values, index = reference("topk", [x], freeze_attrs({"axis": 0, "k": 8, "largest": largest}))
        assert index.tolist() == order and values.tolist() == x[order].tolist()


@pytest.mark.parametrize("last", [0, 1])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("op", ["ArgMax", "ArgMin"])
def test_argmax_and_argmin_find_nan(op: str, axis: int, last: int, tmp_path: Path) -> None:
    for x in (SPECIAL, np.nan_to_num(SPECIAL)):
        held(node(op, x, axis=axis, select_last_index=last), tmp_path)


@pytest.mark.parametrize("op", ["ArgMax", "ArgMin"])
def test_argmax_of_nothing_is_refused(op: str, tmp_path: Path) -> None:
    node(op, np.zeros((2, 0), np.float32), axis=1).build(tmp_path / "m.onnx")
    with pytest.raises(UserError, match=rf"{op} of fp32\[2,0\] along axis 1: there is no element"):
        load(tmp_path / "m.onnx")


@pytest.mark.parametrize("shape", [(2, 0), (0, 3)])
@pytest.mark.parametrize("op", ["Hardmax", "Softmax", "LogSoftmax"])
@pytest.mark.parametrize("opset", [11, 13])
def test_a_softmax_of_nothing_is_nothing(op: str, opset: int, shape: tuple[int, int], tmp_path: Path) -> None:
    for axis in (0, 1):
        node(op, np.zeros(shape, np.float32), opset=opset, axis=axis).build(tmp_path / "m.onnx")
        graph = load(tmp_path / "m.onnx")
        assert evaluate(graph, {"x0": np.zeros(shape, np.float32)})["y0"].shape == shape


def test_hardmax_takes_nan_for_the_largest(tmp_path: Path) -> None:
    held(node("Hardmax", SPECIAL, axis=1), tmp_path)


@pytest.mark.parametrize("op", ["CumSum"])
@pytest.mark.parametrize("reverse", [0, 1])
def test_exclusive_sums_never_meet_the_last_element(op: str, reverse: int, tmp_path: Path) -> None:
    x = np.array([1, INF, 2, 1e30, 3], np.float32)[:: -1 if reverse else 1].copy()
    held(node(op, x, np.array(0), consts=1, exclusive=1, reverse=reverse), tmp_path)


def test_logsumexp_of_infinities_is_infinite(tmp_path: Path) -> None:
    x = np.array([[INF, 1], [-INF, -INF], [1, -INF]], np.float32)
    inputs = node("ReduceLogSumExp", x, np.array([1]), consts=1, keepdims=0).build(tmp_path / "m.onnx")
    assert evaluate(load(tmp_path / "m.onnx"), inputs)["y0"].tolist() == [INF, -INF, 1]


X = np.arange(1, 13, dtype=np.float32).reshape(3, 4)
CUTS = [(-1, 0, 1, 0), (1, -2, 0, 1), (-1, -1, -1, -1), (0, -3, 0, 2), (2, 1, -1, 0), (-1, 2, 1, -1)]


@pytest.mark.parametrize("pads", CUTS)
@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "wrap"])
def test_negative_pads_take_away_first(mode: str, pads: tuple[int, ...], tmp_path: Path) -> None:
    top, left, bottom, right = pads
    cut = X[max(-top, 0) : 3 - max(-bottom, 0), max(-left, 0) : 4 - max(-right, 0)]
    wide = [(max(top, 0), max(bottom, 0)), (max(left, 0), max(right, 0))]
    expected = np.pad(cut, wide, mode=mode)  # type: ignore[call-overload]
    node("Pad", X, np.array(pads), consts=1, mode=mode).build(tmp_path / "m.onnx")
    np.testing.assert_array_equal(evaluate(load(tmp_path / "m.onnx"), {"x0": X})["y0"], expected)


@pytest.mark.parametrize("pads", [(0, -5, 0, 3), (-2, 0, -2, 0)])
def test_pads_that_take_more_than_all_are_refused(pads: tuple[int, ...], tmp_path: Path) -> None:
    node("Pad", X, np.array(pads), consts=1).build(tmp_path / "m.onnx")
    with pytest.raises(UserError, match=r"Pad of fp32\[3,4\] by -\d and -?\d along axis \d: that takes more"):
        load(tmp_path / "m.onnx")


@pytest.mark.parametrize("mode", ["edge", "reflect", "wrap"])
def test_padding_by_the_elements_of_nothing_is_refused(mode: str, tmp_path: Path) -> None:
    node("Pad", X[:0], np.array([1, 0, 0, 0]), consts=1, mode=mode).build(tmp_path / "m.onnx")
    with pytest.raises(UserError, match=f"in mode {mode}: axis 0 has no element"):
        load(tmp_path / "m.onnx")


@pytest.mark.parametrize("kind", ["float32", "int64", "bool", "uint8"])
@pytest.mark.parametrize("shape", [(), (1,)])
def test_the_value_of_a_pad_may_come_at_run_time(shape: tuple[int, ...], kind: str, tmp_path: Path) -> None:
    value = np.full(shape, 1 if kind == "bool" else 77, kind)
    case = node("Pad", X.astype(kind), np.array([1, 0, 2, 1]), value)
    case.operands[1] = (*case.operands[1][:2], True)
    inputs = case.build(tmp_path / "m.onnx")
    right = np.pad(X.astype(kind), [(1, 2), (0, 1)], constant_values=value.item())
    out = api.run(tmp_path / "m.onnx", "tiny", inputs=inputs, gpu=None).outputs["y0"]
    np.testing.assert_array_equal(out, right)


@pytest.mark.parametrize(
    ("kind", "value"), [("int64", 2**62 + 3), ("uint64", 2**64 - 1), ("int64", -(2**63))]
)
def test_pads_by_integers_beyond_fp64(kind: str, value: int, tmp_path: Path) -> None:
    x = np.array([1, 2], kind)
    inputs = node("Pad", x, np.array([1, 0]), np.array(value, kind), consts=2).build(tmp_path / "m.onnx")
    out = api.run(tmp_path / "m.onnx", "tiny", inputs=inputs, gpu=None).outputs["y0"]
    assert out.tolist() == [value, 1, 2]


@pytest.mark.parametrize("op", ["Max", "Min", "Greater", "Equal"])
def test_nan_beside_numbers(op: str, tmp_path: Path) -> None:
    held(node(op, SPECIAL, SPECIAL[::-1].copy()), tmp_path)


@pytest.mark.parametrize("op", ["ReduceMax", "ReduceMin"])
def test_the_largest_and_the_least_of_nan_is_nan(op: str, tmp_path: Path) -> None:
    held(node(op, SPECIAL, np.array([1]), consts=1), tmp_path)


@pytest.mark.parametrize("op", ["Relu", "Sign", "IsInf", "Abs", "Neg"])
def test_nan_by_itself(op: str, tmp_path: Path) -> None:
    held(node(op, SPECIAL), tmp_path)
