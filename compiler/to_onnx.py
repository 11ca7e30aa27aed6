"""A graph written as an ONNX model, so that executors that are not ours can say what it computes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from mtia_emu.kernels.rows.tape import Source, Tape, TapeStep, parse

from mtia_emu.types import TensorType, dtype

from .graph import Graph, Node
from .ops.base import integer, number
from .ops.onnx_types import DTYPE_OF_ONNX

OPSET, IR = 20, 10
CODES = {kind.name: code for code, kind in DTYPE_OF_ONNX.items()}
SAME = {  # ops that ONNX has under another spelling of their name, and no attributes
    "abs": "Abs", "add": "Add", "and": "And", "ceil": "Ceil", "copy": "Identity", "div": "Div",
    "equal": "Equal", "erf": "Erf", "sin": "Sin", "cos": "Cos", "sinh": "Sinh", "cosh": "Cosh",
    "exp": "Exp", "floor": "Floor", "gelu": "Gelu", "greater": "Greater", "greater_equal": "GreaterOrEqual",
    "isnan": "IsNaN",
    "less": "Less", "less_equal": "LessOrEqual", "log": "Log", "max": "Max", "min": "Min", "mod": "Mod",
    "mul": "Mul", "neg": "Neg", "not": "Not", "or": "Or", "pow": "Pow", "reciprocal": "Reciprocal",
    "relu": "Relu", "round": "Round", "sigmoid": "Sigmoid",
    "sign": "Sign", "softplus": "Softplus", "sqrt": "Sqrt",
    "sub": "Sub",
    "tanh": "Tanh", "where": "Where", "xor": "Xor",
}  # fmt: skip
Writer = Callable[["_Model", Node], str]


class Unwritten(Exception):
    """An op that this module has no ONNX spelling for."""


def to_onnx(graph: Graph) -> Any:
    """Return a graph as a `ModelProto` of operator set 20.

    Raises `Unwritten` for an op that has no spelling, and for an attribute that its spelling does not say.
    Weights must be present. Outputs are copied, to the names that `out_name` gives.
    """
    from onnx import helper

    model = _Model(graph)
    for name, const in graph.consts.items():
        model.weight(const.array(name), name)
    for node in graph.nodes:
        model.write(node)
    model.finish()
    values = [
        [helper.make_tensor_value_info(out_name(n) if i else n, _code(t), list(t.shape)) for n, t in some]
        for i, some in enumerate((graph.inputs.items(), ((n, graph.type_of(n)) for n in graph.outputs)))
    ]
    whole = helper.make_graph(model.nodes, "graph", values[0], values[1], model.weights)
    return helper.make_model(whole, ir_version=IR, opset_imports=[helper.make_opsetid("", OPSET)])


def out_name(name: str) -> str:
    """Return an output's name: its own, apart from that of an input or constant it may be."""
    return f"out:{name}"


def _code(kind: TensorType) -> int:
    return CODES[kind.dtype.name]


class _Model:
    """The nodes and weights of a model as they are written."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.count = 0

    def weight(self, array: Any, name: str = "") -> str:
        """Add a constant; return its name."""
        from onnx import numpy_helper

        name = name or self.fresh()
        self.weights.append(
            numpy_helper.from_array(np.ascontiguousarray(array).reshape(np.shape(array)), name)
        )
        return name

    def fresh(self) -> str:
        self.count += 1
        return f"made:{self.count}"

    def add(self, op: str, *inputs: str, **attrs: Any) -> str:
        """Add a node with one result; return its name."""
        from onnx import helper

        name = self.fresh()
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attrs))
        return name

    def ints(self, *values: int) -> str:
        return self.weight(np.asarray(values, np.int64))

    def number(self, value: float, like: TensorType) -> str:
        return self.weight(np.asarray(value).astype(like.dtype.numpy))

    def type_of(self, value: str) -> TensorType:
        return self.graph.type_of(value)

    def write(self, node: Node) -> None:
        """Add what computes a node; its one result goes by the value's own name."""
        if node.op == "topk":
            _only(node, _TOPK)
            _topk(self, node)
            return
        if len(node.outputs) != 1:
            raise Unwritten(node.op)
        if node.op in SAME:
            _only(node, "")
            result = self.add(SAME[node.op], *node.inputs)
        elif node.op in _WRITERS:
            writer, read = _WRITERS[node.op]
            _only(node, read)
            result = writer(self, node)
        else:
            raise Unwritten(node.op)
        self.nodes[-1].output[self.nodes[-1].output[:].index(result)] = node.output

    def finish(self) -> None:
        """Let every output be the result of a node of its own."""
        from onnx import helper

        for name in self.graph.outputs:
            self.nodes.append(helper.make_node("Identity", [name], [out_name(name)]))


