"""Indexing and ordering in ops that run on all PEs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from before_after import cases, hold, lowered
from hypothesis import given
from hypothesis import strategies as st
from mtia_emu.compiler import text
from mtia_emu.compiler.passes import LowerIndexing
from mtia_emu.compiler.pipeline import compile_graph
from mtia_emu.compiler.reference import evaluate

from mtia_emu.machine.chip import load_chip

Array = np.ndarray[Any, Any]
ALL = (LowerIndexing(least=0),)
SCALAR = {"cumprod", "cumsum", "gather_elements", "gather_nd", "one_hot", "scatter_elements", "scatter_nd"}
COMBINE = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}


def run(body: str, **inputs: Array) -> dict[str, Array]:
    """Return the outputs of a graph that the pass has spelt anew."""
    graph = lowered(text.parse(f"graph g {{\n{body}\n}}"), ALL)
    assert not {node.op for node in graph.nodes} & SCALAR
    assert all(step > 0 for node in graph.nodes if node.op == "slice" for step in node.attrs["steps"])
    return evaluate(graph, inputs)


@pytest.mark.parametrize("case", cases("lower-indexing"))
def test_before_and_after(case: str) -> None:
    hold(case)


@given(st.data())
def test_gather_nd_takes_what_numpy_takes(data: st.DataObject) -> None:
    batch, depth, inner = (data.draw(st.integers(low, 2)) for low in (0, 1, 0))
    shape = [data.draw(st.integers(1, 4)) for _ in range(batch + depth + inner)]
    count = data.draw(st.integers(1, 3))
    x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    ranges = [st.integers(-n, n - 1) for n in shape[batch : batch + depth]]
    lead = [*shape[:batch], count]
    index = np.array([[data.draw(r) for r in ranges] for _ in range(int(np.prod(lead)))], np.int64).reshape(
        *lead, depth
    )
    expected = np.empty((*lead, *shape[batch + depth :]), np.float32)
    for at in np.ndindex(*lead):
        expected[at] = x[(*at[:batch], *index[at])]
    body = f"""  in %x : fp32{shape}
  in %i : int64{list(index.shape)}
  %y : fp32{list(expected.shape)} = gather_nd(%x, %i) {{batch_dims={batch}}}
  out %y""".replace(", ", ",").replace("%x,%i", "%x, %i")
    assert (run(body, x=x, i=index)["y"] == expected).all()


@given(st.data())
def test_a_slice_that_goes_backwards_takes_what_numpy_takes(data: st.DataObject) -> None:
    shape = [data.draw(st.integers(1, 6)) for _ in range(data.draw(st.integers(1, 3)))]
    x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    taken = []
    for size in shape:
        step = data.draw(st.sampled_from([-3, -2, -1, 1, 2]))
        start = data.draw(st.integers(0, size - 1))
        end = data.draw(st.integers(-1, start - 1) if step < 0 else st.integers(start + 1, size))
        taken.append(range(start, end, step))
    expected = x[np.ix_(*taken)]
    starts, ends, steps = ([getattr(r, name) for r in taken] for name in ("start", "stop", "step"))
    body = f"""  in %x : fp32{shape}
  %y : fp32{list(expected.shape)} = slice(%x) {{starts={starts}, ends={ends}, steps={steps}}}
  out %y""".replace(", ", ",").replace("],", "], ")
    assert (run(body, x=x)["y"] == expected).all()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_gather_elements_takes_what_numpy_takes(axis: int) -> None:
    rng = np.random.default_rng(axis)
    x = rng.standard_normal((3, 4, 5)).astype(np.float32)
    index = rng.integers(-x.shape[axis], x.shape[axis], (2, 3, 4))
    body = f"""  in %x : fp32[3,4,5]
  in %i : int64[2,3,4]
  %y : fp32[2,3,4] = gather_elements(%x, %i) {{axis={axis}}}
  out %y"""
    cut = x[tuple(slice(None) if a == axis else slice(n) for a, n in enumerate(index.shape))]
    assert (run(body, x=x, i=index)["y"] == np.take_along_axis(cut, index, axis)).all()


@pytest.mark.parametrize("own", [(2, 3, 1), (1, 3, 1), (2, 1, 1), (1, 1, 1)])
def test_an_index_that_is_expanded_takes_whole_rows(own: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(0)
    x, index = rng.standard_normal((2, 6, 8)).astype(np.float32), rng.integers(0, 6, own)
    body = f"""  in %x : fp32[2,6,8]
  in %i : int64[{own[0]},{own[1]},1]
  %e : int64[2,3,8] = expand(%i) {{shape=[2, 3, 8]}}
  %y : fp32[2,3,8] = gather_elements(%x, %e) {{axis=1}}
  out %y"""
    (rows,) = [n for n in lowered(text.parse(f"graph g {{\n{body}\n}}"), ALL).nodes if n.op == "gather"]
    assert rows.type.shape == (2, 3, 8)
    expected = np.take_along_axis(x, np.broadcast_to(index, (2, 3, 8)), 1)
    assert (run(body, x=x, i=index)["y"] == expected).all()


@pytest.mark.parametrize(
    ("indices", "box"),
    [
        ([[1], [2]], np.s_[1:3]),
        ([[-1]], np.s_[3:]),
        ([[0], [1], [2], [3]], np.s_[:]),
        ([[1, 2], [1, 3], [2, 2], [2, 3]], np.s_[1:3, 2:4]),
        ([[0, 4, 1], [0, 4, 2]], np.s_[:1, 4:, 1:3]),
    ],
)
def test_scatter_nd_to_a_box_writes_a_slice(indices: list[list[int]], box: Any) -> None:
    x = np.zeros((4, 5, 3), np.float32)
    new = np.arange(1, 1 + x[box].size, dtype=np.float32)
    depth, count = len(indices[0]), len(indices)
    shape = ",".join(map(str, (count, *x.shape[depth:])))
    body = f"""  in %x : fp32[4,5,3]
  in %u : fp32[{shape}]
  const %i : int64[{count},{depth}] = {[v for row in indices for v in row]}
  %y : fp32[4,5,3] = scatter_nd(%x, %i, %u)
  out %y"""
    expected = x.copy()
    expected[box] = new.reshape(expected[box].shape)
    got = run(body, x=x, u=new.reshape(count, *x.shape[depth:]))["y"]
    assert (got == expected).all()


@given(st.data())
def test_scatters_change_what_numpy_changes(data: st.DataObject) -> None:
    """Rows that come again are changed again, in order."""
    reduction = data.draw(st.sampled_from(["none", "add", "mul", "max", "min"]))
    shape, count = [data.draw(st.integers(1, 4)) for _ in range(3)], data.draw(st.integers(1, 6))
    depth, rng = data.draw(st.integers(1, 3)), np.random.default_rng(count)
    x = rng.integers(-4, 5, shape).astype(np.float32)
    index = np.stack([rng.integers(-n, n, count) for n in shape[:depth]], axis=1)
    new = rng.integers(-4, 5, (count, *shape[depth:])).astype(np.float32)
    one, all_ = ",".join(map(str, shape)), ",".join(map(str, new.shape))
    body = f"""  in %x : fp32[{one}]
  in %i : int64[{count},{depth}]
  in %u : fp32[{all_}]
  %y : fp32[{one}] = scatter_nd(%x, %i, %u) {{reduction="{reduction}"}}
  out %y"""
    expected = x.copy()
    for place, row in zip(index, new, strict=True):
        at = tuple(place)
        expected[at] = row if reduction == "none" else COMBINE[reduction](expected[at], row)
    assert (run(body, x=x, i=index, u=new)["y"] == expected).all()


@pytest.mark.parametrize("spread", [False, True])
@pytest.mark.parametrize("axis", [0, 1])
def test_scatters_by_element_change_what_numpy_changes(axis: int, spread: bool) -> None:
    """An index that is one for all of a row changes rows."""
    rng = np.random.default_rng(axis)
    x, new = rng.standard_normal((5, 4)).astype(np.float32), rng.standard_normal((3, 4)).astype(np.float32)
    own = (3, 1) if spread else (3, 4)
    index = rng.integers(0, 4, own)
    body = f"""  in %x : fp32[5,4]
  in %i : int64[{own[0]},{own[1]}]
  in %u : fp32[3,4]
  %e : int64[3,4] = expand(%i) {{shape=[3, 4]}}
  %y : fp32[5,4] = scatter_elements(%x, %e, %u) {{axis={axis}, reduction="add"}}
  out %y"""
    expected, wide = x.copy(), np.broadcast_to(index, (3, 4))
    for (row, column), value in np.ndenumerate(new):
        at = (wide[row, column], column) if axis == 0 else (row, wide[row, column])
        expected[at] += value
    assert (run(body, x=x, i=index, u=new)["y"] == expected).all()


def test_one_hot_wraps_once() -> None:
    body = """  in %i : int64[2,3]
  const %v : fp32[2] = [0.5, 2]
  %y : fp32[2,4,3] = one_hot(%i, %v) {axis=1, depth=4}
  out %y"""
    index = np.array([[0, 3, -1], [4, -4, -5]])
    expected = np.full((2, 4, 3), 0.5, np.float32)
    for (row, column), value in np.ndenumerate(index):
        if -4 <= value < 4:
            expected[row, value % 4, column] = 2
    assert (run(body, i=index)["y"] == expected).all()


@given(st.data())
def test_topk_takes_what_a_stable_sort_takes_first(data: st.DataObject) -> None:
    largest, rows, size = data.draw(st.booleans()), 2, data.draw(st.integers(1, 6))
    k, axis = data.draw(st.integers(1, size)), data.draw(st.integers(0, 1))
    number = st.sampled_from([0.0, -0.0, 1.0, 2.5, -3.0, np.inf, -np.inf, np.nan])
    x = np.array([[data.draw(number) for _ in range(size)] for _ in range(rows)], np.float32)
    expected = []
    for row in x:
        number_of = [(np.isnan(v), 0.0 if np.isnan(v) else float(v)) for v in row]
        sign = -1 if largest else 1
        order = sorted(range(size), key=lambda i: (sign * number_of[i][0], sign * number_of[i][1], i))
        expected.append(order[:k])
    places = np.array(expected)
    shape, to = (f"{rows},{n}" if axis else f"{n},{rows}" for n in (size, k))
    body = f"""  in %x : fp32[{shape}]
  %y : fp32[{to}], %i : int64[{to}] = topk(%x) {{axis={axis}, k={k}, largest={str(largest).lower()}}}
  out %y
  out %i"""
    got = run(body, x=x if axis else np.ascontiguousarray(x.T))
    assert (got["i"] == (places if axis else places.T)).all()
    values = np.take_along_axis(x, places, 1)
    assert np.array_equal(got["y"], values if axis else values.T, equal_nan=True)


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize(("size", "k", "axis"), [(16384, 3, 1), (20000, 40, 0), (8200 * 3, 1, 1)])
def test_long_rows_are_taken_in_pieces(size: int, k: int, axis: int, largest: bool) -> None:
    """Values that come again and again: of equal ones the first of the whole row comes first."""
    x = np.random.default_rng(size).integers(0, 50, (2, size)).astype(np.float32)
    x[0, 5:9] = np.nan
    shape, to = (f"2,{n}" if axis else f"{n},2" for n in (size, k))
    body = f"""  in %x : fp32[{shape}]
  %y : fp32[{to}], %i : int64[{to}] = topk(%x) {{axis={axis}, k={k}, largest={str(largest).lower()}}}
  out %y
  out %i"""
    got = run(body, x=x if axis else np.ascontiguousarray(x.T))
    order = np.argsort(np.where(np.isnan(x), np.inf, x) * (-1 if largest else 1), axis=1, kind="stable")
    places = order[:, :k]
    assert (got["i"] == (places if axis else places.T)).all()


def test_integers_are_ordered_to_their_ends() -> None:
    body = """  in %x : int32[4]
  %y : int32[4], %i : int64[4] = topk(%x) {axis=0, k=4, largest=true}
  out %y
  out %i"""
    low = np.iinfo(np.int32).min
    got = run(body, x=np.array([low, 5, low, -1], np.int32))
    assert got["y"].tolist() == [5, -1, low, low] and got["i"].tolist() == [1, 3, 0, 2]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("size", [1, 2, 7, 16])
def test_running_sums_and_products(size: int, exclusive: bool, reverse: bool) -> None:
    x = np.random.default_rng(size).integers(-3, 4, (2, size, 3))
    attrs = f"axis=1, exclusive={exclusive}, reverse={reverse}".lower()
    body = f"""  in %x : int64[2,{size},3]
  %s : int64[2,{size},3] = cumsum(%x) {{{attrs}}}
  %p : int64[2,{size},3] = cumprod(%x) {{{attrs}}}
  out %s
  out %p"""
    got = run(body, x=x)
    for at in range(size):
        places = range(at + exclusive, size) if reverse else range(at + 1 - exclusive)
        taken = x[:, list(places)]
        assert (got["s"][:, at] == taken.sum(axis=1)).all() and (got["p"][:, at] == taken.prod(axis=1)).all()


def test_running_sums_of_narrow_floats_are_rounded_once() -> None:
    body = "  in %x : fp16[4096]\n  %y : fp16[4096] = cumsum(%x) {axis=0}\n  out %y"
    assert (
        run(body, x=np.ones(4096, np.float16))["y"].tolist() == np.arange(1, 4097, dtype=np.float16).tolist()
    )


def test_nothing_large_is_left_to_one_core() -> None:
    graph = text.parse("""graph g {
  in %x : fp16[4,20000]
  in %i : int64[4,2]
  %v : fp16[4,1], %p : int64[4,1] = topk(%x) {axis=1, k=1, largest=true}
  %g : fp16[4,2] = gather_elements(%x, %i) {axis=1}
  %n : fp16[4] = gather_nd(%x, %i)
  out %v
  out %p
  out %g
  out %n
}""")
    steps = compile_graph(graph, load_chip("mtia-2i"), dtype="fp16").schedule.steps
    kernels = {s.kernel for s in steps if sum(math.prod(view.shape) for view in s.inputs) >= 1024}
    assert "scalar" not in kernels and {"gather", "top"} <= kernels


@pytest.mark.parametrize(
    "body",
    [
        """  in %i : int64[10]
  const %v : fp32[2] = [0.0, 1.0]
  %y : fp32[10,1000000000] = one_hot(%i, %v) {axis=1, depth=1000000000}
  out %y""",
        """  in %x : fp32[1000000000,4,4]
  in %i : int64[1000000000,1]
  %y : fp32[1000000000,4] = gather_nd(%x, %i) {batch_dims=1}
  out %y""",
        """  in %x : fp32[1000000000,4]
  in %i : int64[1000000000,1]
  %y : fp32[1000000000,1] = gather_elements(%x, %i) {axis=1}
  out %y""",
    ],
)
def test_places_that_are_too_many_to_count_are_left_to_a_core(body: str) -> None:
    graph = text.parse(f"graph g {{\n{body}\n}}")
    (outcome,) = LowerIndexing().outcomes(graph)
    assert outcome.reason == "it takes a constant of 1000000000 elements (at most 4194304 are made)"
