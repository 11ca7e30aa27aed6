"""The programs of a training step in stages: forward, back, back of the last micro-batch, update.

Each is of a stage, and of all ranks in it. What passes between them either stays with its stage from the pass
forward to the one back, or is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from ..gradients.marks import BACKWARD, OPTIMISER
from ..gradients.step import SUM
from ..graph import Graph, Node
from .propagate import Split
from .ranks import rank_graph
from .staged import StagedStep, dependence, floats_of
from .stages import PipelineStage

FORWARD, BACK, LAST, UPDATE = KINDS = ("forward", "back", "last", "update")


@dataclass(frozen=True, order=True)
class Piece:
    """A program of a step: what a stage does with a micro-batch, or once a step (UPDATE).

    FORWARD comes first; BACK adds gradients to those before, LAST is that of the last micro-batch: it also
    sums gradients over `dp` and changes the weights, but for what needs gradients of other stages (UPDATE).
    Where there is but one stage, BACK and LAST include the pass forward.
    """

    kind: str
    stage: int


@dataclass(frozen=True)
class StepPieces:
    """A split step as pieces: the nodes of each, and what it gives to others.

    `sums` are the values in BACK that are the next ones of inputs, with those inputs.
    """

    staged: StagedStep
    split: Split
    nodes: Mapping[Piece, tuple[Node, ...]]
    received: Mapping[Piece, Mapping[str, Piece]]
    sums: Mapping[str, str]

    @property
    def count(self) -> int:
        """Return the number of stages."""
        return self.staged.count

    @cached_property
    def given(self) -> Mapping[Piece, tuple[str, ...]]:
        """Return what each piece gives to others."""
        found: dict[Piece, dict[str, None]] = {piece: {} for piece in self.nodes}
        for received in self.received.values():
            for value, maker in received.items():
                found[maker][value] = None
        return {piece: tuple(values) for piece, values in found.items()}

    def graph(self, piece: Piece, rank: int) -> Graph:
        """Return the graph of a rank in a piece."""
        nodes = self.nodes[piece]
        made = {v for node in nodes for v in node.outputs}
        sums = {v: old for v, old in self.sums.items() if v in made} if piece.kind == BACK else {}
        stage = PipelineStage(nodes, {v: maker.stage for v, maker in self.received[piece].items()})
        graph = rank_graph(self.split, rank, stage, (*self.given[piece], *sums))
        return graph.with_states({**graph.states, **sums})

    def held(self, stage: int) -> tuple[str, ...]:
        """Return the values that a stage holds of a micro-batch between its passes forward and back."""
        there = dict.fromkeys(
            v
            for piece, received in self.received.items()
            for v, maker in received.items()
            if piece.stage == stage and piece.kind != FORWARD and maker.kind == FORWARD
        )
        return tuple(there)

    def sent(self, stage: int, *, back: bool) -> tuple[str, ...]:
        """Return what goes from a stage to the next, or `back` to the one before: its own or passed on."""
        found = dict[str, None]()
        for piece, received in self.received.items():
            for value, maker in received.items():
                if piece.kind == UPDATE:
                    continue
                ahead = maker.stage <= stage < piece.stage
                behind = piece.stage < stage <= maker.stage
                if behind if back else ahead:
                    found[value] = None
        return tuple(found)

    def exchanged(self) -> dict[tuple[int, int], tuple[str, ...]]:
        """Return what stages give one another for the update: by the stages that give and get."""
        found: dict[tuple[int, int], dict[str, None]] = {}
        for piece, received in self.received.items():
            for value, maker in received.items():
                if piece.kind == UPDATE and maker.stage != piece.stage:
                    found.setdefault((maker.stage, piece.stage), {})[value] = None
        return {ends: tuple(values) for ends, values in found.items()}

    def bytes_of(self, values: Iterable[str]) -> int:
        """Return the bytes of values on a rank."""
        return sum(self.split.types[v].bytes for v in values)


def pieces_of(staged: StagedStep, split: Split, nodes: Sequence[Node]) -> StepPieces:
    """Return a split step's nodes, in the order in which they are to run, as pieces."""
    found = _Pieces(staged, split, tuple(nodes))
    chosen = {piece: found.nodes_of(piece) for piece in found.pieces()}
    kept = {piece: own for piece, own in chosen.items() if own}
    return StepPieces(staged, split, kept, found.received(kept), found.sums)


