"""Ranks executed: each runs the very program that was compiled for its chip, and waits where they meet."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from mtia_emu.compiler.graph import Graph, Node
from mtia_emu.compiler.ops.collectives import COLLECTIVES, PLACED, ROUTED
from mtia_emu.compiler.partition.lockstep import combined
from mtia_emu.compiler.partition.mesh import Mesh
from mtia_emu.compiler.partition.ranks import joined, part_of, run_alike
from mtia_emu.compiler.reference import core_library

from ..engine.function import execute
from ..machine.chip import Chip
from ..program.isa import Program
from ..system.collectives import Collective, shape_of, timed
from ..system.topology import System
from ..system.values import collective
from .partition import Partition

Array = np.ndarray[Any, Any]
Compile = Callable[[Graph], Program]
PATIENCE_S = 600.0  # until ranks that wait for one that never comes are given up


@dataclass
class _Meeting:
    """Where the ranks of one group meet: what each brings, and what each takes away."""

    size: int
    combine: Callable[[str, Sequence[Sequence[Array]], Mapping[str, Any]], list[Array]]
    brought: dict[int, tuple[str, Sequence[Array], Mapping[str, Any]]] = field(default_factory=dict)
    taken: list[Array] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.barrier = threading.Barrier(self.size, action=self._exchange)
        self.leaving = threading.Barrier(self.size)

    def _exchange(self) -> None:
        ops = {(op, _alike(attrs)) for op, _, attrs in self.brought.values()}
        if len(ops) != 1:
            raise RuntimeError(f"ranks meet in different exchanges: {', '.join(map(str, ops))}")
        op, _, attrs = self.brought[0]
        self.taken = self.combine(op, [self.brought[i][1] for i in range(self.size)], attrs)

    def meet(self, position: int, op: str, arrays: Sequence[Array], attrs: Mapping[str, Any]) -> Array:
        """Bring a rank's arrays; return what it takes away when all have come."""
        self.brought[position] = (op, arrays, attrs)
        self.barrier.wait(PATIENCE_S)
        taken = self.taken[position]
        self.leaving.wait(PATIENCE_S)
        return taken

    def give_up(self) -> None:
        """Let nobody wait any longer: a rank has failed."""
        self.barrier.abort()
        self.leaving.abort()


