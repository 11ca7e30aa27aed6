"""Our chips as machines: models are compiled for the chip, programs timed and priced on it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import cast

from mtia_emu.compiler.formats import Format, choose_format, format_text
from mtia_emu.compiler.graph import Graph
from mtia_emu.compiler.lower.assemble import About
from mtia_emu.compiler.passes.set_precision import own_dtype
from mtia_emu.compiler.pipeline import (
    DEFAULTS,
    NOTHING,
    asked_work,
    chosen_steps,
    compile_graph,
    lower,
)

from ..engine.cost import BlockCost
from ..engine.launches import untimed_costs
from ..engine.lookups import Lookups
from ..engine.power import clocks
from ..engine.run import Zeros, report
from ..errors import UserError
from ..machine.chip import Chip
from ..options import CHIP, Options
from ..program.isa import Program
from ..results.basis import Around, Published
from ..results.machine import Computation
from ..results.report import Report
from ..reuse.memo import Memoise, unmemoised
from ..types import ModelWork, Work, WorkGroup
from .row_uses import with_tables
from .tuning import tuning

Costing = Callable[[Program, Chip, Mapping[int, Lookups]], Sequence[BlockCost]]
Asks = Generator[Chip, Sequence[BlockCost], Report]


def no_lookups(program: Program) -> dict[int, Lookups]:
    """Return nothing: which rows a program looks up is not known."""
    return {}


@dataclass(frozen=True)
class ProgramRun:
    """A program and what only data tell of a run of it, by launch: rows looked up, operands that are zero."""

    program: Program
    lookups: Mapping[int, Lookups] = field(default_factory=dict)
    zero_macs: Mapping[int, Zeros] = field(default_factory=dict)

    @property
    def model(self) -> str:
        """Return the model's name."""
        return self.program.model

    @property
    def dtype(self) -> str:
        """Return the number format that the program runs in."""
        return self.program.dtype

    @property
    def dims(self) -> Mapping[str, int]:
        """Return the sizes of the model's symbolic dimensions."""
        return self.program.dims

    @cached_property
    def works(self) -> tuple[Work, ...]:
        """Return what each operator must do; bags with what is known of the rows that they look up."""
        return with_tables(self.program, self.lookups)

    @property
    def groups(self) -> tuple[WorkGroup, ...]:
        """Return which operators a serving runtime runs as one kernel."""
        return self.program.groups

    @property
    def state(self) -> str:
        """Return how a run finds the machine."""
        return self.program.state


@dataclass(frozen=True)
class GraphModel:
    """A model as a graph: a chip compiles it for itself, other machines take the work of its operators.

    `options` are how it is compiled, `about` what is said of it; `fused` is the graph after the passes that
    know no chip, where it is known; `lookups` gives the rows that a program of it looks up.
    """

    graph: Graph
    options: Options = DEFAULTS
    about: About = NOTHING
    fused: Graph | None = None
    lookups: Callable[[Program], Mapping[int, Lookups]] = no_lookups

    @property
    def model(self) -> str:
        """Return the model's name."""
        return self.about.name or self.graph.name

    @property
    def dims(self) -> Mapping[str, int]:
        """Return the sizes of the model's symbolic dimensions."""
        return self.about.dims

    @cached_property
    def _form(self) -> Format:
        return choose_format(own_dtype(self.graph), None, format_text(self.options))

    @property
    def dtype(self) -> str:
        """Return the number format that is asked for, the model's own where none is."""
        return self._form.name

    @property
    def works(self) -> tuple[Work, ...]:
        """Return what each operator must do, after the passes that know no chip."""
        return self._asked.works

    @property
    def groups(self) -> tuple[WorkGroup, ...]:
        """Return which operators a serving runtime runs as one kernel."""
        return self._asked.groups

    @property
    def state(self) -> str:
        """Return how a run finds the machine."""
        return self.options.run_state

    def with_fused(self) -> GraphModel:
        """Return the model with its graph after the passes that know no chip."""
        return self if self.fused is not None else replace(self, fused=self._lowered)

    @cached_property
    def _lowered(self) -> Graph:
        if self.fused is not None:
            return self.fused
        own, options = own_dtype(self.graph), self.options
        steps = chosen_steps(own, self._form, None, options.passes, options.routing)
        return lower(self.graph, steps.fused)

    @cached_property
    def _asked(self) -> ModelWork:
        return asked_work(self._lowered)


def around(chip: Chip) -> Around:
    """Return what stands around a chip, whose own joules are those of itself and its DRAM."""
    s = chip.system
    return Around(CHIP, s.regulator_share, s.board_w, s.server_chips, s.server_w, s.host_bytes_per_s)


def host_bytes(program: Program) -> int:
    """Return the bytes of the inputs that the host sends: all but those that an output takes the place of."""
    kept = {(b.space, b.address) for b in program.outputs}
    return sum(b.type.bytes for b in program.inputs if (b.space, b.address) not in kept)


def published(chip: Chip) -> Published | None:
    """Return the performance per watt that is published of a chip, None where none is."""
    s = chip.system
    if not s.perf_per_w_mean:
        return None
    return Published(s.perf_per_w_low, s.perf_per_w_mean, s.perf_per_w_high, s.perf_per_w_of)


@dataclass(frozen=True)
class Accelerator:
    """A chip as a machine, which compiles what is not yet compiled.

    `costing` says what the launches of a program cost; `memoise` keeps what compilations have in common.
    """

    chip: Chip
    costing: Costing = untimed_costs
    memoise: Memoise = unmemoised

    @property
    def name(self) -> str:
        """Return the chip's name."""
        return self.chip.name

    def program(self, model: GraphModel) -> Program:
        """Return a model compiled for the chip."""
        search = tuning(model.options, memoise=self.memoise)
        return compile_graph(
            model.graph,
            self.chip,
            about=model.about,
            tuning=search,
            fused=model.fused,
            options=model.options,
        ).program

    def report(self, work: Computation, /) -> Report:
        """Return the report of a program, with what is known of its data, or of a graph, compiled first.

        Where it would draw more than the chip's limit of power, the clock is lower; the program is the same.
        Raises `UserError` for what is neither, and where a program does not fit the chip.
        """
        run = self.run(work)
        asks = self.asks(run)
        now = next(asks)
        while True:
            try:
                now = asks.send(self.costing(run.program, now, run.lookups))
            except StopIteration as done:
                return cast(Report, done.value)

    def asks(self, run: ProgramRun) -> Asks:
        """Ask what a program's launches cost at one clock of the chip after the other; return the report.

        So whoever wants reports of many chips may find out the costs of all of them block by block.
        """
        search = clocks(self.chip)
        now = next(search)
        while True:
            each = yield now
            try:
                now = search.send(report(run.program, now, zero_macs=run.zero_macs, each=each))
            except StopIteration as done:
                found = cast(Report, done.value)
                break
        traffic = replace(found.traffic, host_bytes=host_bytes(run.program))
        return replace(found, traffic=traffic, around=around(self.chip), published=published(self.chip))

    def run(self, work: Computation) -> ProgramRun:
        """Return a graph compiled for the chip, with the rows that it looks up; a program as it is."""
        if isinstance(work, GraphModel):
            program = self.program(work)
            return ProgramRun(program, work.lookups(program))
        if isinstance(work, Program):
            return ProgramRun(work)
        if isinstance(work, ProgramRun):
            return work
        raise UserError(
            f"{self.name} cannot run {work.model or type(work).__name__!r}: neither program nor graph "
            "(right: what `compile_model` returns, or a GraphModel)"
        )