class _Pieces:
    """Where each node of a split step runs. `phases` and `stages` are of nodes that are not common."""

    def __init__(self, staged: StagedStep, split: Split, nodes: tuple[Node, ...]) -> None:
        self.staged, self.split, self.nodes = staged, split, nodes
        step = staged.step
        self.several = step.recipe.accumulate > 1
        self.common = dependence(nodes, floats_of(step), step.parameters).common
        self.maker = {v: node for node in nodes for v in node.outputs}
        self.phases = {n.name: _phase(n) for n in nodes if n.name not in self.common}
        self.stages = self._stages()
        self.reach = self._reach()
        self.sums = self._sums() if self.several else {}
        self.needed = self._needed()

    def pieces(self) -> list[Piece]:
        """Return all pieces that there may be, in the order of a step."""
        count, one = self.staged.count, self.staged.count == 1
        kinds = [*([] if one else [FORWARD]), *([BACK] if self.several else []), LAST, UPDATE]
        return [Piece(kind, stage) for kind in kinds for stage in range(count)]

    def nodes_of(self, piece: Piece) -> tuple[Node, ...]:
        """Return the nodes of a piece, the common ones that it needs among them."""
        own = {node.name for node in self.nodes if node.name not in self.common and self._is_in(node, piece)}
        wanted = {v for node in self.nodes if node.name in own for v in node.inputs}
        wanted |= {v for v, stage in self.needed.items() if piece == Piece(LAST, stage)}
        if piece.kind == BACK:
            wanted |= {v for v, old in self.sums.items() if self._home(old) == piece.stage}
        for node in reversed(self.nodes):
            if node.name in self.common and wanted.intersection(node.outputs):
                own.add(node.name)
                wanted.update(node.inputs)
        return tuple(node for node in self.nodes if node.name in own)

    def received(self, kept: Mapping[Piece, tuple[Node, ...]]) -> dict[Piece, dict[str, Piece]]:
        """Return what each piece gets of which other."""
        found: dict[Piece, dict[str, Piece]] = {}
        for piece, nodes in kept.items():
            made = {v for node in nodes for v in node.outputs}
            read = dict.fromkeys(
                v for node in nodes for v in node.inputs if v in self.maker and v not in made
            )
            found[piece] = {v: self._source(v, piece) for v in read}
        return found

    def _source(self, value: str, reader: Piece) -> Piece:
        """Return the piece that gives a value to another."""
        node = self.maker[value]
        stage, phase = self._at(node), self.phases[node.name]
        if phase == FORWARD and self.staged.count > 1:
            return Piece(FORWARD, stage)
        return Piece(BACK if reader.kind == BACK else LAST, stage)

    def _is_in(self, node: Node, piece: Piece) -> bool:
        """Return whether a node that is not common is of a piece."""
        phase = self.phases[node.name]
        if phase == UPDATE:
            return self._updates(node, piece)
        if self.stages[node.name] != piece.stage:
            return False
        if phase == FORWARD:
            return piece.kind == FORWARD or (self.staged.count == 1 and piece.kind in (BACK, LAST))
        return piece.kind in (BACK, LAST)

    def _updates(self, node: Node, piece: Piece) -> bool:
        """Return whether a node behind the way back is of a piece; joint ones are of all that need them."""
        if piece.kind == BACK:
            return node.name in self._adds[piece.stage]
        if piece.stage not in self._readers.get(node.name, ()):
            return False
        joint = len(self.reach[node.name]) > 1
        return piece.kind == (UPDATE if joint else LAST)

    def _stages(self) -> dict[str, int]:
        """Return the stage of each node before the optimiser; exchanges lie where what they read is made."""
        found = {name: self.staged.stages[name] for name in self.phases if name in self.staged.stages}
        rest = [n for n in self.nodes if n.name in self.phases and n.name not in found]
        rest = [node for node in rest if self.phases[node.name] != UPDATE]
        for node in rest:
            behind = [self.maker[v].name for v in node.inputs if v in self.maker]
            if made := [found[name] for name in behind if name in found]:
                found[node.name] = max(made)
        for node in reversed(rest):  # of what is made of common values: the first stage that reads it
            if node.name not in found:
                users = [u for u in self.nodes if set(node.outputs).intersection(u.inputs)]
                found[node.name] = min((found[u.name] for u in users if u.name in found), default=0)
        return found

    def _reach(self) -> dict[str, frozenset[int]]:
        """Return the stages whose gradients a node behind the way back depends on."""
        found: dict[str, frozenset[int]] = {}
        for node in self.nodes:
            if self.phases.get(node.name) == UPDATE:
                makers = [self.maker[v].name for v in node.inputs if v in self.maker]
                each = [
                    found[name] if name in found else frozenset([self.stages[name]])
                    for name in makers
                    if name in self.phases
                ]
                found[node.name] = frozenset[int]().union(*each)
        return found

    def _at(self, node: Node) -> int:
        """Return the stage that makes what others get of a node."""
        if node.name in self.stages:
            return self.stages[node.name]
        return min(self.reach[node.name])

    def _home(self, value: str) -> int:
        """Return the stage of a parameter or of one of its states, by its name."""
        homes = self.staged.homes
        if value in homes:
            return homes[value]
        return homes[max((p for p in homes if value.startswith(f"{p}.")), key=len)]

    def _sums(self) -> dict[str, str]:
        """Return the sums of gradients with those of the next micro-batch, each with the input it follows."""
        states = self.staged.step.states
        return {
            node.output: node.inputs[0]
            for node in self.nodes
            if node.op == "add" and node.inputs[0] in states and node.inputs[0].endswith(SUM)
        }

    def _needed(self) -> dict[str, int]:
        """Return the outputs of the step, but those of the pass forward, each with its stage."""
        graph, last = self.split.graph, self.staged.count - 1
        found = {}
        for name, (local, _) in self.split.outputs.items():
            old = graph.states.get(name)
            if old is not None:
                found[local] = self._home(old)
            elif local in self.maker and self.phases.get(self.maker[local].name) == UPDATE:
                found[local] = last
        return found

    @cached_property
    def _readers(self) -> dict[str, set[int]]:
        """Return the stages that run each node behind the way back: that need it, or make it for others."""
        found: dict[str, set[int]] = {}
        for stage in range(self.staged.count):
            targets = [v for v, home in self.needed.items() if home == stage]
            for name in self._slice(targets, lambda name: self.phases.get(name) == UPDATE):
                reach = self.reach.get(name, frozenset())
                found.setdefault(name, set()).update(reach if len(reach) == 1 else {stage})
        return found

    @cached_property
    def _adds(self) -> list[set[str]]:
        """Return, by stage, the nodes that add a micro-batch's gradients to those before."""
        each = []
        for stage in range(self.staged.count):
            targets = [v for v, old in self.sums.items() if self._home(old) == stage]
            each.append(self._slice(targets, lambda name: self.phases.get(name) == UPDATE))
        return each

    def _slice(self, targets: Iterable[str], inside: Callable[[str], bool]) -> set[str]:
        """Return the nodes that lead to values, those within: a common node is passed through."""
        pending, seen = list(targets), set[str]()
        while pending:
            node = self.maker.get(pending.pop())
            if node is None or node.name in seen or not (inside(node.name) or node.name in self.common):
                continue
            seen.add(node.name)
            pending.extend(v for v in node.inputs if v)
        return seen - self.common


def _phase(node: Node) -> str:
    if node.origin.endswith(OPTIMISER):
        return UPDATE
    return BACK if node.origin.endswith(BACKWARD) else FORWARD
