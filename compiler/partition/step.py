"""A training step over a mesh: the batch over `dp`, weights over `tp`, what the optimiser keeps over both."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from mtia_emu.errors import UserError

from ..gradients.marks import OPTIMISER
from ..gradients.step import SUM, TrainingStep
from ..graph import Node
from ..ops.collectives import COLLECTIVES
from ..ops.layout import WHOLE, Layout
from .asked import Asked
from .mesh import Mesh
from .propagate import Split, policy_of, propagate
from .shards import prefetched, with_gathers, without_copies
from .stages import PipelineStage

ALONG = ("dp", "tp")  # the axes that a step is split over
REPEATS = ("concat", "reshape", "cast", "mul")  # between what is repeated for rows and the optimiser
STATES, GRADIENTS, WEIGHTS = STAGES = (1, 2, 3)  # of ZeRO: from which on what is shared out


@dataclass(frozen=True)
class SplitStep:
    """A step over a mesh, and the order of its nodes in which exchanges run beside backward."""

    split: Split
    stage: PipelineStage


def split_step(step: TrainingStep, mesh: Mesh, zero: int = 0) -> SplitStep:
    """Return a step split over a mesh: gradients are summed over `dp` before the optimiser reads them.

    `zero` is the stage of ZeRO (Rajbhandari et al., 2020), of what is shared out over `dp` besides, along
    the first dimension of a weight that divides: from 1 on what the optimiser keeps, masters and moments, so
    that a chip changes its part of a weight, and the whole is gathered; from 2 on gradients, of which a chip
    gets the sum of its part alone; with 3 weights too, gathered before each use and dropped behind it.

    Gradients of several micro-batches are summed on each chip before they are exchanged.

    Raises `UserError` for axes other than `dp`, `tp` and `pp`, for a batch that does not divide, where `tp`
    splits nothing, and for states to share out where there are none.
    """
    _refuse(step, mesh, zero)
    given = {name: Layout((WHOLE,) * kind.rank) for name, kind in step.graph.inputs.items()}
    given |= {name: _batch(step, name, mesh) for name in step.data}
    asked = _asked(step, mesh)
    first = propagate(step.graph, mesh, given, asked=asked)
    lie = first.inputs  # weights as their first reader wants them
    whole = {name: lie[name] for name in step.parameters}
    _refuse_uncut(step, mesh, whole)
    parts = whole | {name: _shared(step, name, lie[name], mesh) for name in _dense(step)}
    known = {
        **given,
        **_states(step, parts if zero else whole, mesh),
        **(parts if zero == WEIGHTS else whole),
    }
    sums = _sums(step, first, whole)
    known |= {f"{name}{SUM}": layout for name, (_, layout) in sums.items()}
    totals = {name: node.output for name, (node, _) in sums.items()}
    brought = _gradients(step, parts if zero >= GRADIENTS else whole, totals)
    brought |= {node.inputs[1]: layout for node, layout in sums.values()}
    gathered = [name for name in whole if known[name] != whole[name]]
    graph, copies = with_gathers(step.graph, gathered)
    brought |= {copy: whole[name] for copy, name in copies.items()}
    split = without_copies(propagate(graph, mesh, known, brought, asked=asked), copies)
    _refuse_whole(step, mesh, split)
    nodes = prefetched(as_ready(split.nodes), gathered, mesh.bucket)
    return SplitStep(split, PipelineStage(nodes, {}))


def _refuse_uncut(step: TrainingStep, mesh: Mesh, whole: Mapping[str, Layout]) -> None:
    """Refuse tables in columns where no weight is cut so."""
    if mesh.tables and not any(layout.dims[-1:] == (mesh.lookup,) for layout in whole.values()):
        raise UserError(
            f"--parallel {mesh}: no table of {step.graph.name} divides its columns among "
            f"{math.prod(mesh.counts[axis] for axis in mesh.lookup)} (right: a number that divides them)"
        )


def _refuse_whole(step: TrainingStep, mesh: Mesh, split: Split) -> None:
    """Refuse `tp` where it cuts no weight."""
    if mesh.sizes["tp"] > 1 and not any(split.inputs[n].used & set(mesh.axes("tp")) for n in step.parameters):
        raise UserError(
            f"--parallel tp={mesh.sizes['tp']}: no weight of {step.graph.name} divides among so many "
            "(right: fewer, or dp alone)"
        )


def _refuse(step: TrainingStep, mesh: Mesh, zero: int) -> None:
    if mesh.batches > 1:
        raise UserError(
            f"--parallel mb={mesh.batches}: training has those of --accumulate, each as large as the model's "
            f"batch (right: --accumulate {mesh.batches})"
        )
    other = [name for name, size in mesh.sizes.items() if size > 1 and name not in (*ALONG, "pp")]
    if mesh.tables not in ("", "column"):
        raise UserError(
            f"--parallel tables={mesh.tables}: a step changes rows of tables that are whole on each chip, or "
            "of their columns (right: tables=column, or none)"
        )
    if mesh.tables and mesh.stages > 1:
        raise UserError(f"--parallel {mesh}: tables are split over dp or tp alone (right: without pp)")
    if other or mesh.onnx is not None:
        raise UserError(f"--parallel {mesh}: training is split over dp, tp and pp (right: as in dp=4,tp=2)")
    if step.recipe.precision == "fp8" and mesh.sizes["tp"] > 1:
        raise UserError("--precision fp8 is split over dp and pp: scales are of whole tensors (right: dp=N)")
    if zero > STATES and mesh.stages > 1:
        raise UserError(
            f"--zero {zero} with pp would exchange gradients for each micro-batch (right: --zero 1)"
        )
    if zero == STATES and not step.states:
        raise UserError(
            "--zero 1 shares out what the optimizer keeps; this one keeps nothing (right: --zero 2 or 3)"
        )


def _sums(step: TrainingStep, split: Split, whole: Mapping[str, Layout]) -> dict[str, tuple[Node, Layout]]:
    """Return the sums of micro-batches' gradients: by weight, the node that adds one, and how both lie.

    It owes over `dp` what the gradient itself owes there: chips sum by themselves before they exchange. What
    is cut over `dp` is exchanged each time.
    """
    found = dict[str, tuple[Node, Layout]]()
    over = split.mesh.axes("dp")
    for node in step.graph.nodes:
        if node.op == "add" and node.inputs[0].endswith(SUM) and node.inputs[0] in step.states:
            name, maker = node.inputs[0].removesuffix(SUM), step.graph.producer(node.inputs[1])
            assert maker is not None
            owed = set(split.made[maker.name, node.inputs[1]].sums).intersection(over)
            found[name] = node, whole[name].owing(owed - whole[name].used)
    return found


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


def _shared(step: TrainingStep, name: str, whole: Layout, mesh: Mesh) -> Layout:
    """Return how a weight lies that is shared out over `dp` as well; as it is where nothing divides."""
    over, shape = mesh.axes("dp"), step.graph.inputs[name].shape
    if whole.used & set(over):
        return whole
    for index, axes in enumerate(whole.dims):
        count = math.prod(mesh.counts[axis] for axis in (*axes, *over))
        if over and shape[index] % count == 0:
            dims = (*whole.dims[:index], (*axes, *over), *whole.dims[index + 1 :])
            return Layout(dims)
    return whole


def _asked(step: TrainingStep, mesh: Mesh) -> Asked | None:
    """Return how gradients of bags are to lie where they are repeated for rows, of tables in columns.

    So a chip gets its columns of all bags, before there is one for each look-up.
    """
    if not mesh.tables:
        return None
    graph, found = step.graph, dict[tuple[str, str], Layout]()
    policy = policy_of(graph, mesh, {})
    values = {value for name, value in _read(step) if name in step.parameters}
    for node in reversed(graph.nodes):
        if node.op == "gather" and node.output in values and node.inputs[1] in graph.consts:
            columns = policy.dividing(mesh.lookup, node.type.shape[-1])
            found[node.name, node.inputs[0]] = Layout((WHOLE, columns))
        elif node.op in REPEATS and node.output in values:
            values.update(node.inputs)
    return Asked(found, {}, {})


def _states(step: TrainingStep, parts: Mapping[str, Layout], mesh: Mesh) -> dict[str, Layout]:
    """Return how states lie: along the dimensions that they have in common with their weight, as it does."""
    known, dense = dict[str, Layout](), _dense(step)
    for name, kind in step.states.items():
        weight = next(p for p in sorted(step.parameters, key=len, reverse=True) if name.startswith(f"{p}."))
        shape = step.graph.inputs[weight].shape
        known[name] = Layout(
            tuple(
                axes if (weight in dense or axes == mesh.lookup) and size == own else WHOLE
                for size, own, axes in zip(kind.shape, shape, parts[weight].dims, strict=True)
            )
        )
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


def _gradients(step: TrainingStep, parts: Mapping[str, Layout], sums: Mapping[str, str]) -> dict[str, Layout]:
    """Return how what the optimiser reads of the way back lies: as `parts` say of its weight, else whole.

    Gradients by rows are gathered: any chip may have looked up any row. Of several micro-batches it is their
    `sums`, by weight.
    """
    if sums:
        return {value: parts[name] for name, value in sums.items()}
    lie, kinds = dict[str, Layout](), step.graph.inputs
    for weight, value in _read(step):
        shape = step.graph.type_of(value).shape
        alike = weight in parts and shape == kinds[weight].shape
        columns = (
            parts[weight].dims[-1] if weight in parts and shape[-1:] == kinds[weight].shape[-1:] else WHOLE
        )
        rows = (*(WHOLE,) * (len(shape) - 1), columns if len(shape) == 2 else WHOLE)[: len(shape)]
        lie[value] = parts[weight] if alike else Layout(rows)
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
