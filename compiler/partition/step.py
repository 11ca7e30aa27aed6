"""A training step over a mesh: the batch over `dp`, weights over `tp`, what the optimiser keeps over both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from mtia_emu.errors import UserError

from ..gradients.marks import OPTIMISER
from ..gradients.step import TrainingStep
from ..graph import Node
from ..ops.collectives import COLLECTIVES
from ..ops.layout import WHOLE, Layout
from .mesh import Mesh
from .propagate import Split, propagate
from .stages import PipelineStage

ALONG = ("dp", "tp")  # the axes that a step is split over


@dataclass(frozen=True)
class SplitStep:
    """A step over a mesh, and the order of its nodes in which exchanges run beside backward."""

    split: Split
    stage: PipelineStage


def split_step(step: TrainingStep, mesh: Mesh, shard_states: bool = False) -> SplitStep:
    """Return a step split over a mesh: gradients are summed over `dp` before the optimiser reads them.

    With `shard_states` what the optimiser keeps of a weight, masters and moments, is shared out over `dp`
    where the weight's first dimension divides (ZeRO stage 1, Rajbhandari et al., 2020): a rank gets the sum
    of its own part of the gradient, and the new weight is gathered.

    Raises `UserError` for axes other than `dp` and `tp`, for a batch that does not divide, for micro-batches,
    where `tp` splits nothing, and for states to share out where there are none.
    """
    _refuse(step, mesh, shard_states)
    given = {name: Layout((WHOLE,) * kind.rank) for name, kind in step.graph.inputs.items()}
    given |= {name: _batch(step, name, mesh) for name in step.data}
    lie = propagate(step.graph, mesh, given).inputs  # weights as their first reader wants them
    known = {**given, **_states(step, lie, mesh, shard_states)}
    split = propagate(step.graph, mesh, known, _gradients(step, known))
    if mesh.sizes["tp"] > 1 and not any(split.inputs[n].used & set(mesh.axes("tp")) for n in step.parameters):
        raise UserError(
            f"--parallel tp={mesh.sizes['tp']}: no weight of {step.graph.name} divides among so many "
            "(right: fewer, or dp alone)"
        )
    return SplitStep(split, PipelineStage(as_ready(split.nodes), {}))


def _refuse(step: TrainingStep, mesh: Mesh, shard: bool) -> None:
    other = [name for name, size in mesh.sizes.items() if size > 1 and name not in ALONG]
    if other or mesh.tables:
        raise UserError(f"--parallel {mesh}: training is split over dp and tp (right: as in dp=4,tp=2)")
    if shard and not step.states:
        raise UserError("--zero shares out what the optimizer keeps; this one keeps nothing (right: without)")
    if step.micro is not None:
        raise UserError(
            "--accumulate does not go with --parallel: a step of several chips has one micro-batch each "
            "(right: one of the two)"
        )


def _batch(step: TrainingStep, name: str, mesh: Mesh) -> Layout:
    """Return how an array of the batch lies: its first dimension over `dp`, where that is the batch."""
    kind, count = step.graph.inputs[name], mesh.sizes["dp"]
    batch = step.graph.inputs[step.data[0]].shape[:1]
    if not kind.rank or kind.shape[:1] != batch:
        return Layout((WHOLE,) * kind.rank)
    if kind.shape[0] % count:
        raise UserError(
            f"--parallel {mesh}: a batch of {kind.shape[0]} (%{name}) does not divide among {count} "
            f"(right: --dim batch=N with a multiple of {count}, or a smaller dp)"
        )
    return Layout((mesh.axes("dp"), *(WHOLE,) * (kind.rank - 1)))


def _states(step: TrainingStep, lie: Mapping[str, Layout], mesh: Mesh, shard: bool) -> dict[str, Layout]:
    """Return how weights and states lie: a state as its weight, with `shard` over `dp` too."""
    known = {name: lie[name] for name in step.parameters}
    dense = _dense(step)
    for name, kind in step.states.items():
        weight = next(p for p in sorted(step.parameters, key=len, reverse=True) if name.startswith(f"{p}."))
        fits = weight in dense and kind.shape == step.graph.inputs[weight].shape
        layout = lie[weight] if fits else Layout((WHOLE,) * kind.rank)
        over = mesh.axes("dp")
        dims, count = list(layout.dims), mesh.sizes["dp"]
        for axis in dims[0] if dims else ():
            count *= mesh.counts[axis]
        if shard and weight in dense and over and kind.rank and kind.shape[0] % count == 0:
            dims[0] = (*dims[0], *over)
        known[name] = Layout(tuple(dims))
    return known


def _read(step: TrainingStep) -> Iterator[tuple[str, str]]:
    """Yield what the optimiser reads of the way back, each with the weight that it is for."""
    graph = step.graph
    own = {v for node in graph.nodes if node.origin.endswith(OPTIMISER) for v in node.outputs}
    for node in graph.nodes:
        if node.origin.endswith(OPTIMISER):
            for value in node.inputs:
                if value and not (value in own or value in graph.inputs or value in graph.consts):
                    yield node.origin.removesuffix(OPTIMISER), value


def _dense(step: TrainingStep) -> set[str]:
    """Return the weights whose gradients are of the whole, not by rows."""
    kinds = step.graph.inputs
    return {w for w, v in _read(step) if w in kinds and step.graph.type_of(v).shape == kinds[w].shape}


def _gradients(step: TrainingStep, known: Mapping[str, Layout]) -> dict[str, Layout]:
    """Return how what the optimiser reads of the way back lies: as the states of its weight, else whole.

    Gradients by rows are gathered: any chip may have looked up any row.
    """
    lie, kinds = dict[str, Layout](), step.graph.inputs
    for weight, value in _read(step):
        shape = step.graph.type_of(value).shape
        state = next((s for s in step.states if s.startswith(f"{weight}.")), weight)
        alike = state in known and shape == kinds[state].shape
        lie[value] = known[state] if alike else Layout((WHOLE,) * len(shape))
    data = set(step.data)
    for node in step.graph.nodes:  # indices, as the optimiser takes them of the batch
        if node.origin.endswith(OPTIMISER) and data.intersection(node.inputs):
            lie |= {v: Layout((WHOLE,) * t.rank) for v, t in zip(node.outputs, node.types, strict=True)}
    return lie


def as_ready(nodes: Iterable[Node]) -> tuple[Node, ...]:
    """Return nodes in their order, but each exchange right behind what it reads, as soon as it is there.

    So a gradient is exchanged while the way back goes on; the optimiser, behind it, waits.
    """
    kept = list(nodes)
    waiting: dict[str, list[Node]] = {}
    for node in kept:
        if node.op in COLLECTIVES:
            waiting.setdefault(node.inputs[0], []).append(node)
    made = {value for node in kept for value in node.outputs}
    out: list[Node] = []

    def ready(values: Iterable[str]) -> None:
        for value in values:
            for exchange in waiting.pop(value, ()):
                out.append(exchange)
                ready(exchange.outputs)

    ready([value for value in waiting if value not in made])
    for node in kept:
        if node.op not in COLLECTIVES:
            out.append(node)
            ready(node.outputs)
    return tuple(out)
