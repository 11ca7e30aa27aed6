"""`--parallel auto`: of a few ways to split a model over a system, the fastest that fits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from mtia_emu.compiler.graph import Graph
from mtia_emu.compiler.partition.mesh import Mesh
from mtia_emu.compiler.partition.prepare import has_experts, prepared

from ..errors import UserError
from ..results.report import Report
from ..reuse.memo import Memo
from ..system.topology import System
from .accelerator import GraphModel
from .partition import Partition, partition_prepared
from .system_machine import SystemMachine

Progress = Callable[[str, int, int], None]
FORMATTED = 4  # times the bytes of weights that fit where a number format is asked for: of fp16, 4 bits


class _Passed(Exception):
    """A mesh is passed over: the model does not fit, or another is surely faster."""


@dataclass(frozen=True)
class _Tried:
    """A mesh that was timed."""

    machine: SystemMachine
    report: Report

    @property
    def short(self) -> int:
        """Return the bytes that the fullest chip lacks."""
        assert self.report.system is not None
        return max(stage.memory.short for stage in self.report.system.stages)

    def __str__(self) -> str:
        too_large = " (too large)" if self.short else ""
        return f"{self.machine.mesh} {self.report.seconds * 1e3:.3g} ms{too_large}"


@dataclass
class AutoSplit:
    """The search for a model's fastest split over a system whose chips' parameters `settings` change."""

    system: System
    settings: dict[str, object]
    model: GraphModel
    tried: list[_Tried] = field(default_factory=list)

    def fastest(self, progress: Progress | None = None) -> tuple[SystemMachine, Report]:
        """Return the machine and the report of the fastest of `meshes` that fits; a note says what was tried.

        Where none fits, it is of the one that lacks least. Raises `UserError` where weights alone never fit,
        and where the model can be split in none of these ways.
        """
        graph, memo = prepared(self.model.graph), Memo()
        each, faults = meshes(len(self.system.chips), has_experts(graph)), list[UserError]()
        for number, mesh in enumerate(each):
            if progress is not None:
                progress(f"split {mesh}", number, len(each))
            try:
                machine = SystemMachine(self.system, mesh, self.settings, memoise=memo)
                parts = self._fitting(machine, graph)
                self.tried.append(_Tried(machine, machine.timed(self.model, parts)))
            except _Passed:
                pass
            except UserError as error:
                faults.append(error)
        if not self.tried:
            raise (faults or [self._unfit()])[-1]
        best = min(self.tried, key=lambda x: (x.short, x.report.seconds))
        others = len(each) - len(self.tried)
        left = f"; {others} others cannot be, do not fit or are slower" if others else ""
        note = f"--parallel auto took {best.machine.mesh} of {', '.join(map(str, self.tried))}{left}"
        return best.machine, replace(best.report, notes=(*best.report.notes, note))

    def _fitting(self, machine: SystemMachine, graph: Graph) -> Partition:
        """Return a prepared graph split; raise `_Passed` where that is not worth timing.

        That is where the weights alone are more than the chips hold, whatever else there is, and where stages
        cannot win. Whether all chips together hold the weights is asked before the graph is split.
        """
        room = machine.capacity * (1 if self.model.options.dtype is None else FORMATTED)
        read = {v for node in graph.nodes for v in node.inputs if v in graph.consts}
        if sum(graph.consts[v].type.bytes for v in read) > room * machine.mesh.chips:
            raise _Passed
        if self._outdone(machine):
            raise _Passed
        parts = partition_prepared(graph, machine.mesh)
        types, shards = parts.split.types, parts.split.shards
        names = ({v for n in stage.nodes for v in n.inputs if v in shards} for stage in parts.stages)
        if max(sum(types[v].bytes for v in each) for each in names) > room:
            raise _Passed
        return parts

    def _outdone(self, machine: SystemMachine) -> bool:
        """Return whether stages are slower than something that was timed.

        A stage takes each layer as one stage of the same `tp` does. All that more chips can win is what their
        SRAM keeps from run to run and DRAM need not read again: twice that is allowed for.
        """
        mesh, fit = machine.mesh, [x for x in self.tried if not x.short]
        alone = [x.report.seconds for x in fit if x.machine.mesh == Mesh({"tp": mesh.sizes["tp"]})]
        if mesh.stages == 1 or machine.is_gpu or not alone:
            return False
        kept_s = machine.chip.sram.bytes / machine.chip.dram.bytes_per_s
        return alone[0] - 2 * (mesh.stages - 1) * kept_s > min(x.report.seconds for x in fit)

    def _unfit(self) -> UserError:
        return UserError(
            f"--parallel auto: the weights of {self.model.model} do not fit {self.system.name} in any "
            "way that it tries (right: a system of more chips, or fewer bytes a weight: --dtype)"
        )


def meshes(chips: int, experts: bool) -> list[Mesh]:
    """Return the meshes that are tried: those of one stage first, those with `experts` apart last."""
    return [*candidates(chips), *(experts_apart(chips) if experts else ())]


def candidates(chips: int) -> Iterator[Mesh]:
    """Yield powers of two of `tp`, alone and in up to four stages."""
    for pp in (1, 2, 4):
        tp = 1
        while pp * tp <= chips and tp <= 16:
            if pp == 1 or tp in (1, 4, 8):
                yield Mesh({"pp": pp, "tp": tp})
            tp *= 2


def experts_apart(chips: int) -> list[Mesh]:
    """Return 4 and 16 of `ep`, with 1 and 8 of `tp`, rows everywhere or sent to their experts."""
    sizes = [{"ep": ep, "tp": tp} for ep in (4, 16) for tp in (1, 8) if ep * tp <= chips]
    return [Mesh(size, dispatch=sent) for size in sizes for sent in (False, True)]
