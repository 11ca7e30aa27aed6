"""Gradients of every op, held to central differences in fp64; what cannot be differentiated says why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from mtia_emu.compiler import ops
from mtia_emu.compiler.build import NodeBuilder
from mtia_emu.compiler.check import check
from mtia_emu.compiler.gradients.differentiate import differentiate, joined, named
from mtia_emu.compiler.gradients.marks import BACKWARD
from mtia_emu.compiler.graph import Graph, Node, freeze_attrs
from mtia_emu.compiler.ops.base import OPS
from mtia_emu.compiler.reference import evaluate
from mtia_emu.compiler.text import dump, parse

from mtia_emu.errors import UserError
from mtia_emu.types import INT64, TensorType, dtype, dtype_of

RNG = np.random.default_rng(3)
Case = tuple[str, Sequence[np.ndarray | None], Mapping[str, object]]


def f64(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


TAPE = "2 -> t2 | t0 = mul(x0, 0.5); t1 = add(t0, x1); t2 = gelu(t1)"
PICK = "t0 = less(x0, 0.25) : bool; t1 = where(t0, x0, 2.0)"
HALF = "1 -> t0 | t0 = mul(x0, 0.5)"
BEHIND = {"tape": TAPE, "to": "fp64"}
CONV = {"strides": (2, 1), "dilations": (1, 2), "pads": (1, 0, 2, 3), "group": 2}
NARROW = {"conv", "map", "matmul_map", "matmul_packed", "attention"}  # their tapes compute in fp32

CASES: list[Case] = [
    ("matmul", [f64(5, 1, 2, 3), f64(6, 3, 4), f64(4)], {"activation": "gelu"}),
    ("matmul", [f64(5, 2, 3), f64(1, 3, 4), None, f64(4)], {"activation": "silu"}),
    ("matmul", [f64(2, 3), f64(5, 3, 4), f64(5, 1, 1)], {}),
    ("softmax", [f64(2, 3, 4)], {"axis": 1}),
    ("log_softmax", [f64(2, 3)], {"axis": 0}),
    ("rmsnorm", [f64(2, 3, 8), f64(8)], {"epsilon": 1e-5}),
    ("layernorm", [f64(2, 8), f64(8), f64(8)], {"epsilon": 1e-5}),
    ("layernorm", [f64(2, 8), f64(8)], {"epsilon": 1e-5}),
    ("rotary", [f64(2, 3, 4, 8), f64(4, 8), f64(4, 8)], {}),
    ("gather", [f64(4, 5), ints(0, -1, 3, 0)], {"axis": 0}),
    ("gather", [f64(4, 5, 2), np.array([[2, 2], [1, -5]])], {"axis": 1}),
    ("gather", [f64(4, 5), np.array(2)], {"axis": 1}),
    ("gather_elements", [f64(3, 4), np.array([[0, -1, 0]])], {"axis": 1}),
    ("gather_nd", [f64(3, 4, 5), np.array([[0, 1], [0, 1]])], {}),
    ("gather_nd", [f64(3, 4, 5), np.array([[[1]], [[2]], [[-1]]])], {"batch_dims": 1}),
    ("scatter_elements", [f64(3, 4), np.array([[0, 0]]), f64(1, 2)], {"axis": 1, "reduction": "add"}),
    ("scatter_elements", [f64(3, 4), np.array([[3, 0]]), f64(1, 2)], {"axis": 1}),
    ("scatter_nd", [f64(3, 4), np.array([[0], [2]]), f64(2, 4)], {}),
    ("scatter_nd", [f64(3, 4), np.array([[2], [2]]), f64(2, 4)], {"reduction": "add"}),
    ("scatter_rows", [f64(4, 5), ints(0, -1, 0), f64(3, 5)], {"reduction": "add"}),
    ("scatter_rows", [f64(4, 5), ints(2, -1), f64(2, 5)], {}),
    ("one_hot", [ints(0, 2, -1), f64(2)], {"depth": 3, "axis": 1}),
    ("topk", [f64(3, 8)], {"axis": 1, "k": 3}),
    ("cumsum", [f64(3, 4)], {"axis": 1}),
    ("cumsum", [f64(3, 4)], {"axis": 0, "exclusive": True, "reverse": True}),
    ("range", [np.array(3.0), np.array(2.0)], {"size": 4}),
    ("expert_matmul", [f64(3, 4), f64(5, 4, 2), np.array([[0, 3], [3, 1], [0, 4]])], {}),
    ("expert_matmul", [f64(4, 3), f64(3, 3, 2), np.array([[0, 2], [2, 1]])], {}),
    ("reshape", [f64(4, 5)], {"shape": (2, 10)}),
    ("transpose", [f64(2, 3, 4)], {"perm": (2, 0, 1)}),
    ("expand", [f64(3, 1)], {"shape": (2, 3, 4)}),
    ("expand", [f64()], {"shape": (2, 3)}),
    ("slice", [f64(6, 5, 7)], {"starts": (1, 4, 0), "ends": (6, -1, 7), "steps": (2, -2, 3)}),
    ("slice", [f64(6, 5)], {"starts": (0, 0), "ends": (0, 5), "steps": (1, 1)}),
    ("concat", [f64(2, 3), f64(2, 1), f64(2, 2)], {"axis": 1}),
    ("append", [f64(2, 3), f64(2, 1)], {"axis": 1}),
    ("pad", [f64(2, 3)], {"pads": (1, 0, 0, 2), "value": 1.5}),
    ("tile", [f64(2, 3)], {"repeats": (1, 3)}),
    ("embedding_bag", [f64(9, 4), ints(1, -2, 3, 1), ints(0, 3, 3, 4), f64(4)], {"mode": "sum"}),
    ("embedding_bag", [f64(9, 4), ints(1, 2, 1, 5, 6), ints(1, 3, 4)], {"mode": "mean"}),
    ("embedding_bag", [f64(9, 4), ints(1, 2, 3, 5, 6), ints(1, 3, 4)], {"mode": "max"}),
    ("embedding_bags", [f64(9, 4), ints(1, 2), ints(0, 2), f64(5, 4), ints(3), ints(0, 1)], {"mode": "mean"}),
    ("cast", [f64(2, 3)], {"to": "fp64"}),
    ("where", [np.array([True, False, True]), f64(2, 3), f64(1)], {}),
    ("map", [f64(2, 3), f64(3)], BEHIND),
    ("map", [f64(2, 3)], {"tape": f"1 -> t1 | {PICK}", "to": "fp64"}),
    ("matmul_map", [f64(4, 3), f64(3, 6), f64(6)], {**BEHIND, "shape": (2, 2, 6)}),
    (
        "matmul_packed",
        [f64(2, 6), np.full((4, 3), 7, np.uint8), f64(3, 3), None, f64(3)],
        {**BEHIND, "shape": (2, 3), "k": 6, "block": 2},
    ),
    ("conv", [f64(2, 4, 5, 6), f64(6, 2, 3, 2)], {**CONV, "tape": "1 -> x0 |", "to": "fp32"}),
    ("conv", [f64(2, 4, 5, 6), f64(6, 2, 3, 2), f64(6, 1, 1)], {**CONV, **BEHIND, "to": "fp32"}),
    ("conv", [f64(1, 3, 7), f64(3, 1, 3)], {"strides": (2,), "dilations": (1,), "pads": (1, 0), "group": 3,
                                            "tape": "1 -> x0 |", "to": "fp32"}),
    ("attention", [f64(1, 4, 3, 2), f64(1, 2, 5, 2), f64(1, 2, 5, 6)], {"tape": HALF}),
    (
        "attention",
        [f64(2, 2, 3, 2), f64(2, 2, 5, 2), f64(2, 2, 5, 6), np.triu(np.full((3, 5), -1e30), 2) + f64(3, 5)],
        {"tape": "2 -> t0 | t0 = add(x0, x1)", "mask": 1, "diagonal": 1, "guarded": True},
    ),
]  # fmt: skip
for _kind in ("sum", "mean", "max", "min", "prod"):
    CASES.append((f"reduce_{_kind}", [f64(2, 3, 4)], {"axes": (0, 2), "keepdims": True}))
    CASES.append((f"reduce_{_kind}", [f64(2, 3, 4)], {"axes": (1,)}))
CASES.append(("reduce_prod", [np.array([[1.0, 0.0, 3.0], [0.0, 0.0, 2.0]])], {"axes": (1,)}))
ONE = {"asin", "acos", "atanh"}  # functions of -1 to 1
for _name in [n for n in ops.GRADIENTS if not any(c[0] == n for c in CASES)]:
    _x = RNG.uniform(0.1, 0.9, (2, 3)) + (1.0 if _name == "acosh" else 0.0)
    CASES.append((_name, [_x, 0.4 + RNG.uniform(0.1, 0.9, 3)][: OPS[_name].arity[0]], {}))
    if OPS[_name].arity[0] == 2:
        CASES.append((_name, [RNG.uniform(1, 2, (2, 1, 3)), RNG.uniform(1, 2, (4, 1))], {}))
    elif _name not in ONE | {"log", "sqrt", "rsqrt", "acosh"}:
        CASES.append((_name, [f64(2, 3)], {}))


def weighted(name: str, arrays: Sequence[np.ndarray | None], attrs: Mapping[str, object]) -> Graph:
    """Return a graph of one node whose output is a sum of its float results times random weights."""
    frozen = freeze_attrs(attrs)
    types = ops.infer(name, [None if a is None else TensorType(dtype_of(a), a.shape) for a in arrays], frozen)
    inputs = {f"x{i}": TensorType(dtype_of(a), a.shape) for i, a in enumerate(arrays) if a is not None}
    values = tuple("" if a is None else f"x{i}" for i, a in enumerate(arrays))
    outs = tuple(f"y{i}" for i in range(len(types)))
    graph = Graph("one", [Node("y0", name, values, outs, types, frozen)], inputs, outs)
    b, rng, total = NodeBuilder(graph), np.random.default_rng(1), []
    for out, kind in zip(outs, types, strict=True):
        if kind.dtype.is_float:
            weights = b.constant(rng.standard_normal(kind.shape), kind.dtype.numpy)
            axes = tuple(range(kind.rank))
            total.append(b.add("reduce_sum", b.add("mul", out, weights), axes=axes, keepdims=False))
    value = total[0]
    for other in total[1:]:
        value = b.add("add", value, other)
    return joined(graph, b, (named(b, value, "loss"),))


def central(graph: Graph, given: Mapping[str, np.ndarray], name: str, step: float) -> np.ndarray:
    """Return the slope of a graph's loss by each element of an input: f(x + h) - f(x - h) over 2 h."""
    x, slopes = given[name], np.zeros(given[name].size)
    for i in range(x.size):
        ends = []
        for side in (step, -step):
            moved = x.copy()
            moved.reshape(-1)[i] += side
            ends.append(float(evaluate(graph, {**given, name: moved})["loss"]))
        slopes[i] = (ends[0] - ends[1]) / (2 * step)
    return slopes.reshape(x.shape)


