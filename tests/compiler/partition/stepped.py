"""Training steps of small models with weights, cut into pieces, and what a batch of them is."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
from mtia_emu.compiler.gradients.step import TrainingStep
from mtia_emu.compiler.partition.mesh import Mesh, parse_parallel
from mtia_emu.compiler.partition.piece_values import PieceTurn
from mtia_emu.compiler.partition.pieces import BACK, FORWARD, LAST, Piece, StepPieces, pieces_of
from mtia_emu.compiler.partition.staged import staged
from mtia_emu.compiler.partition.step import split_step
from mtia_emu.compiler.reference import evaluate

import mtia_emu
from mtia_emu.system.pipeline import passes, timed_passes

Arrays = dict[str, np.ndarray]
MODELS: dict[str, tuple[str, dict[str, int]]] = {
    "llama-tiny": ("cross-entropy", {"batch": 4, "seq": 8}),
    "gpt-tiny": ("cross-entropy", {"batch": 4, "seq": 8}),
    "resnet-tiny": ("cross-entropy", {"batch": 2}),
    "dlrm-small": ("bce", {"batch": 4}),
}


@cache
def step(model: str, optimizer: str = "adamw", **recipe: Any) -> TrainingStep:
    """Return the step of a model of the zoo with random weights."""
    loss, dims = MODELS[model]
    return mtia_emu.training_step(f"zoo:{model}", loss, optimizer, dims=dims, seed=0, **recipe)


@cache
def pieces(model: str, parallel: str, zero: int = 0, **recipe: Any) -> StepPieces:
    """Return a step as the pieces of a mesh."""
    mesh = parse_parallel(parallel)
    cut = staged(step(model, **recipe), mesh.stages)
    split = split_step(cut.step, mesh, zero)
    return pieces_of(cut, split.split, split.stage.nodes)


def turns(mesh: Mesh, batches: int) -> list[PieceTurn]:
    """Return the pieces of a mesh's schedule in order."""
    count = mesh.sizes["pp"]
    orders = [passes(mesh.schedule or "1f1b", c, count, batches, mesh.chunks) for c in range(count)]
    out = []
    for turn in timed_passes(orders, lambda _: Fraction(1), lambda _: Fraction(0)):
        kind = (LAST if turn.of.batch == batches - 1 else BACK) if turn.of.back else FORWARD
        if turn.of.back or count > 1:
            out.append(PieceTurn(Piece(kind, turn.of.stage), turn.of.batch))
    return out


def kept(of: TrainingStep) -> Arrays:
    """Return weights and states before the first step."""
    out = {name: np.zeros(kind.shape, np.float32) for name, kind in of.states.items()}
    for name, const in of.parameters.items():
        out[name] = const.array(name).astype(of.graph.inputs[name].dtype.numpy)
        if f"{name}.master" in of.states:
            out[f"{name}.master"] = const.array(name).astype(np.float32)
    return out


def batches(of: TrainingStep, count: int) -> list[Arrays]:
    """Return seeded micro-batches with the scalars of the first step."""
    rng, out = np.random.default_rng(3), list[Arrays]()
    for number in range(count):
        batch: Arrays = {
            "learning_rate": np.float32(0.01), "step": np.float32(1), "loss_scale": np.float32(256),
            "draw": np.uint32(number),
        }  # fmt: skip
        for name in of.data:
            kind = of.graph.inputs[name]
            drawn = rng.random(kind.shape) if kind.dtype.is_float else rng.integers(0, 2, kind.shape)
            batch[name] = drawn.astype(kind.dtype.numpy)
        out.append(batch)
    return out


def on_one_chip(of: TrainingStep, given: Sequence[Arrays]) -> tuple[Arrays, list[Arrays]]:
    """Return weights and states behind a step, and the outputs of its micro-batches, graph by graph."""
    now, each = kept(of), list[Arrays]()
    for number, batch in enumerate(given):
        graph = of.graphs[-1] if number == len(given) - 1 else of.graphs[0]
        feed = {**batch, **now}
        each.append(evaluate(graph, {name: feed[name] for name in graph.inputs}))
        now |= {old: each[-1][new] for new, old in graph.states.items()}
    return now, each
