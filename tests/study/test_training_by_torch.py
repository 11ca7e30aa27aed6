"""Twenty executed steps of a decoder, a recommender and a convolutional network, held to torch.

The forward graph as imported is computed by torch, op by op; gradients are torch.autograd's, steps those
of torch.optim.AdamW, so that neither a gradient rule nor an optimiser of ours has a part in what is expected.
`torch_losses.json` holds what torch 2.13 gave; where torch is installed it is asked again. To write it anew:
python tests/study/test_training_by_torch.py > tests/study/torch_losses.json
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mtia_emu.compiler.frontend.trainable import load_trainable
from mtia_emu.compiler.gradients.parameters import as_constants, chosen
from mtia_emu.compiler.graph import Graph, Node
from mtia_emu.compiler.reference import evaluate

import mtia_emu
from mtia_emu import zoo
from mtia_emu.sources import open_model
from mtia_emu.study.training_steps import Plan, StepRunner, in_turn

try:
    import torch as found

    torch: Any = found
    F = torch.nn.functional
except ImportError:
    torch = F = None
STEPS, RATE, SEED = 20, 1e-3, 3
STORED = Path(__file__).with_name("torch_losses.json")
MODELS: dict[str, tuple[dict[str, int], str]] = {
    "llama-tiny": ({}, "cross-entropy"),
    "dlrm-small": ({"batch": 16}, "bce"),
    "resnet-tiny": ({}, "cross-entropy"),
}
BANDS = {"fp32": 1e-4, "bf16": 3e-2}  # of the largest loss


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


def batch(name: str) -> dict[str, np.ndarray]:
    """Return the inputs and targets of a model, as both learn from them."""
    dims, kind = MODELS[name]
    step = mtia_emu.training_step(f"zoo:{name}", kind, "adamw", dims=dims)
    shape, rng = step.graph.inputs["target"].shape, np.random.default_rng(SEED)
    target = (
        rng.integers(0, 2, shape).astype(np.float32)
        if kind == "bce"
        else rng.integers(0, step.scores.shape[-1], shape)
    )
    with open_model(f"zoo:{name}", zoo.training_dims(name, dims)) as source:
        assert source.examples is not None
        return {**source.examples(SEED), "target": target}


def loss(kind: str, scores: Any, target: Any) -> Any:
    if kind == "bce":
        return F.binary_cross_entropy(scores, target)
    return F.cross_entropy(scores.reshape(-1, scores.shape[-1]), target.reshape(-1))


def by_torch(name: str) -> list[float]:
    """Return the losses of all steps as torch computes and differentiates the imported forward graph."""
    dims, kind = MODELS[name]
    with open_model(f"zoo:{name}", zoo.training_dims(name, dims), execute_seed=SEED) as source:
        graph, stored = load_trainable(source.path)
        names = chosen(graph, stored)
        graph = as_constants(graph, {n: c for n, c in stored.items() if n not in names})
        weights = {n: tensor(stored[n].array(n)).requires_grad_() for n in names}
    data = {n: tensor(a) for n, a in batch(name).items()}
    target = data.pop("target")
    rule = torch.optim.AdamW(list(weights.values()), lr=RATE, weight_decay=0.01)
    losses = []
    for _ in range(STEPS):
        rule.zero_grad()
        value = loss(kind, forward(graph, weights, data), target)
        value.backward()
        rule.step()
        losses.append(float(value.detach()))
    return losses


def held(name: str, precision: str, losses: tuple[float, ...]) -> None:
    stored = json.loads(STORED.read_text("utf-8"))[name]
    np.testing.assert_allclose(losses, stored, rtol=0, atol=BANDS[precision] * max(stored))
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("name", MODELS)
def test_steps_are_those_of_torch(name: str) -> None:
    """The graph of the step, by the references of its ops; no rule of ours is in what is stored."""
    dims, kind = MODELS[name]
    optimizer = f"adamw{{lr={RATE}}}"
    step = mtia_emu.training_step(f"zoo:{name}", kind, optimizer, dims=dims, seed=SEED)
    plan = Plan(STEPS, batch(name), SEED)
    with open_model(f"zoo:{name}", zoo.training_dims(name, dims)) as source:
        execute = in_turn(step, lambda _, given: by_references(step.graph, given))
        run = StepRunner(source, step, execute, plan, quiet)
        held(name, "fp32", run.losses().losses)


def by_references(graph: Graph, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return evaluate(graph, {name: given[name] for name in graph.inputs})


def quiet(stage: str, done: int, total: int) -> None:
    """Say nothing."""


@pytest.mark.deep
@pytest.mark.parametrize("precision", BANDS)
@pytest.mark.parametrize("name", MODELS)
def test_executed_steps_are_those_of_torch(name: str, precision: str) -> None:
    dims, kind = MODELS[name]
    done = mtia_emu.train(
        f"zoo:{name}",
        loss=kind,
        optimizer=f"adamw{{lr={RATE}}}",
        precision=precision,
        steps=STEPS,
        data=batch(name),
        seed=SEED,
        dims=dims,
        gpu=None,
    )
    assert done.losses is not None
    held(name, precision, done.losses.losses)


@pytest.mark.skipif(torch is None, reason="torch is not installed: what it gave is stored")
@pytest.mark.parametrize("name", MODELS)
def test_what_is_stored_is_what_torch_gives(name: str) -> None:
    np.testing.assert_allclose(by_torch(name), json.loads(STORED.read_text("utf-8"))[name], rtol=1e-5)


if __name__ == "__main__":
    print(json.dumps({name: by_torch(name) for name in MODELS}, indent=1))