def _only(node: Node, read: str) -> None:
    """Raise `Unwritten` for an attribute that nothing of the ONNX node would say."""
    unread = sorted(set(node.attrs) - set(read.split()))
    if unread:
        raise Unwritten(f"{node.op} with {unread[0]}={node.attrs[unread[0]]!r}")


def _cast(m: _Model, node: Node) -> str:
    """Write a cast; that it `rounds` is what any cast of ONNX does."""
    kind = dtype(str(node.attrs["to"]))
    saturates = {} if node.attrs.get("saturate", True) else {"saturate": 0}
    return m.add("Cast", node.inputs[0], to=CODES[kind.name], **saturates)


def _matmul(m: _Model, node: Node) -> str:
    a, b, bias, scale = (*node.inputs, "", "")[:4]
    y = m.add("MatMul", a, b)
    y = m.add("Mul", y, scale) if scale else y
    y = m.add("Add", y, bias) if bias else y
    activation = str(node.attrs.get("activation", "none"))
    if activation == "silu":
        return m.add("Mul", y, m.add("Sigmoid", y))
    return y if activation == "none" else m.add(SAME[activation], y)


def _silu(m: _Model, node: Node) -> str:
    return m.add("Mul", node.inputs[0], m.add("Sigmoid", node.inputs[0]))


def _rsqrt(m: _Model, node: Node) -> str:
    return m.add("Reciprocal", m.add("Sqrt", node.inputs[0]))


def _reduce(m: _Model, node: Node) -> str:
    op = "Reduce" + node.op.removeprefix("reduce_").capitalize()
    axes = m.ints(*_tuple(node, "axes"))
    return m.add(op, node.inputs[0], axes, keepdims=int(bool(node.attrs["keepdims"])))


def _softmax(m: _Model, node: Node) -> str:
    op = {"softmax": "Softmax", "log_softmax": "LogSoftmax"}[node.op]
    return m.add(op, node.inputs[0], axis=node.attrs["axis"])


def _tuple(node: Node, name: str) -> tuple[int, ...]:
    value = node.attrs[name]
    assert isinstance(value, tuple)
    return tuple(int(v) for v in value)


def _reshape(m: _Model, node: Node) -> str:
    return m.add("Reshape", node.inputs[0], m.ints(*node.type.shape), allowzero=1)


def _transpose(m: _Model, node: Node) -> str:
    return m.add("Transpose", node.inputs[0], perm=list(_tuple(node, "perm")))


def _expand(m: _Model, node: Node) -> str:
    return m.add("Expand", node.inputs[0], m.ints(*node.type.shape))


def _slice(m: _Model, node: Node) -> str:
    starts, steps = _tuple(node, "starts"), _tuple(node, "steps")
    lowest = -(1 << 31)
    ends = tuple(lowest if s < 0 and e < 0 else e for e, s in zip(_tuple(node, "ends"), steps, strict=True))
    if not starts:
        return m.add("Identity", node.inputs[0])
    axes = range(len(starts))
    return m.add("Slice", node.inputs[0], m.ints(*starts), m.ints(*ends), m.ints(*axes), m.ints(*steps))


def _concat(m: _Model, node: Node) -> str:
    return m.add("Concat", *node.inputs, axis=node.attrs["axis"])


def _pad(m: _Model, node: Node) -> str:
    value = m.number(float(node.attrs.get("value", 0.0)), node.type)
    return m.add("Pad", node.inputs[0], m.ints(*_tuple(node, "pads")), value)


def _tile(m: _Model, node: Node) -> str:
    return m.add("Tile", node.inputs[0], m.ints(*_tuple(node, "repeats")))


def _gather(m: _Model, node: Node) -> str:
    return m.add("Gather", *node.inputs, axis=node.attrs["axis"])