def narrow(name: str, arrays: Sequence[np.ndarray | None]) -> list[np.ndarray | None]:
    """Return the operands in fp32 for a convolution, which has no fp64."""
    return [
        a.astype(np.float32) if a is not None and name == "conv" and a.dtype == np.float64 else a
        for a in arrays
    ]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_the_gradient_is_that_of_central_differences(case: Case) -> None:
    name, arrays, attrs = case[0], narrow(case[0], case[1]), case[2]
    graph = weighted(name, arrays, attrs)
    given = {f"x{i}": a for i, a in enumerate(arrays) if a is not None}
    wrt = [
        v for v, t in graph.inputs.items() if t.dtype.is_float and not (name == "matmul_packed" and v == "x2")
    ]
    whole = check(differentiate(graph, "loss", wrt))
    found = evaluate(whole, given)
    step, tolerance = (5e-3, 3e-3) if name in NARROW else (1e-6, 1e-7)
    for value in wrt:
        slopes = central(graph, given, value, step)
        near = max(1.0, float(np.abs(slopes).max(initial=0.0)))
        np.testing.assert_allclose(found[f"grad.{value}"], slopes, rtol=0, atol=tolerance * near)


def test_every_op_has_a_rule_or_a_reason_for_none() -> None:
    listed = [*ops.GRADIENTS, *ops.FLAT, *ops.NO_GRADIENT]
    assert sorted(listed) == sorted(OPS)
    assert all(len(why.split()) > 3 for why in (*ops.FLAT.values(), *ops.NO_GRADIENT.values()))


