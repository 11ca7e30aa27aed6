"""A model run over many chips: how it is split, its report beside a GPU system's, all ranks executed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mtia_emu.compiler.formats import format_text, quantised
from mtia_emu.compiler.lower.assemble import About
from mtia_emu.compiler.partition.annotations import annotated
from mtia_emu.compiler.partition.mesh import ONNX, Mesh, parse_parallel
from mtia_emu.compiler.passes.set_precision import own_dtype
from mtia_emu.compiler.reference import evaluate

from ..errors import UserError
from ..gpu import gpu_names
from ..options import BOARD, Options
from ..oracle import Expected, compare_outputs, expected_outputs
from ..results.check import Check
from ..results.report import Comparison, Report, compare
from ..reuse.memo import Memo
from ..sources import Source
from ..system.load import changed_system, load_system, system_names
from ..system.topology import System
from .accelerator import Accelerator, GraphModel
from .annotating import write_annotated
from .auto_split import AutoSplit, Progress
from .partition import Partition
from .rank_runs import RankRuns
from .system_machine import SystemMachine

Array = np.ndarray[Any, Any]
AUTO = "auto"
WIDE = ("fp32", "fp64")
TOLERANCE, NARROW_TOLERANCE = 1e-4, 1e-2  # of an output's largest magnitude: fp32 and wider, and narrower


@dataclass(frozen=True)
class SystemOutcome:
    """What a run over many chips came to, as `api.Outcome` is of one chip."""

    machine: SystemMachine
    report: Report
    gpu: Report | None = None
    check: Check | None = None
    outputs: dict[str, Array] = field(default_factory=dict)
    basis: str = BOARD

    @property
    def comparison(self) -> Comparison | None:
        """Return the ratios of the GPU system to this one; None without one."""
        return None if self.gpu is None else compare(self.report, self.gpu, self.basis)


def split_run(
    source: Source,
    settings: Mapping[str, object],
    inputs: Mapping[str, Array] | None,
    gpu: str | None,
    options: Options,
    progress: Progress | None = None,
) -> SystemOutcome:
    """Return what a model comes to over the system that the options name. Raises `UserError` without one."""
    if options.system is None:
        flag = "--annotations" if options.parallel is None else "--parallel"
        right = "right: --system NAME too; the name of a chip is a system of one"
        raise UserError(f"{flag} is of how chips of a system share a model ({right})")
    if options.by_layer:
        raise UserError("--by-layer is of one chip (right: without --system)")
    system = changed_system(options.system, settings)
    graph = source.graph({name: x.shape for name, x in inputs.items()} if inputs else None)
    chosen = options if options.state is not None else replace(options, state=source.state)
    model = GraphModel(graph, chosen, About(source.name, str(source.path), source.dims))
    machine, report = _asked(system, settings, model, progress)
    if options.annotations is not None:
        write_annotated(source, machine.parts(model), options.annotations)
    other = None if gpu is None else beside(system, gpu, machine.mesh)
    beside_report = None if other is None else other.report(model)
    outcome = SystemOutcome(machine, report, beside_report, basis=options.basis)
    if inputs is None and not options.check:
        return outcome
    given = inputs if inputs is not None else source.inputs(graph, options.seed)
    given = {name: np.asarray(x) for name, x in given.items()}
    outputs = executed(machine, model, given, progress)
    check = _compared(source, model, report.dtype, given, outputs) if options.check else None
    return replace(outcome, outputs=outputs, check=check)


def _asked(
    system: System, settings: Mapping[str, object], model: GraphModel, progress: Progress | None
) -> tuple[SystemMachine, Report]:
    """Return the machine and the report of the split that is asked for, or the fastest of a few."""
    chips = len(system.chips)
    said = any(not c.fault and c.devices <= chips for c in model.graph.devices)
    text = model.options.parallel or (ONNX if said else AUTO)
    if text == AUTO:
        return AutoSplit(system, dict(settings), model).fastest(progress)
    mesh = parse_parallel(text)
    if mesh.onnx is not None:
        mesh = annotated(model.graph, mesh, chips).mesh
    machine = SystemMachine(system, mesh, dict(settings), memoise=Memo())
    return machine, machine.report(model)


def beside(system: System, gpu: str, mesh: Mesh) -> SystemMachine | None:
    """Return the system of GPUs to stand beside: the one named, or the first large enough of that GPU.

    It is split alike. None where the system is of that GPU itself, or where there is no such system.
    """
    if gpu not in gpu_names():
        return SystemMachine(load_system(gpu), mesh)
    if gpu in system.chips:
        return None
    found = (load_system(name) for name in system_names())
    fits = [s for s in found if set(s.chips) == {gpu} and len(s.chips) >= mesh.chips]
    return SystemMachine(fits[0], mesh) if fits else None


def executed(
    machine: SystemMachine, model: GraphModel, inputs: Mapping[str, Array], progress: Progress | None = None
) -> dict[str, Array]:
    """Return a model's outputs from all ranks, each its program on an emulated chip."""
    absent = [name for name, const in model.graph.consts.items() if not const.present]
    if absent:
        raise UserError(
            f"{model.model}: {len(absent)} weights are absent (first: %{absent[0]}), so it can be timed but "
            "not executed; put the weights' file beside the model, or leave out --check and --inputs"
        )
    compiler = Accelerator(machine.chip, memoise=machine.memoise)
    parts: Partition = machine.partition(model)
    ranks = RankRuns(
        parts,
        machine.system,
        machine.chip,
        lambda graph: compiler.program(replace(model, graph=graph, fused=None)),
    )
    tick = None if progress is None else (lambda done, total: progress("execute", done, total))
    return ranks.outputs(inputs, tick)


def _compared(
    source: Source,
    model: GraphModel,
    dtype: str,
    inputs: Mapping[str, Array],
    outputs: Mapping[str, Array],
) -> Check:
    """Return how far the outputs of all ranks are from an oracle's."""
    expected = (
        Expected(evaluate(model.graph, inputs), "the references of its ops")
        if source.is_graph
        else expected_outputs(source.path, inputs)
    )
    own, spelling = own_dtype(model.graph).name, format_text(model.options)
    few = quantised(spelling) if spelling != own else None
    wide = own in WIDE and dtype in WIDE
    tolerance = TOLERANCE if wide else NARROW_TOLERANCE
    if few is not None:
        tolerance = max(tolerance, few.tolerance)
    return replace(compare_outputs(outputs, expected.outputs, tolerance), oracle=expected.oracle)
