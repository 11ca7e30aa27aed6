"""A split graph cut into the stages of a pipeline, and the order of nodes that hides exchanges."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from mtia_emu.errors import UserError
from mtia_emu.types import TensorType

from ..graph import Node
from ..ops.collectives import COLLECTIVES
from .propagate import Split

NEAR = 1 / 6  # of a stage's weights: how far from an even cut a better place is looked for


@dataclass(frozen=True)
class PipelineStage:
    """The nodes of one stage, and what it gets from which stage before it: by value, the stage's number."""

    nodes: tuple[Node, ...]
    received: Mapping[str, int]


def in_order(nodes: Iterable[Node]) -> tuple[Node, ...]:
    """Return nodes so that exchanges begin early and are waited for late; each behind what it reads.

    First comes what leads to the next exchanges, then the exchanges, then what needs neither.
    """
    kept = tuple(nodes)
    depth = _depths(kept)
    leads: dict[str, int] = {}  # of a value, the depth of the nearest exchange that it leads to
    for node in reversed(kept):
        own = [leads[v] for v in node.outputs if v in leads]
        if node.op in COLLECTIVES:
            own = [depth[node.name]]
        for value in node.inputs:
            if own and value:
                leads[value] = min([*own, *([leads[value]] if value in leads else [])])

    def rank(item: tuple[int, Node]) -> tuple[int, int, int]:
        number, node = item
        level = depth[node.name]
        if node.op in COLLECTIVES:
            return level, 1, number
        needed = any(leads.get(v, -1) == level for v in node.outputs)
        return level, 0 if needed else 2, number

    return tuple(node for _, node in sorted(enumerate(kept), key=rank))


def _depths(nodes: Iterable[Node]) -> dict[str, int]:
    """Return, by node, the exchanges on the longest way to it."""
    behind: dict[str, int] = {}
    depth: dict[str, int] = {}
    for node in nodes:
        depth[node.name] = max((behind.get(v, 0) for v in node.inputs), default=0)
        for value in node.outputs:
            behind[value] = depth[node.name] + (node.op in COLLECTIVES)
    return depth


def stages(split: Split, count: int, weighs: Mapping[str, float] | None = None) -> tuple[PipelineStage, ...]:
    """Return a split graph in so many stages of about equal bytes of weights, in the order of the graph.

    With `weighs`, a number for each node by its name, they are of about equal sums of these. What depends on
    no weight of a product (tables of angles, masks) is computed by each stage that reads it. Raises
    `UserError` where there are fewer products than stages.
    """
    if count == 1:
        return (PipelineStage(in_order(split.nodes), {}),)
    weighs = weighs or weights(split)
    common = common_nodes(split)
    heavy = sum(w > 0 and name not in common for name, w in weighs.items())
    if heavy < count:
        raise UserError(
            f"--parallel pp={count}: {split.graph.name} has only {heavy} nodes with weights to spread over "
            "stages (right: fewer stages)"
        )
    numbers = _numbers(split, weighs, common, count)
    return tuple(stage_of(split, numbers, common, s) for s in range(count))


def weights(split: Split) -> dict[str, float]:
    """Return the bytes of weights that each node reads whole, by its name."""
    return {node.name: _weight(split, node) for node in split.nodes}


def _weight(split: Split, node: Node) -> int:
    """Return the bytes of weights that a node reads whole."""
    if node.op == "gather":
        return 0
    return sum(split.types[v].bytes for v in node.inputs if v in split.shards and split.shards[v].source)


def common_nodes(split: Split) -> set[str]:
    """Return the nodes that depend on no exchange, product or table: each stage computes them for itself."""
    heavy: set[str] = set()
    common = set()
    for node in split.nodes:
        if node.op in ("matmul", "gather", *COLLECTIVES) or heavy.intersection(node.inputs):
            heavy.update(node.outputs)
        else:
            common.add(node.name)
    return common


def _numbers(split: Split, weighs: Mapping[str, float], common: set[str], count: int) -> dict[str, int]:
    """Return the stage of each node that is not common.

    Stages are cut where about equal bytes of weights are before and behind: of the places near by, where the
    fewest bytes pass.
    """
    nodes = [node for node in split.nodes if node.name not in common]
    cuts = places(
        [weighs[node.name] for node in nodes], passing(split.types, nodes), count, _torn(split, nodes)
    )
    if len(cuts) < count - 1:
        raise UserError(
            f"--parallel pp={count}: between the tables of {split.graph.name} there is no place for "
            f"stage {len(cuts) + 1} to begin (right: fewer stages, or tables=row)"
        )
    return {node.name: bisect_right(cuts, i) for i, node in enumerate(nodes)}


def places(
    weighs: Sequence[float], passes: Sequence[int], count: int, torn: Collection[int] = ()
) -> list[int]:
    """Return where stages but the first begin, so that sums of what nodes weigh are about equal.

    Of the places near by, but those that are `torn`, each is the one where the fewest bytes pass. Those
    behind the first for which there is no place are missing.
    """
    before, cuts, last = list(accumulate(weighs, initial=0)), list[int](), 0
    for stage in range(1, count):
        target, near = before[-1] * stage / count, before[-1] / count * NEAR
        free = range(last + 1, len(weighs) - (count - stage) + 1)
        spots = [i for i in free if i not in torn]
        if not spots:
            break
        close = [i for i in spots if abs(before[i] - target) <= near] or [
            min(spots, key=lambda i: abs(before[i] - target))
        ]
        last = min(close, key=lambda i: (passes[i], abs(before[i] - target), i))
        cuts.append(last)
    return cuts


def _torn(split: Split, nodes: Sequence[Node]) -> set[int]:
    """Return the places at which a cut would part a rank's table from what becomes of its rows."""
    made, torn = dict[str, int](), set[int]()
    for i, node in enumerate(nodes):
        for value in node.inputs:
            if value in made:
                torn.update(range(made[value] + 1, i + 1))
        if node.name in split.holders and node.op != "spread":
            made[node.output] = i
    return torn


def passing(types: Mapping[str, TensorType], nodes: Sequence[Node]) -> list[int]:
    """Return the bytes that pass from the nodes before each place to those behind it."""
    made = {v: i for i, node in enumerate(nodes) for v in node.outputs}
    change = [0] * (len(nodes) + 2)
    last = {v: i for i, node in enumerate(nodes) for v in node.inputs if v in made}
    for value, end in last.items():
        change[made[value] + 1] += types[value].bytes
        change[end + 1] -= types[value].bytes
    return list(accumulate(change))


def stage_of(split: Split, numbers: Mapping[str, int], common: set[str], number: int) -> PipelineStage:
    """Return a stage: its own nodes, the common ones that they need, and what comes from before."""
    outputs = {local for local, _ in split.outputs.values()}
    own = {node.name for node in split.nodes if numbers.get(node.name) == number}
    last = max(numbers.values())
    needed: set[str] = {v for n in split.nodes if n.name in own for v in n.inputs}
    kept = set(own)
    for node in reversed(split.nodes):
        wanted = needed.intersection(node.outputs) or (number == last and outputs.intersection(node.outputs))
        if node.name in common and wanted:
            kept.add(node.name)
            needed.update(node.inputs)
    nodes = tuple(node for node in split.nodes if node.name in kept)
    made = {v for node in nodes for v in node.outputs}
    makers = {v: numbers[n.name] for n in split.nodes if n.name in numbers for v in n.outputs}
    received = {v: makers[v] for node in nodes for v in node.inputs if v in makers and v not in made}
    return PipelineStage(in_order(nodes), received)