def test_every_rule_is_tested() -> None:
    assert set(ops.GRADIENTS) == {name for name, _, _ in CASES}


X = TensorType(dtype("fp32"), (2, 3))


def chain(*names: str) -> Graph:
    """Return a graph of unary ops one after another, ending in a sum named loss."""
    b = NodeBuilder(Graph("chain", [], {"x": X}, ["x"]))
    value = "x"
    for name in names:
        value = b.add(name, value, hint=name)
    total = b.add("reduce_sum", value, axes=(0, 1), keepdims=False)
    return joined(Graph("chain", [], {"x": X}, ["x"]), b, (named(b, total, "loss"),))


@pytest.mark.parametrize(
    ("x", "name", "slope"),
    [(0.0, "relu", 0.0), (0.0, "abs", 0.0), (1.0, "relu", 1.0), (-1.0, "abs", -1.0), (2.5, "round", 0.0)],
)
def test_kinks_and_steps(x: float, name: str, slope: float) -> None:
    found = evaluate(differentiate(chain(name), "loss", ["x"]), {"x": np.full((2, 3), x, np.float32)})
    assert (found["grad.x"] == slope).all()


def test_ties_share() -> None:
    graph = weighted("max", [np.ones((2, 3)), np.ones((2, 3))], {})
    found = evaluate(
        differentiate(graph, "loss", ["x0", "x1"]), {"x0": np.ones((2, 3)), "x1": np.ones((2, 3))}
    )
    np.testing.assert_array_equal(found["grad.x0"], found["grad.x1"])
    graph = weighted("reduce_max", [np.ones((1, 4))], {"axes": (1,)})
    found = evaluate(differentiate(graph, "loss", ["x0"]), {"x0": np.ones((1, 4))})
    assert len(set(found["grad.x0"].ravel())) == 1


