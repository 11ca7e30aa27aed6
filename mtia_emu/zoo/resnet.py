"""ResNet of bottleneck blocks for images, in fp16, as exported for inference: convolutions hold the norms.

Blocks take their stride in the 3x3 convolution ("v1.5"), as torchvision and MLPerf do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .writer import WEIGHT_BYTES, Fact, ModelWriter, fact

WIDER = 4  # channels that a bottleneck block gives for each that its 3x3 convolution has (He et al., table 1)


@dataclass(frozen=True, kw_only=True)
class ResNet:
    """The sizes of a network; `source` says whose they are, `blocks` counts those of each stage."""

    source: str
    blocks: tuple[int, ...]
    width: int
    classes: int
    side: int
    batch: int

    def facts(self) -> dict[str, Fact]:
        """Return the parameters, each with its unit and source."""
        parameters = self.graph("", self.default_dims()).parameters
        return {
            "blocks": fact(list(self.blocks), "blocks of each stage", self.source),
            "width": fact(self.width, "channels of the first stage's 3x3 convolutions", self.source),
            "classes": fact(self.classes, "classes", self.source),
            "side": fact(self.side, "pixels of a side of an image", self.source),
            "parameters": fact(parameters, "parameters", "counted from the weights of the graph"),
            "weight_bytes": fact(parameters * WEIGHT_BYTES, "B", "parameters x 2 B (fp16)"),
        }

    def default_dims(self) -> dict[str, int]:
        """Return the default batch."""
        return {"batch": self.batch}

    def least_dims(self) -> dict[str, int]:
        """Return nothing: a batch has at least one image."""
        return {}

    def graph(self, name: str, dims: dict[str, int]) -> ModelWriter:
        """Return the graph of one batch: `image` [batch, 3, side, side] in, `logits` [batch, classes] out."""
        w, batch = ModelWriter(name), dims["batch"]
        x = w.input("image", np.float16, batch, 3, self.side, self.side)
        x = w.op("Relu", _conv(w, x, "stem", (self.width, 3, 7), stride=2), name="stem.relu")
        pool = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
        x, channels = w.op("MaxPool", x, name="stem.pool", **pool), self.width
        for stage, count in enumerate(self.blocks):
            inner = self.width << stage
            for block in range(count):
                stride = 2 if stage and not block else 1
                x = _block(w, x, f"stage{stage + 1}.{block}", (channels, inner), stride)
                channels = WIDER * inner
        x = w.op("GlobalAveragePool", x, name="pool")
        x = w.op("Flatten", x, name="features", axis=1)
        head = w.weight("head.weight", self.classes, channels, std=channels**-0.5)
        bias = w.weight("head.bias", self.classes, std=0.1)
        w.op("Gemm", x, head, bias, name="logits", transB=1)
        w.output("logits", np.float16, batch, self.classes)
        return w

    def example_inputs(self, dims: dict[str, int], seed: int) -> dict[str, np.ndarray]:
        """Return random images [batch, 3, side, side] of mean 0 and variance 1, as normalised ones have."""
        shape = (dims["batch"], 3, self.side, self.side)
        return {"image": np.random.default_rng(seed).standard_normal(shape, np.float32).astype(np.float16)}


def _block(w: ModelWriter, x: str, name: str, channels: tuple[int, int], stride: int) -> str:
    """Return a bottleneck block: 1x1, 3x3, 1x1, added to `x`, which is projected where sizes differ."""
    outer, inner = channels
    y = w.op("Relu", _conv(w, x, f"{name}.reduce", (inner, outer, 1)), name=f"{name}.reduce.relu")
    y = w.op("Relu", _conv(w, y, f"{name}.conv", (inner, inner, 3), stride), name=f"{name}.conv.relu")
    y = _conv(w, y, f"{name}.expand", (WIDER * inner, inner, 1), gain=0.5)
    if stride > 1 or outer != WIDER * inner:
        x = _conv(w, x, f"{name}.project", (WIDER * inner, outer, 1), stride, gain=1.0)
    return w.op("Relu", w.op("Add", y, x, name=f"{name}.add"), name=f"{name}.relu")


def _conv(
    w: ModelWriter, x: str, name: str, sizes: tuple[int, int, int], stride: int = 1, gain: float = 2.0
) -> str:
    """Return a convolution of `sizes`: channels out and in, side; random weights give `gain` power."""
    outer, inner, side = sizes
    weight = w.weight(f"{name}.weight", outer, inner, side, side, std=(gain / (inner * side * side)) ** 0.5)
    bias = w.weight(f"{name}.bias", outer, std=0.1)
    window = {"kernel_shape": [side, side], "strides": [stride, stride], "pads": [side // 2] * 4}
    return w.op("Conv", x, weight, bias, name=name, **window)
