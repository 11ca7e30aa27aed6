"""The loops that exporters write for an embedding bag, in all their forms, become one node each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from mtia_emu.compiler.frontend import load
from mtia_emu.compiler.graph import Graph
from mtia_emu.compiler.reference import evaluate

from mtia_emu.errors import UserError

LEGACY = """<ir_version: 8, opset_import: ["" : 17]>
g (int64[n] indices, int64[b] offsets, float[n] weights) => (float[m, 4] y)
<int64[1] zero = {0}, int64[1] one = {1}, int64[1] far = {9223372036854775807}, int64 first = {0},
 bool yes = {1}>
{
  size = Shape (indices)
  count = Gather (size, first)
  last = Unsqueeze (count, zero)
  starts = {starts}
  ends = Slice (starts, one, far, zero, one)
  shape = Shape (ends)
  trips = Gather (shape, first)
  y = Loop (trips, yes) <body = body (int64 i, bool c) => (bool d, float[4] row) {
    s0 = Gather (starts, i)
    e0 = Gather (ends, i)
    s = Unsqueeze (s0, zero)
    e = Unsqueeze (e0, zero)
    taken = Slice (indices, s, e, zero)
    rows0 = Gather (table, taken)
    {weighting}
    row = {reduce}
    d = Cast <to = 9> (yes)
  }>
}
"""
WEIGHTING = """part = Slice (weights, s, e, zero)
    column = Unsqueeze (part, one)
    rows = Mul (rows0, column)"""

DYNAMO = """<ir_version: 10, opset_import: ["" : 20]>
g (int64[n] indices, int64[b] offsets, float[n] weights) => (float[m, 4] y)
<int64[1] all = {-1}, int64[1] one1 = {1}, int64 one = {1}, int64 two = {2},
 int64 first = {0}, int64[1] axis = {0}, float[1,4] nothing = {0, 0, 0, 0}, float[1] unit = {1}>
{
  flat = Reshape (indices, all)
  rows0 = Gather (table, flat)
  size = Shape (flat)
  ones = Expand (unit, size)
  column = Unsqueeze ({weights}, one1)
  rows = Mul (rows0, column)
  {bags}
  going = Less (first, bags)
  empty = SequenceEmpty ()
  end, pooled = Loop (, going, first, empty) <body = body (int64 it, bool c, int64 i, seq(float[1,4]) seq)
      => (bool d, int64 next, seq(float[1,4]) grown) {
    at = Reshape (i, all)
    like1 = CastLike (one, at)
    like2 = CastLike (two, at)
    after = Add (at, like1)
    beyond = Add (at, like2)
    s = Slice (cuts, at, after)
    e = Slice (cuts, after, beyond)
    none = Equal (s, e)
    row = If (none) <
      then_branch = t () => (float[1,4] a) { a = Identity (nothing) },
      else_branch = f () => (float[1,4] b) {
        part = Slice (rows, s, e)
        b = {reduce} (part, axis)
      }>
    grown = SequenceInsert (seq, row)
    next = Add (i, one)
    d = Less (next, bags)
  }>
  joined = ConcatFromSequence <axis = 0> (pooled)
  y = Cast <to = 1> (joined)
}
"""
TABLE = np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32)
INDICES = np.array([3, 1, 4, 1, 5, 9, 2])
WEIGHTS = np.linspace(0.5, 2, 7, dtype=np.float32)
OFFSETS = {False: np.array([0, 2, 2, 5]), True: np.array([0, 2, 2, 5, 7])}


def loaded(text: str, tmp_path: Path, last: bool) -> Graph:
    made = onnx.parser.parse_model(text)
    made.graph.initializer.append(onnx.numpy_helper.from_array(TABLE, "table"))
    path = tmp_path / "m.onnx"
    path.write_bytes(made.SerializeToString())
    shapes = {"indices": (7,), "weights": (7,), "offsets": OFFSETS[last].shape}
    return load(path, {}, input_shapes=shapes)


def expected(mode: str, weighted: bool, empty: float) -> np.ndarray:
    rows = TABLE[INDICES] * (WEIGHTS[:, None] if weighted else 1)
    pool = {"Sum": np.sum, "Mean": np.mean, "Max": np.max}[mode]
    bags = [rows[a:b] for a, b in ((0, 2), (2, 2), (2, 5), (5, 7))]
    return np.stack([pool(bag, axis=0) if len(bag) else np.full(4, empty) for bag in bags])


def feed(last: bool) -> dict[str, np.ndarray]:
    return {"indices": INDICES, "weights": WEIGHTS, "offsets": OFFSETS[last]}


FORMS = [("Sum", False), ("Sum", True), ("Mean", False), ("Max", False)]


def legacy(mode: str, weighted: bool, last: bool) -> str:
    rows = "rows" if weighted else "rows0"
    reduce = f"Reduce{mode} <axes = [0], keepdims = 0> ({rows})"
    if mode == "Sum":  # since opset 13 its axes are an operand
        reduce = f"ReduceSum <keepdims = 0> ({rows}, zero)"
    text = LEGACY.replace("{weighting}", WEIGHTING if weighted else "")
    text = text.replace("{starts}", "Identity (offsets)" if last else "Concat <axis = 0> (offsets, last)")
    return text.replace("{reduce}", reduce)


def dynamo(mode: str, weighted: bool, last: bool) -> str:
    cuts = (
        "total = Size (offsets)\n  bags = Sub (total, one)\n  cuts = Identity (offsets)"
        if last
        else "bags = Size (offsets)\n  cuts = Concat <axis = 0> (offsets, size)"
    )
    text = DYNAMO.replace("{weights}", "weights" if weighted else "ones").replace("{bags}", cuts)
    return text.replace("{reduce}", f"Reduce{mode}")


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(("mode", "weighted"), FORMS)
@pytest.mark.parametrize("spell", [legacy, dynamo])
def test_every_form_is_one_node(spell: object, mode: str, weighted: bool, last: bool, tmp_path: Path) -> None:
    graph = loaded(spell(mode, weighted, last), tmp_path, last)  # type: ignore[operator]
    bags = [n for n in graph.nodes if n.op == "embedding_bag"]
    assert [n.attrs["mode"] for n in bags] == [mode.lower()]
    assert len(bags[0].inputs) == (4 if weighted else 3)
    assert {n.op for n in graph.nodes} <= {"embedding_bag", "concat"}
    empty = (
        -np.inf if mode == "Max" and spell is legacy else 0.0
    )  # ReduceMax of no rows; the other form writes zeros
    np.testing.assert_allclose(evaluate(graph, feed(last))["y"], expected(mode, weighted, empty), rtol=1e-6)


CHOSEN = """top = Sub (bags, one)
        is_last = Equal (i, top)
        part = If (is_last) <
          then_branch = t1 () => (float[p,4] p0) { p0 = Slice (rows, s, size) },
          else_branch = f1 () => (float[q,4] q0) { q0 = Slice (rows, s, e) }>"""


@pytest.mark.parametrize("mode", ["Sum", "Max"])
def test_the_last_bag_may_have_a_branch_of_its_own(mode: str, tmp_path: Path) -> None:
    text = dynamo(mode, True, False).replace("part = Slice (rows, s, e)", CHOSEN)
    graph = loaded(text, tmp_path, False)
    assert [n.attrs["mode"] for n in graph.nodes if n.op == "embedding_bag"] == [mode.lower()]
    np.testing.assert_allclose(evaluate(graph, feed(False))["y"], expected(mode, True, 0.0), rtol=1e-6)


PADDED = """s0 = Squeeze (s)
        e0 = Squeeze (e)
        some = Less (s0, e0)
        kept, stop = Loop (, some, nowhere, s0) <body = inner (int64 n, bool c1, int64[k] found, int64 j)
            => (bool more, int64[k1] grown1, int64 j1) {
          index = Gather (flat, j)
          below = Less (index, first)
          whole = If (below) <
            then_branch = t2 () => (int64 a1) { a1 = Add (index, {rows}) },
            else_branch = f2 () => (int64 b1) { b1 = Identity (index) }>
          padding = Equal (whole, four)
          {asked}
          j1 = Add (j, one)
          more = Less (j1, e0)
        }>
    left = Size (kept)
    none = Equal (left, first)"""
TAKEN = """used = Not (padding)
          grown1 = If (used) <
            then_branch = t3 () => (int64[k2] a2) {
              at1 = Reshape (j, all)
              a2 = Concat <axis = 0> (found, at1) },
            else_branch = f3 () => (int64[k3] b2) { b2 = Identity (found) }>"""
LEFT = """grown1 = If (padding) <
            then_branch = t3 () => (int64[k2] a2) { a2 = Identity (found) },
            else_branch = f3 () => (int64[k3] b2) {
              at1 = Reshape (j, all)
              b2 = Concat <axis = 0> (found, at1) }>"""


@pytest.mark.parametrize("asked", [TAKEN, LEFT])
def test_a_negative_index_may_name_the_padding(asked: str, tmp_path: Path) -> None:
    text = dynamo("Sum", False, False).replace("part = Slice (rows, s, e)", "part = Gather (rows, kept)")
    text = text.replace("none = Equal (s, e)", PADDED.replace("{asked}", asked))
    text = text.replace("{rows}", "many").replace(
        "int64 two = {2}", "int64 two = {2}, int64 four = {4},\n int64 many = {20}, int64[0] nowhere = {}"
    )
    graph = loaded(text, tmp_path, False)
    assert "embedding_bag" in {n.op for n in graph.nodes}
    indices = INDICES.copy()
    indices[0] = -16  # the row 4, counted from the end
    rows = TABLE[indices] * (indices % 20 != 4)[:, None]
    right = np.stack([rows[a:b].sum(axis=0) for a, b in ((0, 2), (2, 2), (2, 5), (5, 7))])
    got = evaluate(graph, feed(False) | {"indices": indices})["y"]
    np.testing.assert_allclose(got, right, rtol=1e-6)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("e0 = Gather (ends, i)", "e0 = Gather (ends, first)", "its offsets are not read in turn"),
        ("row = ReduceSum", "row = ReduceProd", "is not made by ReduceSum or ReduceMean or ReduceMax"),
        ("Slice (starts, one, far", "Slice (starts, zero, far", "its bags do not follow one another"),
        ("rows0 = Gather (table", "rows0 = Gather <axis = 1> (table", "it does not gather rows"),
    ],
)
def test_a_loop_that_is_no_bag_says_why(old: str, new: str, why: str, tmp_path: Path) -> None:
    text = legacy("Sum", False, False)
    assert old in text
    with pytest.raises(UserError, match=f"Loop x1: .*({why})"):
        loaded(text.replace(old, new), tmp_path, False)
