"""Small convolutional networks of four families, as ONNX files without weights, and what they must move."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

Shape = tuple[int, ...]


@dataclass
class Net:
    """A network in the making; each method returns the value that it adds. Weights are absent fp32."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)

    def weight(self, *shape: int) -> str:
        name = f"w{len(self.weights)}"
        tensor = TensorProto(
            name=name, dims=shape, data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL
        )
        for key, value in (("location", "absent"), ("offset", 0), ("length", 4 * math.prod(shape))):
            tensor.external_data.add(key=key, value=str(value))
        self.weights.append(tensor)
        return name

    def op(self, kind: str, *inputs: str, **attrs: Any) -> str:
        name = f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name, **attrs))
        return name

    def conv(self, x: str, sizes: tuple[int, int, int], act: str = "Relu", **window: int) -> str:
        """Add a convolution of `sizes`: channels in, channels out, side; then an activation."""
        inner, outer, side = sizes
        rank, group = window.get("rank", 2), window.get("group", 1)
        y = self.op(
            "Conv",
            x,
            self.weight(outer, inner // group, *[side] * rank),
            self.weight(outer),
            strides=[window.get("stride", 1)] * rank,
            pads=[side // 2] * (2 * rank),
            group=group,
        )
        if act == "Swish":
            return self.op("Mul", y, self.op("Sigmoid", y))
        return self.op(act, y) if act else y

    def head(self, x: str, channels: int) -> str:
        x = self.op("Flatten", self.op("GlobalAveragePool", x))
        return self.op("Gemm", x, self.weight(10, channels), self.weight(10), transB=1)


def resnet_like(net: Net) -> str:
    """Bottleneck blocks with residuals."""
    x = net.conv("x", (3, 64, 7), stride=2)
    x = net.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    channels = 64
    for inner, stride in ((64, 1), (128, 2), (256, 2)):
        skip = net.conv(x, (channels, 4 * inner, 1), "", stride=stride)
        y = net.conv(net.conv(x, (channels, inner, 1)), (inner, inner, 3), stride=stride)
        x = net.op("Relu", net.op("Add", net.conv(y, (inner, 4 * inner, 1), ""), skip))
        channels = 4 * inner
    return net.head(x, channels)


def efficientnet_like(net: Net) -> str:
    """Expansion, depthwise convolution, squeeze and excitation, projection."""
    x, channels = net.conv("x", (3, 32, 3), "Swish", stride=2), 32
    for outer, side, stride in ((64, 3, 2), (64, 5, 1), (128, 5, 2), (128, 3, 1)):
        inner = 4 * channels
        y = net.conv(x, (channels, inner, 1), "Swish")
        y = net.conv(y, (inner, inner, side), "Swish", stride=stride, group=inner)
        gate = net.conv(net.op("GlobalAveragePool", y), (inner, channels // 4, 1), "Swish")
        y = net.op("Mul", y, net.conv(gate, (channels // 4, inner, 1), "Sigmoid"))
        y = net.conv(y, (inner, outer, 1), "")
        x, channels = net.op("Add", y, x) if stride == 1 else y, outer
    return net.head(x, channels)


def unet_like(net: Net) -> str:
    """Down by pools, up by transposed convolutions, joined by concats."""
    x = one = net.conv(net.conv("x", (3, 64, 3)), (64, 64, 3))
    x = two = net.conv(net.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]), (64, 128, 3))
    x = net.conv(net.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]), (128, 256, 3))
    for skip, channels in ((two, 128), (one, 64)):
        up = net.op(
            "ConvTranspose",
            x,
            net.weight(2 * channels, channels, 2, 2),
            net.weight(channels),
            strides=[2, 2],
        )
        x = net.conv(net.op("Concat", skip, up, axis=1), (2 * channels, channels, 3))
    return net.conv(x, (64, 2, 1), "")


def one_dimensional(net: Net) -> str:
    """Strided and plain convolutions of a signal."""
    x, channels = net.conv("x", (3, 64, 9), rank=1, stride=2), 64
    for outer in (128, 256, 256):
        y = net.conv(x, (channels, outer, 3), rank=1, stride=2)
        x, channels = net.op("Add", net.conv(y, (outer, outer, 3), rank=1), y), outer
    return net.head(x, channels)


FAMILIES: dict[str, tuple[Callable[[Net], str], Shape, Shape]] = {
    "resnet": (resnet_like, (3, 64, 64), (10,)),
    "efficientnet": (efficientnet_like, (3, 64, 64), (10,)),
    "unet": (unet_like, (3, 48, 48), (2, 48, 48)),
    "one-dimensional": (one_dimensional, (3, 1024), (10,)),
}
"""By name: how it is built, and the shapes of its input and its output without the batch."""


def write(family: str, batch: int, folder: Path) -> tuple[Path, int]:
    """Write a network for a batch; return its path and the elements of its weights, input and output."""
    build, image, result = FAMILIES[family]
    net = Net()
    last = build(net)
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, (batch, *shape))
        for name, shape in (("x", image), (last, result))
    ]
    graph = helper.make_graph(net.nodes, family, ports[:1], ports[1:], net.weights)
    path = folder / f"{family}-{batch}.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    elements = sum(math.prod(w.dims) for w in net.weights)
    return path, elements + batch * (math.prod(image) + math.prod(result))
