"""The number format that a model runs in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from mtia_emu.types import DType, TensorType, dtype

from ..graph import Const, Graph, Node, freeze_attrs
from ..next_values import MOVES, computed_from, made_by_element
from ..ops import infer
from .base import Pass
from .keep_rounding import decided, is_total

ANGLES = ("sin", "cos")  # what they are applied to needs fp32: positions times frequencies
INDICES = ("int32", "int64")
ROOTS = ("sqrt", "rsqrt")
SUMS = ("reduce_sum", "reduce_mean")
TO_SCALE = ("cast", "add", "sub", "reshape", "transpose", "mul", "div")  # from a sum of integers
SCALES = ("mul", "reshape")  # how the scale of a sum is made of others
ON_THE_WAY = ("add", "mul", "div", "max", "reshape")  # from a sum of squares to its root


@dataclass(frozen=True)
class SetPrecision(Pass):
    """Turn the model's floats of one dtype into another.

    What the model itself rounds to a narrow type (a cast that `rounds`) is rounded to it still. What leads to
    a sine or cosine stays as it is, and so do indices that arrive as floats, inputs up to where they are
    compared, made whole or rounded, sums of squares up to their root, and sums of integers up to their first
    scaling, with the scale: they outgrow fp16 where the result does not. So do states that are changed by
    arithmetic, a weight and its moments in a training step, with what that makes them of: what is added to
    one is too small for few digits. Constants saturate: a mask of
    -3.4e38 becomes the narrower type's lowest number, not -inf.
    """

    source: str = "fp32"
    to: str = "fp16"

    @property
    def floats(self) -> str:
        return self.to

    def __call__(self, graph: Graph) -> Graph:
        old, new = dtype(self.source), dtype(self.to)
        return graph if old == new else _Converter(graph, old, new).run()


class _Converter:
    def __init__(self, graph: Graph, old: DType, new: DType) -> None:
        self.graph, self.old, self.new = graph, old, new
        self.kept = _angles(graph) | _indices(graph) | _squares(graph) | _totals(graph)
        if new.bits <= old.bits:
            self.kept |= decided(graph) | _continued(graph)
        self.nodes: list[Node] = []
        self.casts: dict[tuple[str, DType], str] = {}
        self.types: dict[str, TensorType] = {}
        self.taken = {n.name for n in graph.nodes}

    def run(self) -> Graph:
        graph = self.graph
        inputs = {name: self._type(name, kind) for name, kind in graph.inputs.items()}
        consts = {name: self._const(name, c) for name, c in graph.consts.items()}
        self.types = {**inputs, **{k: c.type for k, c in consts.items()}}
        for node in graph.nodes:
            self._node(node)
        return Graph(graph.name, self.nodes, inputs, graph.outputs, consts).with_states(graph.states)

    def _type(self, value: str, kind: TensorType) -> TensorType:
        if kind.dtype != self.old or value in self.kept:
            return kind
        return TensorType(self.new, kind.shape)

    def _const(self, name: str, const: Const) -> Const:
        kind = self._type(name, const.type)
        if kind == const.type or not const.present:
            return Const(kind, const.data)
        if const.loaded is not None:
            return Const(kind, saturate(const.loaded, kind.dtype))
        return Const(kind, _later(const, name, kind.dtype))

    def _node(self, node: Node) -> None:
        """Convert a node; a value kept in the old format is cast where converted nodes read it."""
        wants = self.old if all(v in self.kept for v in node.outputs) else self.new
        inputs = node.inputs  # a cast takes any type
        if node.op != "cast":
            inputs = tuple(self._read(v, wants) if v else v for v in node.inputs)
        types = tuple(self._type(v, t) for v, t in zip(node.outputs, node.types, strict=True))
        attrs = dict(node.attrs)
        rounds = bool(attrs.get("rounds"))  # the model asks for this type, whatever it runs in
        if attrs.get("to") == self.old.name and node.outputs[0] not in self.kept and not rounds:
            attrs["to"] = self.new.name
        if node.op == "embedding_bag" and attrs.get("quantised") and wants == self.new:
            attrs["to"] = self.new.name
        if node.op == "pad" and node.type.dtype == self.old:
            attrs["value"] = float(saturate(np.asarray(attrs.get("value", 0.0), np.float64), self.new))
        self.types.update(zip(node.outputs, types, strict=True))
        given = infer(node.op, [self.types[v] if v else None for v in inputs], attrs)
        pairs = list(zip(node.outputs, given, types, strict=True))
        outputs = tuple(v if g == t else self._fresh(f"{v}.{g.dtype}") for v, g, t in pairs)
        name = node.name if outputs == node.outputs else outputs[0]  # the cast takes over the value's name
        converted = replace(
            node, name=name, inputs=inputs, outputs=outputs, types=given, attrs=freeze_attrs(attrs)
        )
        self.nodes.append(converted)
        for (value, _, kind), source in zip(pairs, outputs, strict=True):
            if source != value:  # the op gives the old type whatever it is given
                self._cast(source, value, kind)

    def _read(self, value: str, wants: DType) -> str:
        kind = self.types[value]
        if kind.dtype == wants or {kind.dtype, wants} != {self.old, self.new}:
            return value
        if self.graph.type_of(value).dtype != self.old:  # the model's own mix of types is left alone
            return value
        if (value, wants) not in self.casts:
            name = self._fresh(f"{value}.{wants}")
            self.casts[value, wants], self.types[name] = name, TensorType(wants, kind.shape)
            self._cast(value, name, self.types[name])
        return self.casts[value, wants]

    def _fresh(self, name: str) -> str:
        """Return a name that neither a value nor a node has."""
        candidate, count = name, 0
        while self.graph.has(candidate) or candidate in self.taken:
            count += 1
            candidate = f"{name}.{count}"
        self.taken.add(candidate)
        return candidate

    def _cast(self, value: str, name: str, kind: TensorType) -> None:
        self.nodes.append(
            Node(name, "cast", (value,), (name,), (kind,), freeze_attrs({"to": kind.dtype.name}))
        )


def _angles(graph: Graph) -> set[str]:
    """Return the float values on the way to a sine or cosine, and its results."""
    kept: set[str] = set()
    for node in reversed(graph.nodes):
        if node.op in ANGLES or kept.intersection(node.outputs):
            kept.update(node.outputs)
            kept.update(v for v in node.inputs if v)
    return kept


def _squares(graph: Graph) -> set[str]:
    """Return the values from a square that is summed to the root of the sum, and the constants among them."""
    summed: dict[str, bool] = {}  # values that come from a square: whether it has been summed
    for node in graph.nodes:
        if node.op == "mul" and node.inputs[0] == node.inputs[1]:
            summed[node.output] = False
            continue
        sums = [summed[v] for v in node.inputs if v in summed]
        if sums and node.op in (*SUMS, "reshape") and not sums[0]:
            summed[node.output] = node.op in SUMS
        elif any(sums) and node.op in ON_THE_WAY:
            summed[node.output] = True
    kept: set[str] = set()
    for node in reversed(graph.nodes):
        root = node.op in ROOTS and summed.get(node.inputs[0], False)
        if root or (node.output in kept and node.output in summed):
            kept.add(node.output)
            kept.update(v for v in node.inputs if v in summed or graph.const(v) is not None)
    return kept


def _totals(graph: Graph) -> set[str]:
    """Return the floats that sums of integers become, up to where they are scaled, and the scales."""
    whole, kept = set[str](), set[str]()
    scales: list[str] = []
    for node in graph.nodes:
        if is_total(node):
            whole.add(node.output)
        if node.op not in TO_SCALE or whole.isdisjoint(node.inputs):
            continue
        if node.op not in ("mul", "div"):  # a bias in int32, say
            whole.add(node.output)
        if node.type.dtype.is_float:
            kept.add(node.output)
            scales += [v for v in node.inputs if v not in whole]
    while scales:
        value = scales.pop()
        maker = graph.producer(value)
        if graph.const(value) is not None or (maker is not None and maker.op in SCALES):
            kept.add(value)
            scales += [v for v in maker.inputs if v not in kept] if maker is not None else []
    return kept


def _continued(graph: Graph) -> set[str]:
    """Return the states that arithmetic continues, and all from which it makes their next values.

    A cache that grows is moved only, and is none of them. Behind a product or a sum nothing is kept.
    """
    kept: set[str] = set()
    for new, old in graph.states.items():
        way = made_by_element(graph, new)
        if new in computed_from(way, old):
            made = {v for node in way for v in node.outputs}
            given = {v for node in way for v in node.inputs if graph.producer(v) is None}
            kept |= made | given
    return kept


def _indices(graph: Graph) -> set[str]:
    """Return the float inputs that are moved about and then cast to indices, and what is on that way."""
    kept: set[str] = set()
    for node in reversed(graph.nodes):
        if node.op == "cast" and str(node.attrs["to"]) in INDICES:
            way = _moved(graph, node.inputs[0])
            kept |= way if way is not None else set()
    return kept


def _moved(graph: Graph, value: str) -> set[str] | None:
    """Return a value and all that it is moved from; None where something is computed on the way."""
    values, pending = {value}, [value]
    while pending:
        node = graph.producer(pending.pop())
        if node is None:
            continue
        if node.op not in MOVES:
            return None
        new = [v for v in node.inputs if v and v not in values]
        values.update(new)
        pending += new
    return values


def _later(const: Const, name: str, to: DType) -> Callable[[], np.ndarray]:
    return lambda: saturate(const.array(name), to)


def saturate(array: np.ndarray, to: DType) -> np.ndarray:
    """Return the array in a narrower float type and the same shape, finite values kept finite."""
    import ml_dtypes

    top = float(ml_dtypes.finfo(to.numpy).max)
    with np.errstate(all="ignore"):
        clipped = np.where(np.isfinite(array), np.clip(array, -top, top), array)
        return clipped.astype(to.numpy)


def own_dtype(graph: Graph) -> DType:
    """Return the type of most of the model's arithmetic, by multiply-adds, else by bytes moved.

    Floats come before integers, and these before truth values, which count as fp32. Floats of 8 bits count
    where they are multiplied: nothing else is computed in them.
    """
    from ..ops import work

    weight: dict[DType, int] = {}
    for node in graph.nodes:
        count = work(graph, node)
        moved = 0 if count.dtype.is_float and count.dtype.bits <= 8 else count.read_bytes + count.write_bytes
        weight[count.dtype] = weight.get(count.dtype, 0) + count.macs * 1000 + moved
    floats = {kind: w for kind, w in weight.items() if kind.is_float and w}
    integers = {kind: w for kind, w in weight.items() if kind.name != "bool" and not kind.is_float}
    counts = floats or integers or {dtype("fp32"): 0}
    return max(counts, key=lambda kind: counts[kind])
