"""Every op: its shape rule agrees with its reference, its work is counted, its errors say what is right."""

from __future__ import annotations

import re
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mtia_emu.compiler import ops
from mtia_emu.compiler.graph import Graph, Node, freeze_attrs
from mtia_emu.compiler.ops import base

from mtia_emu.errors import UserError
from mtia_emu.machine.units.simd import FUNCTIONS
from mtia_emu.types import BOOL, DTYPES, FP32, INT64, WORKS, ProductWork, TensorType, dtype_of

FUSED = {"conv", "map", "matmul_map", "matmul_packed"}
RNG = np.random.default_rng(0)
PAGE = Path(__file__).parents[2] / "docs" / "architecture.md"


def f32(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


DECAY = "3 -> t1 | t0 = mul(x0, x2); t1 = add(t0, x1)"
PAIR = ("5 -> t0 | t0 = add(x0, x2)", "5 -> t1 | t0 = tanh(x0); t1 = mul(t0, x4)")

HELD = {"axes": ("dp",), "size": 2, "dim": 0, "owner": 0, "table": "t"}

# op -> operands, attributes; each is executed, and held to its shape rule
ROWWISE = (
    "4 -> t4, t1 | t0 = mul(x0, x0); t1 = fold_sum(t0); t2 = add(x2, t1); t3 = mul(x0, x3); t4 = div(t3, t2)"
)
CASES: dict[str, list[tuple[list[np.ndarray | None], dict[str, object]]]] = {
    "cast": [([f32(2, 3)], {"to": name}) for name in DTYPES],
    "softmax": [([f32(2, 3)], {"axis": 1}), ([f32(2, 0)], {"axis": 1})],
    "log_softmax": [([f32(2, 3)], {"axis": 0})],
    "rmsnorm": [([f32(2, 8), f32(8)], {"epsilon": 1e-5})],
    "layernorm": [([f32(2, 8), f32(8), f32(8)], {"epsilon": 1e-5}), ([f32(2, 8), f32(8)], {"epsilon": 1e-5})],
    "quantise_rows": [([f32(2, 3)], {}), ([f32(0, 4)], {}), ([f32(2, 3)], {"to": "fp8_e4m3"})],
    "dequantise": [
        ([np.full((4, 3), 0x7F, np.uint8), f32(3, 3)], {"k": 6, "block": 2}),
        ([np.full((4, 3), 7, np.uint8), f32(3, 3), np.full((2, 3), 1, np.uint8)], {"k": 6, "block": 2}),
        ([np.full((6, 3), -5, np.int8), f32(1, 3)], {"k": 6, "block": 8}),
        ([f32(6, 3).astype(ml_dtypes.float8_e4m3fn), f32(2, 3)], {"k": 6, "block": 3}),
    ],
    "rotary": [([f32(2, 3, 4, 8), f32(4, 8), f32(4, 8)], {})],
    "matmul": [
        ([f32(5, 2, 3), f32(3, 4)], {}),
        ([f32(5, 1, 2, 3), f32(6, 3, 4), f32(4)], {"activation": "relu"}),
        ([np.ones((2, 3), np.int8), np.ones((3, 4), np.int8)], {}),
        ([np.ones((2, 3), np.uint8), np.ones((3, 4), np.int8), f32(4), f32(4)], {"activation": "gelu"}),
        ([np.ones((2, 3), np.int64), np.ones((3, 4), np.int64)], {}),
        ([f32(2, 3).astype(ml_dtypes.bfloat16), f32(3, 4).astype(ml_dtypes.bfloat16)], {}),
    ],
    "expert_matmul": [
        ([f32(2, 3), f32(4, 3, 5), np.array([[0, 3], [2, -4]])], {}),
        ([f32(4, 3), f32(4, 3, 5), np.array([[0, 3], [2, 2]], np.int32)], {"law": "zipf:1.2"}),
        ([f32(4, 3), f32(4, 3, 5), np.array([[0], [3], [2], [2]])], {"each": 2}),
        ([f32(0, 3), f32(4, 3, 5), np.zeros((0, 2), np.int64)], {}),
        ([f32(4, 3), f32(2, 3, 5), np.array([[0, 3], [-1, 1], [2, 3], [1, 0]])], {"of": 6}),
        ([f32(2, 3), f32(2, 3, 5), np.array([[4, 3], [2, -2]])], {"of": 6}),
        ([np.ones((2, 3), np.int8), np.ones((4, 3, 5), np.int8), np.array([[0, 3], [2, 1]])], {}),
    ],
    "expert_matmul_packed": [
        (
            [f32(2, 8), np.full((3, 4, 5), 0x71, np.uint8), np.array([[0, 2], [1, -3]]), f32(3, 2, 5)],
            {"k": 8, "block": 4},
        ),
        (
            [
                f32(4, 8),
                np.full((3, 8, 5), 7, np.int8),
                np.array([[0], [2], [1], [0]]),
                f32(3, 2, 5),
                np.full((3, 2, 5), 3, np.int8),
            ],
            {"k": 8, "block": 4, "each": 2},
        ),
    ],
    "route": [
        ([np.array([[0, 3], [2, 3]])], {"experts": 4, "turns": 4, "rows": 1}),
        ([np.array([[0, 3], [2, -1]])], {"experts": 2, "turns": 4, "rows": 1, "of": 4}),
    ],
    "embedding_bag": [
        ([f32(10, 4), ints(1, 2, 3), ints(0, 1, 1, 3)], {"mode": mode}) for mode in ("sum", "mean", "max")
    ]
    + [([f32(10, 4), ints(1, -2, 3), ints(0, 3), f32(3)], {"mode": "sum"})],
    "all_reduce": [([f32(2, 3)], {"axes": ("tp",), "size": 4})],
    "all_gather": [([f32(2, 3)], {"axes": ("tp",), "size": 4, "dim": 1})],
    "reduce_scatter": [([f32(2, 8)], {"axes": ("tp",), "size": 4, "dim": 1})],
    "all_to_all": [([f32(2, 8)], {"axes": ("tp",), "size": 4, "dim": 1, "join": 0})],
    "send": [([f32(2, 3)], {"size": 1})],
    "dispatch": [
        (
            [f32(2, 3), np.array([[0, 3], [2, 3]])],
            {"axes": ("ep",), "size": 2, "dim": 0, "experts": 4, "each": 2},
        ),
        (
            [f32(4, 3), np.array([[0, 3], [2, 3]])],
            {"axes": ("ep",), "size": 2, "dim": 0, "experts": 4, "each": 1},
        ),
    ],
    "collect": [
        ([f32(2, 3)], {**HELD, "own": True}),
        ([f32(2, 3)], {**HELD, "own": False}),
    ],
    "spread": [
        ([f32(4, 3)], {**HELD, "own": True, "parts": 2, "shape": (2, 3), "to": "fp32"}),
        ([f32(1)], {**HELD, "own": False, "parts": 2, "shape": (2, 3), "to": "fp32"}),
        ([f32(4, 3)], {**HELD, "own": True, "parts": 1, "shape": (4, 3), "to": "fp32"}),
    ],
    "combine": [([f32(4, 3)], {"axes": ("ep",), "size": 2, "dim": 0, "experts": 4, "each": 2})],
    "append": [([f32(2, 3, 4), f32(2, 1, 4), f32(2, 2, 4)], {"axis": 1})],
    "embedding_bags": [
        ([f32(9, 4), ints(1, 2), ints(0, 1, 2), f32(5, 4), ints(3), ints(0, 0, 1, 1)], {"mode": "mean"}),
        ([f32(9, 4), ints(1, 2), ints(0, 2), f32(2)] * 2, {"mode": "sum", "weighted": True}),
    ],
    "scan": [
        ([f32(2, 3), f32(4, 2, 3), f32(3)], {"scanned": 1, "tapes": (DECAY,)}),
        ([f32(3), f32(4, 1)], {"scanned": 1, "tapes": ("2 -> t0 | t0 = mul(x0, x1)",)}),
        ([f32(2, 3), f32(2, 3), f32(3, 6), f32(4, 2, 3)], {"scanned": 1, "product": True, "tapes": PAIR}),
    ],
    "gather": [([f32(4, 5), ints(0, -1, 3)], {"axis": 0}), ([f32(4, 5), np.array(2)], {"axis": 1})],
    "scatter_rows": [
        ([f32(4, 5), ints(0, -1, 0), f32(3, 5)], {}),
        ([f32(4, 5), ints(0, -1, 0), f32(3, 5)], {"reduction": "add"}),
    ],
    "maps": [
        ([f32(4, 3), f32(3)], {"tape": "2 -> t1, t0 | t0 = mul(x0, x1); t1 = exp(t0)", "to": "fp32 bf16"}),
        ([f32(2), np.float32(3)], {"tape": "2 -> x1, t0 | t0 = less(x0, x1) : bool", "to": "fp32 bool"}),
    ],
    "update_rows": [
        (
            [f32(4, 5), f32(4, 1), ints(0, -1, 0), f32(3, 5), None, np.float32(0.1)],
            {"tape": ROWWISE, "tables": 2},
        ),
        ([f32(4, 5), ints(0, -1, 0), f32(2, 5), ints(1, 0, -1)], {"tape": "2 -> x0 |", "tables": 1}),
    ],
    "first_equal": [([ints(3, -1, 3, 9)], {"rows": 10})],
    "reshape": [([f32(4, 5)], {"shape": [2, 10]})],
    "transpose": [([f32(2, 3, 4)], {"perm": [2, 0, 1]})],
    "expand": [([f32(3, 1)], {"shape": [2, 3, 4]})],
    "slice": [
        ([f32(6, 5)], {"starts": [1, 4], "ends": [6, -1], "steps": [2, -2]}),
        ([f32(6, 5)], {"starts": [0, 0], "ends": [0, 5], "steps": [1, 1]}),
    ],
    "attention": [
        ([f32(1, 4, 3, 2), f32(1, 2, 5, 2), f32(1, 2, 5, 6)], {"tape": "1 -> t0 | t0 = mul(x0, 0.5)"}),
        (
            [f32(2, 2, 3, 2), f32(2, 2, 5, 2), f32(2, 2, 5, 6), f32(3, 5)],
            {"tape": "2 -> t0 | t0 = add(x0, x1)", "mask": 1, "diagonal": 2, "guarded": True},
        ),
        ([f32(1, 2, 3, 2)] * 3, {"tape": "1 -> t0 | t0 = mul(x0, 0.5)", "totals": True}),
    ],
    "attention_back": [
        (
            [
                *(f32(1, n, m, 2) for n, m in ((4, 3), (2, 5), (2, 5), (4, 3))),
                f32(1, 4, 3, 1),
                f32(1, 4, 3, 1),
            ],
            {"tape": "1 -> t0 | t0 = mul(x0, 0.5)"},
        ),
    ],
    "concat": [([f32(2, 3), f32(2, 1)], {"axis": 1}), ([f32(2)], {"axis": 0})],
    "pad": [([f32(2, 3)], {"pads": [1, 0, 0, 2], "value": 1.5}), ([f32(2)], {"pads": [1, 1]})],
    "tile": [([f32(2, 3)], {"repeats": [2, 0]}), ([f32(2, 3)], {"repeats": [1, 3]})],
    "gather_elements": [([f32(3, 4), np.array([[0, -1]])], {"axis": 1})],
    "gather_nd": [
        ([f32(3, 4, 5), np.array([[0, 1], [2, 3]])], {}),
        ([f32(3, 4, 5), np.array([[[1]], [[2]], [[-1]]])], {"batch_dims": 1}),
    ],
    "scatter_elements": [([f32(3, 4), np.array([[0, 1]]), f32(1, 2)], {"axis": 1, "reduction": "add"})],
    "scatter_nd": [([f32(3, 4), np.array([[0], [2]]), f32(2, 4)], {})],
    "one_hot": [([ints(0, 2, -1), f32(2)], {"depth": 3, "axis": 1})],
    "topk": [([f32(3, 8)], {"axis": 1, "k": 3}), ([ints(3, 1, 2)], {"axis": 0, "k": 1, "largest": False})],
    "cumsum": [([f32(3, 4)], {"axis": 1}), ([ints(1, 2)], {"axis": 0, "exclusive": True, "reverse": True})],
    "cumprod": [([f32(3, 4)], {"axis": 1}), ([ints(1, 2)], {"axis": 0, "exclusive": True, "reverse": True})],
    "bitcast": [([f32(3, 4)], {"to": "int32"}), ([np.int16(3)], {"to": "fp16"})],
    "det": [([f32(2, 3, 3)], {})],
    "grid_sample": [
        ([f32(1, 2, 4, 5), f32(1, 3, 3, 2)], {"mode": mode, "padding": padding})
        for mode, padding in (("linear", "zeros"), ("nearest", "border"), ("cubic", "reflection"))
    ],
    "roi_align": [([f32(2, 3, 6, 6), np.abs(f32(4, 4)), ints(0, 1, 1, 0)], {"size": (2, 2)})],
    "deform_columns": [
        (
            [f32(1, 2, 5, 5), f32(1, 8, 4, 4)],
            {"kernel": (2, 2), "strides": (1, 1), "dilations": (1, 1), "before": (0, 0), "groups": 1},
        )
    ],
    "range": [([np.array(3), np.array(2)], {"size": 4})],
    "nonzero": [([np.array([[0, 1], [1, 0]])], {"size": 2})],
    "ragged_split": [([ints(5, 6, 7, 8), ints(1, 2)], {})],
}
for _kind in ("sum", "mean", "max", "min", "prod"):
    CASES[f"reduce_{_kind}"] = [
        ([f32(2, 3, 4)], {"axes": [0, 2], "keepdims": True}),
        ([np.array([[1, 2], [3, 4]])], {"axes": [1]}),
        ([f32(2, 3)], {"axes": []}),
        ([f32(2, 0)], {"axes": [1]}),
    ]
for _function in FUNCTIONS.values():
    _operands = [np.abs(f32(2, 3)) + 0.5, f32(3), f32(2, 1)][: _function.arity]
    if _function.name == "where":
        _operands[0] = _operands[0] > 1
    if _function.name in ("and", "or", "xor", "not"):
        _operands = [x > 0 for x in _operands]
    if _function.name.startswith(("bit_", "shift_")):
        _operands = [x.astype(np.int32) for x in _operands]
    CASES[_function.name] = [(list(_operands), {})]


def types_of(arrays: list[np.ndarray | None]) -> list[TensorType | None]:
    return [None if x is None else TensorType(dtype_of(x), x.shape) for x in arrays]


@pytest.mark.parametrize("name", sorted(ops.OPS))
def test_the_shape_rule_agrees_with_the_reference(name: str) -> None:
    if name in FUSED:
        pytest.skip("made by fusion: its own test executes it")
    for arrays, raw in CASES[name]:
        attrs = freeze_attrs(raw)
        kinds = types_of(arrays)
        inferred = ops.infer(name, kinds, attrs)
        results = ops.reference(name, arrays, attrs)
        assert tuple(types_of(list(results))) == inferred
        values = {f"v{i}": k for i, k in enumerate(kinds) if k is not None}
        outputs = tuple(f"y{i}" for i in range(len(inferred)))
        graph = Graph("g", [Node("n", name, tuple(values), outputs, inferred, attrs)], values, outputs)
        work = ops.work(graph, graph.nodes[0])
        assert isinstance(work, WORKS)
        assert min(work.macs, work.flops, work.read_bytes, work.write_bytes) >= 0


def test_every_op_of_the_page_is_there() -> None:
    """The page has those that most models become; `test_complete.py` holds the reference to all of them."""
    table = PAGE.read_text().split("### The ops")[1].split("Squeeze, Unsqueeze")[0]
    rows = re.findall(r"^\| `([^|]*)` ", table, re.M)
    words = set(re.findall(r"[a-z_]+", " ".join(rows).replace("`", "")))
    assert len(rows) >= 20 and words <= set(ops.OPS)


@pytest.mark.parametrize(
    ("name", "arrays", "attrs", "words"),
    [
        ("matmul", [f32(8, 16), f32(12, 4)], {}, r"inner sizes differ: fp32\[8,16\] and fp32\[12,4\]"),
        ("matmul", [f32(3), f32(3, 4)], {}, "must be matrices"),
        ("matmul", [f32(2, 3), np.ones((3, 2), np.int8)], {}, "differ in dtype: fp32 and int8"),
        ("matmul", [f32(2, 3), f32(3, 2), f32(5)], {}, r"bias fp32\[5\] does not broadcast"),
        ("matmul", [f32(2, 3), f32(3, 2)], {"activation": "relux"}, "did you mean 'relu'"),
        ("add", [f32(2), ints(1, 2)], {}, "operands differ in dtype"),
        ("add", [f32(2), f32(3)], {}, r"shapes \[2\] and \[3\] do not broadcast"),
        ("where", [f32(2), f32(2), f32(2)], {}, "condition of where must be bool"),
        ("softmax", [f32(2)], {"axis": 1}, "axis 1 is outside a tensor of rank 1"),
        ("reduce_sum", [f32(2)], {"axes": [0, 0]}, "not distinct axes"),
        ("rmsnorm", [f32(2, 4), f32(2)], {"epsilon": 0.0}, r"weights must be floats of shape \[4\]"),
        ("rotary", [f32(2, 3), f32(3), f32(3)], {}, "even size"),
        ("gather", [f32(2), f32(2)], {"axis": 0}, "indices must be int64 or int32"),
        ("reshape", [f32(2, 3)], {"shape": [4]}, "has 6 elements, shape .4. has 4"),
        ("transpose", [f32(2, 3)], {"perm": [0, 0]}, "not an order of the 2 axes"),
        ("slice", [f32(4)], {"starts": [0], "ends": [5], "steps": [1]}, "leaves axis 0, of size 4"),
        ("slice", [f32(4)], {"starts": [0], "ends": [4], "steps": [0]}, "step of axis 0 is 0"),
        ("concat", [f32(2, 3), f32(3, 3)], {"axis": 1}, "shapes differ off axis 1"),
        ("topk", [f32(4)], {"axis": 0, "k": 5}, "k 5 is not between 0"),
        ("scan", [f32(3), f32(4, 3), f32(3)], {"scanned": 3, "tapes": (DECAY,)}, "1 states and 3 scanned"),
        ("scan", [f32(3), f32(4, 3), f32(5, 3)], {"scanned": 2, "tapes": (DECAY,)}, r"over \[4, 5\] steps"),
        ("scan", [f32(3), f32(0, 3), f32(3)], {"scanned": 1, "tapes": (DECAY,)}, r"over \[0\] steps"),
        ("scan", [f32(3), f32(4, 2, 3), f32(3)], {"scanned": 1, "tapes": (DECAY,)}, "does not broadcast to"),
        ("scan", [f32(3), f32(4, 3)], {"scanned": 1, "tapes": (DECAY,)}, "takes 2 operands and gives one"),
        ("scan", [f32(3), f32(4, 3)], {"scanned": 1, "tapes": ()}, "a tape for each state, 1 to 8"),
        (
            "scan",
            [f32(2, 3), f32(2, 3), f32(3, 5), f32(4, 3)],
            {"scanned": 1, "product": True, "tapes": PAIR},
            r"multiplies a state fp32\[2,3\] by \[h, g\*h\]",
        ),
        ("cast", [f32(4)], {"to": "fp33"}, "unknown dtype 'fp33'; did you mean 'fp"),
    ],
)
def test_operands_that_do_not_fit_are_refused(
    name: str, arrays: list[np.ndarray], attrs: dict[str, object], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        ops.infer(name, types_of(list(arrays)), freeze_attrs(attrs))


@pytest.mark.parametrize(
    ("name", "arrays", "attrs"),
    [
        ("gather", [f32(4), ints(4)], {"axis": 0}),
        ("gather", [f32(4), ints(-5)], {"axis": 0}),
        ("embedding_bag", [f32(4, 2), ints(9), ints(0, 1)], {"mode": "sum"}),
        ("embedding_bags", [f32(4, 2), ints(9), ints(0, 1)], {"mode": "sum"}),
        ("gather_nd", [f32(4), np.array([[4]])], {}),
        ("scatter_elements", [f32(4), ints(7), f32(1)], {"axis": 0}),
    ],
)
def test_indices_out_of_range_are_refused(
    name: str, arrays: list[np.ndarray], attrs: dict[str, object]
) -> None:
    with pytest.raises(UserError, match="is outside the 4 rows"):
        ops.reference(name, list(arrays), freeze_attrs(attrs))


def test_an_empty_bag_gives_zero_in_every_mode() -> None:
    for mode in ("sum", "mean", "max"):
        (out,) = ops.reference("embedding_bag", [f32(4, 2) - 9, ints(1), ints(0, 0, 1)], {"mode": mode})
        assert out[0].tolist() == [0, 0] and out[1].any()


def test_int8_accumulates_exactly() -> None:
    a, b = (RNG.integers(-128, 128, s).astype(np.int8) for s in ((3, 4096), (4096, 2)))
    (out,) = ops.reference("matmul", [a, b], {})
    np.testing.assert_array_equal(out, a.astype(np.int64) @ b.astype(np.int64))


def test_ties_of_topk_go_to_the_lower_index() -> None:
    _, index = ops.reference("topk", [np.array([1.0, 3.0, 3.0, 1.0])], freeze_attrs({"axis": 0, "k": 3}))
    assert index.tolist() == [1, 2, 0]


def test_work_reads_each_distinct_operand_once() -> None:
    kind = TensorType(FP32, (4, 4))
    graph = Graph("g", [Node("y", "matmul", ("x", "x"), ("y",), (kind,))], {"x": kind}, ["y"])
    work = ops.work(graph, graph.nodes[0])
    sizes = {"batch": 1, "m": 4, "k": 4, "n": 4}
    assert work == ProductWork("y", "matmul", FP32, flops=0, read_bytes=64, write_bytes=64, **sizes)
    assert work.macs == 64


def test_work_of_a_gather_reads_the_rows_taken() -> None:
    table, ids, out = TensorType(FP32, (1000, 8)), TensorType(INT64, (2,)), TensorType(FP32, (2, 8))
    node = Node("y", "gather", ("t", "i"), ("y",), (out,), {"axis": 0})
    graph = Graph("g", [node], {"t": table, "i": ids}, ["y"])
    assert ops.work(graph, graph.nodes[0]).read_bytes == 64 + 16


SHAPES = st.lists(st.integers(0, 4), max_size=3).map(tuple)


@settings(max_examples=60)
@given(SHAPES, SHAPES, st.sampled_from(["add", "less", "div"]), st.sampled_from(["fp32", "int64", "bf16"]))
def test_elementwise_broadcasts_as_numpy_does(
    a: tuple[int, ...], b: tuple[int, ...], name: str, kind: str
) -> None:
    element = DTYPES[kind]
    x, y = (np.ones(s, element.numpy) for s in (a, b))
    try:
        shape = np.broadcast_shapes(a, b)
    except ValueError:
        with pytest.raises(UserError, match="do not broadcast"):
            ops.infer(name, types_of([x, y]), {})
        return
    (inferred,) = ops.infer(name, types_of([x, y]), {})
    assert inferred == TensorType(BOOL if name == "less" else element, shape)
    (out,) = ops.reference(name, [x, y], {})
    assert (dtype_of(out), out.shape) == (inferred.dtype, shape)


@settings(max_examples=60)
@given(st.data())
def test_slices_are_those_of_numpy(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=3))
    bound = st.integers(-7, 7)
    steps_of = st.tuples(bound, bound, st.sampled_from([1, 2, -1]))
    picks = [slice(*slice(*data.draw(steps_of)).indices(s)) for s in shape]
    starts, ends, steps = zip(*((p.start, p.stop, p.step) for p in picks), strict=True)
    x = f32(*shape)
    attrs = freeze_attrs({"starts": starts, "ends": ends, "steps": steps})
    right = x[np.ix_(*(np.arange(p.start, p.stop, p.step) for p in picks))]
    (inferred,) = ops.infer("slice", types_of([x]), attrs)
    assert inferred.shape == right.shape
    np.testing.assert_array_equal(ops.reference("slice", [x], attrs)[0], right)


def test_answers_are_kept_by_attributes_to_the_letter() -> None:
    x = TensorType(FP32, (2, 3))
    (kept,) = ops.infer("transpose", [x], {"perm": (1, 0)})
    assert kept.shape == (3, 2)
    assert ops.infer("transpose", [x], {"perm": (1, 0)})[0] is kept
    assert ops.infer("transpose", [x], {"perm": (0, 1)})[0] == x
    with pytest.raises(UserError):
        ops.infer("transpose", [x], {"perm": (1, 0), "axis": 0})
    same = (
        ops.infer("cast", [x], {"to": "fp16"}),
        ops.infer("cast", [TensorType(INT64, (2, 3))], {"to": "fp16"}),
    )
    assert same[0] == same[1]
    for keepdims in (True, 1, False, 0):
        (kind,) = ops.infer("reduce_sum", [x], {"axes": (1,), "keepdims": keepdims})
        assert kind.rank == 1 + bool(keepdims)


def test_few_answers_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "MOST_INFERRED", 4)
    monkeypatch.setattr(base, "_inferred", {})
    for n in range(1, 20):
        assert ops.infer("neg", [TensorType(FP32, (n,))], {})[0].shape == (n,)
        assert 0 < len(base._inferred) <= 4
    kept = len(base._inferred)
    ops.infer("reshape", [TensorType(FP32, ())], {"shape": (1,) * 1000})
    assert len(base._inferred) == kept
