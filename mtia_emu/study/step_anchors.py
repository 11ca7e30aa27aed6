"""One step of a decoder, compiled and timed on a machine, its cost split into the groups of a step table."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from mtia_emu.compiler.frontend import load
from mtia_emu.compiler.lower.assemble import About
from mtia_emu.compiler.pipeline import DEFAULTS

from ..engine.energy import standing
from ..engine.memoised import memoised_costs
from ..errors import UserError
from ..files.scratch import scratch
from ..gpu import load_gpu
from ..gpu.machine import Gpu
from ..machine.memories import Memory
from ..options import Options
from ..program.isa import Binding, Program
from ..results.machine import Computation, Machine
from ..results.report import Band, Layer, Report
from ..reuse.memo import Memo
from ..sources import served_decoder
from ..types import dtype
from ..zoo.llama import LAST, LOGITS, Llama
from ..zoo.llama_parts import StepPart, build_layers, build_step
from ..zoo.writer import WEIGHT_BYTES
from .accelerator import Accelerator, GraphModel
from .system_machine import SystemMachine

Cost = npt.NDArray[np.float64]  # seconds, joules
ATTENTION = "attention"
_LAYER = re.compile(r"layers\.(\d+)\.")


@dataclass(frozen=True)
class StepAnchor:
    """What one compiled step costs by group: seconds and joules; of attention by past, all layers together.

    `activation_bytes` is what activations take of DRAM, 0 where the machine does not place them. The bands
    are those of the report.
    """

    part: StepPart
    linear: Cost
    head: Cost
    attention: Mapping[int, Cost]
    activation_bytes: int
    weight_bytes: int
    idle_w: float
    seconds_band: tuple[float, float]
    joules_band: tuple[float, float]


@dataclass(frozen=True)
class ServedModel:
    """A decoder on a machine: what steps are compiled of, and how.

    `asked` is a name of the zoo, or `hf:FOLDER`.
    """

    asked: str
    machine: Machine
    options: Options = DEFAULTS

    @cached_property
    def _found(self) -> tuple[str, Llama]:
        return served_decoder(self.asked)

    @property
    def name(self) -> str:
        """Return what the decoder is called."""
        return self._found[0]

    @property
    def model(self) -> Llama:
        """Return the sizes of the decoder."""
        return self._found[1]

    @property
    def chips(self) -> int:
        """Return the chips that a step runs on at once. Raises `UserError` for a pipeline."""
        if not isinstance(self.machine, SystemMachine):
            return 1
        if self.machine.mesh.stages > 1:
            raise UserError(f"{self.machine.name}: a step table of a pipeline is not made (right: no pp)")
        return self.machine.mesh.chips

    @cached_property
    def quick(self) -> Machine:
        """Return the machine, one that does again nothing that its steps have in common."""
        memo = Memo()
        if isinstance(self.machine, SystemMachine):
            return replace(self.machine, memoise=memo)
        if not isinstance(self.machine, Accelerator):
            return self.machine
        return Accelerator(self.machine.chip, lambda p, c, rows: memoised_costs(p, c, memo, rows), memo)

    @property
    def kv_bytes_per_token(self) -> int:
        """Return what keys and values of one token take."""
        m = self.model
        return 2 * m.layers * m.kv_heads * m.head_dim * WEIGHT_BYTES

    def anchor(self, part: StepPart, pasts: Sequence[int]) -> StepAnchor:
        """Return the cost of a step of one part, with attention after each of some pasts.

        Layer l has the past l of them, over and over; so there may be as many as the model has layers. Raises
        `UserError` for more, and where a pass or the machine leaves attention in pieces.
        """
        if len(pasts) > self.model.layers:
            raise UserError(f"{len(pasts)} pasts in {self.model.layers} layers (right: at most one a layer)")
        with scratch() as folder:
            graph = load(build_layers(self.name, self.model, part, pasts, folder))
        work = GraphModel(graph, self.options, About(self.name))
        report, program = self._timed(work)
        linear, head, attention = _groups(report, pasts, self.chips)
        return StepAnchor(
            *(part, linear, head),
            {past: cost * self.model.layers for past, cost in attention.items()},
            _activations(program),
            self._weight_bytes(program, report.dtype),
            report.power.idle_w if report.power else idle_w(self.machine),
            *(_factors(report.seconds_band), _factors(report.joules_band)),
        )

    def step(self, parts: Sequence[StepPart]) -> Report:
        """Return the report of a step of parts, compiled as one graph.

        Raises `UserError` for a decoder that is not the zoo's.
        """
        with scratch() as folder:
            graph = load(build_step(self.asked, parts, folder))
        return self._timed(GraphModel(graph, self.options, About(self.name)))[0]

    def _timed(self, work: Computation) -> tuple[Report, Program | None]:
        if isinstance(self.quick, Accelerator):
            run = self.quick.run(work)
            return self.quick.report(run), run.program
        return self.quick.report(work), None

    def _weight_bytes(self, program: Program | None, number_format: str) -> int:
        if program is not None:
            return sum(b.type.bytes for b in program.consts)
        return self.model.graph("", self.model.default_dims()).parameters * dtype(number_format).bytes


def _factors(band: Band | None) -> tuple[float, float]:
    return (band.low, band.high) if band else (1.0, 1.0)


def memory_bytes(machine: Machine) -> int:
    """Return the memory of weights, caches and activations. Raises `UserError` where it is not known."""
    if isinstance(machine, Accelerator):
        return machine.chip.dram.bytes
    if isinstance(machine, Gpu):
        return int(machine.dram_bytes)
    if isinstance(machine, SystemMachine):
        return machine.capacity * machine.mesh.chips
    raise UserError(f"{machine.name}: its memory is not known (right: a chip, a GPU or a system)")


def idle_w(machine: Machine) -> float:
    """Return the watts of a machine between steps at its nominal clock, NaN where they are not known."""
    if isinstance(machine, Gpu):
        return machine.idle_w
    if isinstance(machine, SystemMachine):
        one: Machine = load_gpu(machine.system.chips[0]) if machine.is_gpu else Accelerator(machine.chip)
        return machine.mesh.chips * idle_w(one)
    return standing(machine.chip).total if isinstance(machine, Accelerator) else math.nan


def _groups(report: Report, pasts: Sequence[int], chips: int) -> tuple[Cost, Cost, dict[int, Cost]]:
    """Return linear work, head, and one layer's attention by past; they sum to the report.

    Of several chips alike the layers are those of one; what links take is linear.
    """
    linear, head = np.zeros(2), np.zeros(2)
    by_layer: dict[int, Cost] = {}
    for layer in report.layers:
        cost = np.array([layer.seconds, chips * layer.joules])
        if layer.op == ATTENTION:
            number = _number(layer)
            by_layer[number] = by_layer.get(number, 0) + cost
        elif layer.name in (LOGITS, LAST):
            head += cost
        else:
            linear += cost
    if not by_layer:
        raise UserError(f"{report.model}: no layer is attention (right: the passes that fuse it)")
    attended = sum(by_layer.values())
    linear = np.array([report.seconds, report.joules]) - head - attended
    each: dict[int, list[Cost]] = {}
    for number, cost in by_layer.items():
        each.setdefault(pasts[number % len(pasts)], []).append(cost)
    return linear, head, {past: np.mean(costs, axis=0) for past, costs in each.items()}


def _number(layer: Layer) -> int:
    found = _LAYER.search(layer.name)
    if found is None:
        raise UserError(f"attention {layer.name!r} names no layer (right: passes that keep names)")
    return int(found[1])


def _activations(program: Program | None) -> int:
    """Return the bytes of DRAM that no weight, input or output of a program takes."""
    if program is None:
        return 0
    own: dict[int, int] = {}
    bindings: tuple[Binding, ...] = (*program.inputs, *program.outputs, *program.consts)
    for b in bindings:
        if b.space == Memory.DRAM:
            own[b.address] = max(own.get(b.address, 0), b.type.bytes)
    return max(program.dram_bytes - sum(own.values()), 0)