def _cumsum(m: _Model, node: Node) -> str:
    flags = {name: int(bool(node.attrs.get(name, False))) for name in ("exclusive", "reverse")}
    return m.add("CumSum", node.inputs[0], m.weight(np.asarray(node.attrs["axis"], np.int64)), **flags)


def _embedding_bag(m: _Model, node: Node) -> str:
    """Write each bag as a slice of the looked-up rows, pooled; an empty one as zeros."""
    table, indices, offsets, *weights = node.inputs
    ends = m.graph.const(offsets)
    if ends is None:
        raise Unwritten("embedding_bag whose offsets are no constant")
    rows = m.add("Gather", table, indices, axis=0)
    if weights:
        rows = m.add("Mul", rows, m.add("Unsqueeze", weights[0], m.ints(1)))
    op = "Reduce" + str(node.attrs["mode"]).capitalize()
    empty = m.weight(np.zeros((1, node.type.shape[1]), node.type.dtype.numpy))
    bags = []
    for start, end in pairwise(ends.array(offsets).tolist()):
        part = m.add("Slice", rows, m.ints(start), m.ints(end), m.ints(0))
        bags.append(m.add(op, part, m.ints(0), keepdims=1) if end > start else empty)
    return m.add("Concat", *(bags or [m.add("Slice", empty, m.ints(0), m.ints(0), m.ints(0))]), axis=0)


def _gather_elements(m: _Model, node: Node) -> str:
    return m.add("GatherElements", *node.inputs, axis=node.attrs["axis"])


def _scatter_elements(m: _Model, node: Node) -> str:
    reduction = str(node.attrs.get("reduction", "none"))
    return m.add("ScatterElements", *node.inputs, axis=node.attrs["axis"], reduction=reduction)


def _scatter_rows(m: _Model, node: Node) -> str:
    """Write rows changed by index as slices changed by index tuples of one."""
    x, indices, updates = node.inputs
    tuples = m.add("Unsqueeze", m.add("Cast", indices, to=CODES["int64"]), m.ints(-1))
    return m.add("ScatterND", x, tuples, updates, reduction=str(node.attrs.get("reduction", "none")))


def _first_equal(m: _Model, node: Node) -> str:
    """Write the least place that names each row, looked up by all that name it."""
    indices, rows, count = node.inputs[0], integer(node.attrs, "rows"), node.type.size
    wrapped = m.add("Mod", m.add("Cast", indices, to=CODES["int64"]), m.ints(rows))
    none = m.weight(np.full(rows, count, np.int64))
    places = m.weight(np.arange(count, dtype=np.int64))
    least = m.add("ScatterElements", none, wrapped, places, axis=0, reduction="min")
    return m.add("Gather", least, wrapped, axis=0)


def _rmsnorm(m: _Model, node: Node) -> str:
    x, weight = node.inputs
    square = m.add("ReduceMean", m.add("Mul", x, x), m.ints(-1), keepdims=1)
    epsilon = m.number(number(node.attrs, "epsilon", 0.0), m.type_of(x))
    return m.add("Mul", m.add("Div", x, m.add("Sqrt", m.add("Add", square, epsilon))), weight)


def _layernorm(m: _Model, node: Node) -> str:
    return m.add("LayerNormalization", *node.inputs, axis=-1, epsilon=node.attrs["epsilon"])