def _alike(attrs: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Return the attributes of an exchange that all ranks have alike."""
    return tuple(sorted((name, value) for name, value in attrs.items() if name != "own"))


@dataclass
class RankRuns:
    """The ranks of a partition on a system, executed on emulated chips.

    `compiled` makes the program of a rank's graph for the chip, once however often they run.
    """

    parts: Partition
    system: System
    chip: Chip
    compiled: Compile
    programs: dict[tuple[int, int], Program] = field(default_factory=dict)

    def program(self, stage: int, rank: int) -> Program:
        """Return the program of a rank in a stage; ranks of one graph share it."""
        if run_alike(self.parts.split, self.parts.stages[stage].nodes):
            rank = 0
        if (stage, rank) not in self.programs:
            self.programs[stage, rank] = self.compiled(self.parts.graph(stage, rank))
        return self.programs[stage, rank]

    def outputs(
        self, inputs: Mapping[str, Array], progress: Callable[[int, int], None] | None = None
    ) -> dict[str, Array]:
        """Return the model's outputs, whole, from whole inputs: stage by stage, all ranks of one at once."""
        mesh, split = self.parts.mesh, self.parts.split
        held: list[dict[str, Array]] = [
            {name: part_of(np.asarray(inputs[name]), x, place, mesh) for name, x in split.inputs.items()}
            for place in mesh.ranks
        ]
        for stage in range(len(self.parts.stages)):
            self._stage(stage, held)
            if progress is not None:
                progress(stage + 1, len(self.parts.stages))
        return {
            name: joined({rank: values[local] for rank, values in enumerate(held)}, layout, mesh)
            for name, (local, layout) in split.outputs.items()
        }

    def _stage(self, stage: int, held: list[dict[str, Array]]) -> None:
        """Run a stage on all ranks; add what it gives to what each rank holds."""
        programs = [self.program(stage, r) for r in range(len(held))]
        ranks = Ranks(self.parts.mesh, self.system, self.chip)
        made = ranks.run(stage, self.parts.stages[stage].nodes, programs, held)
        for values, more in zip(held, made, strict=True):
            values.update(more)


@dataclass(frozen=True)
class Ranks:
    """Chips of a system that run programs at once and meet in exchanges."""

    mesh: Mesh
    system: System
    chip: Chip

    def run(
        self,
        stage: int,
        nodes: Iterable[Node],
        programs: Sequence[Program],
        held: Sequence[Mapping[str, Array]],
    ) -> list[dict[str, Array]]:
        """Return what the program of each rank of a stage gives, which is of some nodes."""
        meetings = self._meetings(stage, nodes)

        def run(rank: int) -> dict[str, Array]:
            given = {b.name: held[rank][b.name] for b in programs[rank].inputs}
            try:
                return execute(programs[rank], self.chip, given, self._library(rank, meetings)).outputs
            except BaseException:
                for meeting in meetings.values():
                    meeting.give_up()
                raise

        with ThreadPoolExecutor(max_workers=len(held)) as pool:
            futures = [pool.submit(run, rank) for rank in range(len(held))]
        failed = [f.exception() for f in futures if f.exception() is not None]
        real = [e for e in failed if not isinstance(e, threading.BrokenBarrierError)]
        if failed:
            raise (real or failed)[0]  # type: ignore[misc]
        return [future.result() for future in futures]

    def _meetings(self, stage: int, nodes: Iterable[Node]) -> dict[tuple[int, ...], _Meeting]:
        """Return the meetings of groups of ranks that some nodes exchange in."""
        meetings: dict[tuple[int, ...], _Meeting] = {}
        for axes in dict.fromkeys(tuple(node.attrs["axes"]) for node in nodes if node.op in COLLECTIVES):
            for place in self.mesh.ranks:
                group = self.mesh.group(place, axes)
                chips = tuple(self.mesh.chip(stage, r) for r in group)
                if group not in meetings:
                    meetings[group] = _Meeting(len(group), partial(exchanged, self.system, chips))
        return meetings

    def _library(
        self, rank: int, meetings: Mapping[tuple[int, ...], _Meeting]
    ) -> dict[str, Callable[..., tuple[Array, ...]]]:
        """Return the references of ops for a rank: exchanges meet the others of its group."""
        place, mesh = self.mesh.ranks[rank], self.mesh

        def exchange(op: str, arrays: Sequence[Array], attrs: Mapping[str, Any]) -> tuple[Array, ...]:
            group = mesh.group(place, tuple(attrs["axes"]))
            return (meetings[group].meet(group.index(rank), op, arrays, attrs),)

        return {**core_library(), **{op: partial(exchange, op) for op in COLLECTIVES}}


def exchanged(
    system: System,
    chips: tuple[int, ...],
    op: str,
    given: Sequence[Sequence[Array]],
    attrs: Mapping[str, Any],
) -> list[Array]:
    """Return what each rank of a group gets, added in the order of the algorithm that the system takes.

    Rows that come back from experts are added in the order of ranks.
    """
    if op in (*ROUTED, *PLACED):
        return combined(op, given, attrs)
    parts = [arrays[0] for arrays in given]
    size = parts[0].nbytes * (len(parts) if op == "all_gather" else 1)
    algorithm = timed(system, Collective(op, size, chips)).algorithm
    run = partial(collective, op, algorithm=algorithm, shape=shape_of(system, chips))
    if op == "all_reduce":
        return run(parts)
    if op == "all_gather":
        whole = [x.reshape(len(parts), *parts[0].shape) for x in run(parts)]
        return [np.concatenate(list(x), axis=attrs["dim"]) for x in whole]
    first = [np.moveaxis(x, attrs["dim"], 0) for x in parts]  # parts lie one after another
    shape = (first[0].shape[0] // len(parts), *first[0].shape[1:])
    got = run(first)
    if op == "reduce_scatter":
        return [np.ascontiguousarray(np.moveaxis(x.reshape(shape), 0, attrs["dim"])) for x in got]
    each = [[np.moveaxis(p, 0, attrs["dim"]) for p in x.reshape(len(parts), *shape)] for x in got]
    return [np.concatenate(x, axis=attrs["join"]) for x in each]
