"""Products of a training step in floats of 8 bits, each operand with a scale of its own.

Weights and what layers read are in e4m3, which has the finer steps, gradients in e5m2, which has the wider
range (Micikevicius et al., FP8 Formats for Deep Learning, 2022). A tensor's scale follows from its own
largest magnitude at that moment, which becomes the largest number of the format. Sums are in fp32.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from mtia_emu.types import FP8_E4M3, FP8_E5M2, DType

from ..build import NodeBuilder
from ..codes import LEAST, largest
from ..graph import Graph, Node, freeze_attrs
from .arithmetic import Arithmetic
from .marks import BACKWARD, OPTIMISER, is_back

MOVED = ("transpose", "reshape")  # of a tensor in 8 bits as of one in 16
THROUGH = (*MOVED, "cast", "copy")


def in_eight_bits(graph: Graph, weights: Collection[str]) -> Graph:
    """Return a training graph whose products with weights, forward and backward, are of floats of 8 bits.

    Products of two activations (attention) stay as they are. A tensor is rounded once, however many products
    read it, also where the way back reads it transposed.
    """
    return _Rewriter(graph, set(weights)).run()


@dataclass
class _Rewriter:
    """A graph in the making. `rounded` are tensors in 8 bits, with their scales, by tensor and format."""

    graph: Graph
    weights: set[str]
    rounded: dict[tuple[str, DType], tuple[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.builder = NodeBuilder(self.graph)
        self.layers = {n.origin or n.name for n in self.graph.nodes if self._is_layer(n)}

    def run(self) -> Graph:
        nodes: list[Node] = []
        for node in self.graph.nodes:
            before = len(self.builder.nodes)
            made = self._product(node) if self._is_layer(node) or self._is_of_layer(node) else node
            nodes += [*self.builder.nodes[before:], made]
        return self.graph.with_nodes(nodes, consts={**self.graph.consts, **self.builder.consts})

    def _is_layer(self, node: Node) -> bool:
        """Return whether a node of the forward pass multiplies with a weight."""
        multiplies = node.op == "matmul" and not is_back(node) and not any(node.inputs[3:])
        return multiplies and any(self._source(v) in self.weights for v in node.inputs[:2])

    def _is_of_layer(self, node: Node) -> bool:
        """Return whether a node is a product on the way back through a layer."""
        back = node.op == "matmul" and node.origin.endswith(BACKWARD) and not any(node.inputs[2:])
        return back and node.origin.removesuffix(BACKWARD) in self.layers

    def _source(self, value: str) -> str:
        """Return what a value is made of by moving elements and rounding."""
        node = self.graph.producer(value)
        while node is not None and node.op in THROUGH:
            value = node.inputs[0]
            node = self.graph.producer(value)
        return value

    def _product(self, node: Node) -> Node:
        """Return what takes a product's place: its sum, in fp32, as the model has it."""
        b = self.builder
        b.origin = node.origin or node.name
        (left, one), (right, other) = (self._in_eight_bits(v) for v in node.inputs[:2])
        bias = node.inputs[2] if len(node.inputs) > 2 else ""
        scale = Arithmetic(b, node.name)("mul", one, other)
        summed = b.add("matmul", left, right, bias, scale, hint=f"{node.name}.fp32", fold=False, **node.attrs)
        attrs = freeze_attrs({"to": node.type.dtype.name})
        return Node(node.name, "cast", (summed,), node.outputs, node.types, attrs, node.origin)

    def _in_eight_bits(self, value: str) -> tuple[str, str]:
        """Return a tensor in 8 bits, and what to multiply it by, in fp32."""
        maker = self.graph.producer(self._source(value))
        gradient = maker is not None and is_back(maker) and not maker.origin.endswith(OPTIMISER)
        return self._rounded(value, FP8_E5M2 if gradient else FP8_E4M3)

    def _rounded(self, value: str, to: DType) -> tuple[str, str]:
        if (value, to) not in self.rounded:
            maker = self.graph.producer(value)
            if maker is not None and maker.op in MOVED:
                inner, scale = self._rounded(maker.inputs[0], to)
                moved = self.builder.add(maker.op, inner, hint=f"{value}.{to}", **maker.attrs)
                self.rounded[value, to] = moved, scale
            else:
                self.rounded[value, to] = self._scaled(value, to)
        return self.rounded[value, to]

    def _scaled(self, value: str, to: DType) -> tuple[str, str]:
        """Return a tensor in 8 bits, its largest magnitude as the largest number, and the scale of it."""
        a = Arithmetic(self.builder, f"{value}.{to}")
        rank = self.builder.type_of(value).rank
        rows = a("reduce_max", a("abs", value), axes=(rank - 1,), keepdims=True)  # of ranks, each has its own
        scale = a("mul", a("max", a.wide(a.total(rows, "max")), LEAST), 1.0 / largest(to))
        return a.cast(a("mul", a.wide(value), a("reciprocal", scale)), to), scale