def _rotary(m: _Model, node: Node) -> str:
    x, cos, sin = node.inputs
    size = m.type_of(x).shape[-1]
    low, high = (
        m.add("Slice", x, m.ints(start), m.ints(start + size // 2), m.ints(-1)) for start in (0, size // 2)
    )
    turned = m.add("Concat", m.add("Neg", high), low, axis=-1)
    return m.add("Add", m.add("Mul", x, cos), m.add("Mul", turned, sin))


def _conv(m: _Model, node: Node) -> str:
    if number(node.attrs, "fill", 0.0) or node.type.dtype.name != "fp32":
        raise Unwritten(f"conv in {node.type.dtype}")
    sizes = {name: list(_tuple(node, name)) for name in ("strides", "dilations", "pads")}
    result = m.add("Conv", *node.inputs[:2], group=node.attrs["group"], **sizes)
    return _taped(m, parse(str(node.attrs["tape"])), [result, *node.inputs[2:]])


def _attention(m: _Model, node: Node) -> str:
    """Write the products, what its tape makes of the scores, and the softmax over all keys."""
    (q, k, v), others = node.inputs[:3], node.inputs[3:]
    batch, heads, queries, size = m.type_of(q).shape
    groups, keys = m.type_of(k).shape[1:3]
    rows = heads // groups * queries
    left = m.add("Reshape", q, m.ints(batch, groups, rows, size), allowzero=1)
    scores = m.add("MatMul", left, m.add("Transpose", k, perm=[0, 1, 3, 2]))
    scores = m.add("Reshape", scores, m.ints(batch, heads, queries, keys), allowzero=1)
    scores = _taped(m, parse(str(node.attrs["tape"])), [scores, *others])
    shares = m.add("Softmax", m.add("Expand", scores, m.ints(batch, heads, queries, keys)), axis=-1)
    if node.attrs.get("guarded", False):
        shares = m.add("Where", m.add("IsNaN", shares), m.number(0.0, m.type_of(q)), shares)
    shares = m.add("Reshape", shares, m.ints(batch, groups, rows, keys), allowzero=1)
    return m.add("Reshape", m.add("MatMul", shares, v), m.ints(*node.type.shape), allowzero=1)


def _taped(m: _Model, tape: Tape, values: list[str]) -> str:
    """Write the steps of a tape in fp32 over values, of which those that choose are truth values."""
    steps: list[str] = []
    for step in tape.steps:
        if step.function not in SAME or step.to.name not in ("fp32", "bool"):
            raise Unwritten(f"a tape with {step.function} in {step.to}")
        steps.append(m.add(SAME[step.function], *(_source(m, step, s, values, steps) for s in step.sources)))
    return _source(m, None, tape.results[0], values, steps)


def _source(m: _Model, step: TapeStep | None, source: Source, values: list[str], steps: list[str]) -> str:
    if isinstance(source, float):
        return m.weight(np.asarray(source, np.float32))
    if source < 0:
        return steps[~source]
    chooses = step is not None and step.function == "where" and step.sources[0] == source
    value = values[source]
    return m.add("Cast", value, to=CODES["bool"]) if chooses else value


def _topk(m: _Model, node: Node) -> None:
    """Add the node itself: it has two results."""
    from onnx import helper

    if node.attrs.get("nan_least") or not all(node.outputs):
        raise Unwritten("topk that places NaN")
    operands = [node.inputs[0], m.ints(integer(node.attrs, "k"))]
    largest = int(bool(node.attrs.get("largest", True)))
    m.nodes.append(
        helper.make_node(
            "TopK", operands, list(node.outputs), m.fresh(), axis=node.attrs["axis"], largest=largest
        )
    )


_WRITERS: dict[str, tuple[Writer, str]] = {  # what writes an op, and the attributes that it reads
    "attention": (_attention, "tape mask diagonal guarded"),
    "conv": (_conv, "strides dilations pads group tape to fill"),
    "first_equal": (_first_equal, "rows"), "layernorm": (_layernorm, "epsilon"),
    "rmsnorm": (_rmsnorm, "epsilon"), "rotary": (_rotary, ""),
    "cast": (_cast, "to rounds saturate"), "concat": (_concat, "axis"),
    "cumsum": (_cumsum, "axis exclusive reverse"), "embedding_bag": (_embedding_bag, "mode"),
    "expand": (_expand, "shape"), "gather": (_gather, "axis"), "log_softmax": (_softmax, "axis"),
    "matmul": (_matmul, "activation"), "pad": (_pad, "pads value"), "reshape": (_reshape, "shape"),
    "rsqrt": (_rsqrt, ""), "silu": (_silu, ""), "slice": (_slice, "starts ends steps"),
    "softmax": (_softmax, "axis"), "tile": (_tile, "repeats"),
    "gather_elements": (_gather_elements, "axis"), "scatter_elements": (_scatter_elements, "axis reduction"),
    "scatter_rows": (_scatter_rows, "reduction"), "transpose": (_transpose, "perm"),
    **{f"reduce_{kind}": (_reduce, "axes keepdims") for kind in ("sum", "mean", "max", "min")},
}  # fmt: skip
_TOPK = "axis k largest nan_least"