def test_an_operand_that_stands_twice_has_the_sum() -> None:
    b = NodeBuilder(Graph("square", [], {"x": X}, ["x"]))
    total = b.add("reduce_sum", b.add("mul", "x", "x"), axes=(0, 1), keepdims=False)
    graph = joined(Graph("square", [], {"x": X}, ["x"]), b, (named(b, total, "loss"),))
    x = RNG.standard_normal((2, 3)).astype(np.float32)
    np.testing.assert_allclose(evaluate(differentiate(graph, "loss", ["x"]), {"x": x})["grad.x"], 2 * x)


def test_new_nodes_say_where_they_come_from() -> None:
    graph = differentiate(chain("tanh", "sigmoid"), "loss", ["x"])
    new = [node for node in graph.nodes if node.name not in {n.name for n in chain("tanh", "sigmoid").nodes}]
    assert {node.origin for node in new} == {f"{n}{BACKWARD}" for n in ("tanh.1", "sigmoid.2")}


def test_the_text_form_parses_back() -> None:
    graph = differentiate(chain("gelu"), "loss", ["x"])
    assert dump(parse(dump(graph))) == dump(graph)


def test_what_the_loss_does_not_see_has_no_slope() -> None:
    graph = Graph("two", chain("exp").nodes, {"x": X, "other": X}, ["loss"], chain("exp").consts)
    found = evaluate(
        differentiate(graph, "loss", ["other"]), dict.fromkeys(("x", "other"), np.ones((2, 3), np.float32))
    )
    assert (found["grad.other"] == 0).all()


@pytest.mark.parametrize(
    ("loss", "wrt", "words"),
    [
        ("loss", "y", "no value %y"),
        ("exp.1", "x", r"the loss %exp.1 is fp32\[2,3\] \(right: one number"),
        ("loss", "labels", "is no float"),
    ],
)
def test_a_loss_or_value_of_another_kind_is_refused(loss: str, wrt: str, words: str) -> None:
    plain = chain("exp")
    graph = Graph("g", plain.nodes, {"x": X, "labels": TensorType(INT64, (2,))}, ["loss"], plain.consts)
    with pytest.raises(UserError, match=words):
        differentiate(graph, loss, [wrt])


def test_an_op_without_a_rule_says_why() -> None:
    graph = weighted("det", [f64(3, 3)], {})
    with pytest.raises(UserError, match="det %y0 has no gradient: it takes the inverse of a matrix"):
        differentiate(graph, "loss", ["x0"])


