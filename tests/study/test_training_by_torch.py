"""Twenty executed steps of a decoder, a recommender and a convolutional network, held to torch.

The forward graph as imported is computed by torch, op by op; gradients are torch.autograd's, steps those
of torch.optim.AdamW, so that neither a gradient rule nor an optimiser of ours has a part in what is expected.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from mtia_emu.compiler.frontend.trainable import load_trainable
from mtia_emu.compiler.gradients.parameters import as_constants, chosen
from mtia_emu.compiler.graph import Graph, Node

import mtia_emu
from mtia_emu import zoo
from mtia_emu.sources import open_model

torch: Any = pytest.importorskip("torch", reason="torch is not installed: its training is the oracle here")
F = torch.nn.functional if hasattr(torch, "nn") else None
STEPS, RATE, SEED = 20, 1e-3, 3


def sliced(node: Node, x: Any) -> Any:
    starts, ends, steps = (node.attrs[n] for n in ("starts", "ends", "steps"))
    for axis, (start, end, step) in enumerate(zip(starts, ends, steps, strict=True)):
        places = torch.tensor(list(range(start, end, step)), dtype=torch.int64)
        x = x.index_select(axis, places)
    return x


def padded(node: Node, x: Any) -> Any:
    pads, rank = node.attrs["pads"], x.ndim
    pairs = [n for axis in reversed(range(rank)) for n in (pads[axis], pads[rank + axis])]
    return F.pad(x, pairs, value=max(float(node.attrs.get("value", 0.0)), -1e30))


def matmul(node: Node, a: Any, b: Any, bias: Any = None) -> Any:
    product = torch.matmul(a, b)
    return product if bias is None else product + bias


def conv(node: Node, x: Any, w: Any, *others: Any) -> Any:
    n = x.ndim - 2
    pads = [
        p for axis in reversed(range(n)) for p in (node.attrs["pads"][axis], node.attrs["pads"][n + axis])
    ]
    out = F.conv2d(
        F.pad(x, pads),
        w,
        stride=node.attrs["strides"],
        dilation=node.attrs["dilations"],
        groups=node.attrs["group"],
    )
    return out + others[0] if others else out


def cast(node: Node, x: Any) -> Any:
    return x.float() if node.type.dtype.is_float else x.to(torch.int64)


OPS: dict[str, Callable[..., Any]] = {
    "cast": cast,
    "conv": conv,
    "matmul": matmul,
    "pad": padded,
    "slice": sliced,
    "concat": lambda n, *xs: torch.cat(xs, dim=n.attrs["axis"]),
    "expand": lambda n, x: x.expand(n.attrs["shape"]),
    "gather": lambda n, t, i: t[i],
    "reduce_mean": lambda n, x: x.mean(dim=n.attrs["axes"], keepdim=bool(n.attrs.get("keepdims"))),
    "reduce_sum": lambda n, x: x.sum(dim=n.attrs["axes"], keepdim=bool(n.attrs.get("keepdims"))),
    "reshape": lambda n, x: x.reshape(n.attrs["shape"]),
    "softmax": lambda n, x: F.softmax(x, n.attrs["axis"]),
    "transpose": lambda n, x: x.permute(n.attrs["perm"]),
    "max": lambda n, a, b: torch.maximum(a, b),
    "pow": lambda n, a, b: torch.pow(a, b),
}
PLAIN = {
    "add", "mul", "sub", "div", "relu", "sigmoid", "tanh", "sqrt", "reciprocal", "neg", "sin", "cos"
}  # fmt: skip


def tensor(array: np.ndarray) -> Any:
    return torch.tensor(array.astype(np.float32) if array.dtype.kind not in "iub" else array)


def forward(graph: Graph, weights: dict[str, Any], data: dict[str, Any]) -> Any:
    """Return a graph's first output of floats, by torch."""
    values = {name: tensor(const.array(name)) for name, const in graph.consts.items()} | weights | data
    for node in graph.nodes:
        operands = [values[v] for v in node.inputs if v]
        plain = node.op in PLAIN
        values[node.output] = getattr(torch, node.op)(*operands) if plain else OPS[node.op](node, *operands)
    return values[next(v for v in graph.outputs if graph.type_of(v).dtype.is_float)]


def expected(
    name: str, dims: dict[str, int], loss: Callable[[Any, Any], Any], target: np.ndarray
) -> list[float]:
    bound = zoo.training_dims(name, dims)
    with open_model(f"zoo:{name}", bound, execute_seed=SEED) as source:
        graph, stored = load_trainable(source.path)
        names = chosen(graph, stored)
        graph = as_constants(graph, {n: c for n, c in stored.items() if n not in names})
        weights = {n: tensor(stored[n].array(n)).requires_grad_() for n in names}
        assert source.examples is not None
        data = {n: tensor(a) for n, a in source.examples(SEED).items()}
    rule = torch.optim.AdamW(list(weights.values()), lr=RATE, weight_decay=0.01)
    losses = []
    for _ in range(STEPS):
        rule.zero_grad()
        value = loss(forward(graph, weights, data), torch.tensor(target))
        value.backward()
        rule.step()
        losses.append(float(value.detach()))
    return losses


@pytest.mark.parametrize(
    ("name", "dims", "kind"),
    [
        ("llama-tiny", {}, "cross-entropy"),
        ("dlrm-small", {"batch": 16}, "bce"),
        ("resnet-tiny", {}, "cross-entropy"),
    ],
)
def test_twenty_steps(name: str, dims: dict[str, int], kind: str) -> None:
    step = mtia_emu.training_step(f"zoo:{name}", kind, "adamw", dims=dims)
    shape, rng = step.graph.inputs["target"].shape, np.random.default_rng(SEED)
    if kind == "bce":
        target: np.ndarray = rng.integers(0, 2, shape).astype(np.float32)
        found_loss: Callable[[Any, Any], Any] = F.binary_cross_entropy
    else:
        target = rng.integers(0, step.scores.shape[-1], shape)

        def found_loss(scores: Any, labels: Any) -> Any:
            return F.cross_entropy(scores.reshape(-1, scores.shape[-1]), labels.reshape(-1))

    with open_model(f"zoo:{name}", zoo.training_dims(name, dims)) as source:
        assert source.examples is not None
        data = {**source.examples(SEED), "target": target}
    done = mtia_emu.train(
        f"zoo:{name}",
        loss=kind,
        optimizer=f"adamw{{lr={RATE}}}",
        steps=STEPS,
        data=data,
        seed=SEED,
        dims=dims,
        gpu=None,
    )
    assert done.losses is not None
    losses = expected(name, dims, found_loss, target)
    np.testing.assert_allclose(done.losses.losses, losses, rtol=0, atol=1e-4 * max(losses))
    assert losses[-1] < 0.5 * losses[0]