def test_the_scores_of_attention_are_made_again_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    from mtia_emu.compiler.ops import fused_attention

    arrays = [f64(1, 2, 8, 4), f64(1, 2, 8, 4), f64(1, 2, 8, 4), np.triu(np.full((8, 8), -1e30), 1)]
    graph = weighted("attention", arrays, {"tape": "2 -> t0 | t0 = add(x0, x1)", "mask": 1, "diagonal": 0})
    given = {f"x{i}": a for i, a in enumerate(arrays)}
    whole = differentiate(graph, "loss", ["x0", "x1", "x2"])
    monkeypatch.setattr(fused_attention, "SCORES", 1 * 2 * 2 * 8)
    cut = differentiate(graph, "loss", ["x0", "x1", "x2"])
    sizes = {node.type.shape for node in cut.nodes if node.op == "softmax"}
    assert sizes == {(1, 2, 2, seen) for seen in (2, 4, 6, 8)}, "two queries at a time, and the keys they see"
    one, other = evaluate(whole, given), evaluate(cut, given)
    for name in ("grad.x0", "grad.x1", "grad.x2"):
        np.testing.assert_allclose(one[name], other[name], atol=1e-12)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_are_found_by_comparing_by_sums_and_ahead(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offsets that are known, or not, and then with few pairs or many, give the same bits."""
    offsets = [1, 1, 3, 3, 6]  # empty bags, an index before the first and one behind the last
    given_ = {
        "t": np.random.default_rng(2).standard_normal((5, 3)),
        "i": np.array([4, 0, -1, 2, 2, 1, 3]),
        "o": np.array(offsets),
    }
    found = []
    for place, pairs in (
        (f"const %o : int64[5] = {offsets}", 1 << 18),
        ("in %o : int64[5]", 1 << 18),
        ("in %o : int64[5]", 0),
    ):
        monkeypatch.setattr("mtia_emu.compiler.ops.embedding_bag.FEW_PAIRS", pairs)
        graph = parse(f"""graph bags {{
  in %t : fp64[5,3]
  in %i : int64[7]
  {place}
  %b : fp64[4,3] = embedding_bag(%t, %i, %o) {{mode="{mode}"}}
  %s : fp64[4,3] = mul(%b, %b)
  %y : fp64[] = reduce_sum(%s) {{axes=[0,1], keepdims=false}}
  out %y
}}
""")
        whole = differentiate(graph, "y", ["t"])
        found.append(evaluate(whole, {n: given_[n] for n in whole.inputs})["grad.t"])
        assert ("cumsum" in {n.op for n in whole.nodes}) == (pairs == 0)
    assert all(np.array_equal(found[0], other) for other in found[1:])
    assert np.abs(found[0]).max() > 0


PARTS = """graph g {{
 in %x : fp32[2,6]
 %a : fp32[2,2] = slice(%x) {{starts=[0, 0], ends=[2, 2], steps=[1, 1]}}
 %b : fp32[2,{width}] = slice(%x) {{starts=[0, {start}], ends=[2, {end}], steps=[1, 1]}}
 %c : fp32[2,2] = mul(%a, %a)
 %d : fp32[2,{width}] = exp(%b)
 %s : fp32[] = reduce_sum(%c) {{axes=[0, 1]}}
 %t : fp32[] = reduce_sum(%d) {{axes=[0, 1]}}
 %u : fp32[] = reduce_sum(%x) {{axes=[0, 1]}}
 %v : fp32[] = add(%s, %t)
 %loss : fp32[] = add(%v, %u)
 out %loss
}}
"""


@pytest.mark.parametrize(
    ("start", "end", "joined"), [(2, 6, True), (3, 6, False), (1, 6, False), (2, 5, False)]
)
def test_gradients_of_parts_that_lie_side_by_side_are_joined(start: int, end: int, joined: bool) -> None:
    """With a gap or an overlap between them they are padded with zeros; the sum is the same."""
    graph = differentiate(parse(PARTS.format(start=start, end=end, width=end - start)), "loss", ["x"])
    ops = [node.op for node in graph.nodes]
    assert (ops.count("concat"), ops.count("pad")) == ((1, 0) if joined else (0, 2))
    x = np.linspace(-1, 1, 12, dtype=np.float32).reshape(2, 6)
    right = np.ones((2, 6), np.float32)
    right[:, :2] += 2 * x[:, :2]
    right[:, start:end] += np.exp(x[:, start:end])
    np.testing.assert_allclose(evaluate(graph, {"x": x})["grad.x"], right, rtol=1e-6)


def test_a_part_that_is_taken_twice_counts_twice() -> None:
    again = "%e : fp32[2,2] = slice(%x) {starts=[0, 0], ends=[2, 2], steps=[1, 1]}"
    text = PARTS.format(start=2, end=6, width=4).replace("mul(%a, %a)", f"mul(%a, %e)\n {again}")
    x = np.linspace(-1, 1, 12, dtype=np.float32).reshape(2, 6)
    found = evaluate(differentiate(parse(text), "loss", ["x"]), {"x": x})["grad.x"]
    np.testing.assert_allclose(found[:, :2], 1 + 2 * x[:, :2], rtol=1e-6)
