"""Launches, placement and what is said of the model as one program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mtia_emu.program.isa import Binding, Program
from mtia_emu.types import TensorType, Work, WorkGroup

from ..user_kernels import idle_notes
from .launches import Launches
from .place import Placement
from .prefetch import Ahead
from .views import View


@dataclass(frozen=True)
class About:
    """What a program says of its model and its steps do not: `dtype` is the format that reports name.

    `types` are inputs and outputs as the model's user sees them; `works` is what any other machine would have
    to do, `groups` which of it a serving runtime does in one kernel.
    """

    name: str = ""
    source: str = ""
    dims: Mapping[str, int] = field(default_factory=dict)
    dtype: str = ""
    types: Mapping[str, TensorType] = field(default_factory=dict)
    works: tuple[Work, ...] = ()
    notes: tuple[str, ...] = ()
    groups: tuple[WorkGroup, ...] = ()


def assemble(launched: Launches, placement: Placement, about: About, ahead: Ahead) -> Program:
    """Return the program of a schedule's launches, with what is read `ahead`."""
    schedule, consts = launched.schedule, launched.schedule.graph.consts

    def bind(value: str, view: View) -> Binding:
        space, address = placement.space[view.buffer], placement.address[view.buffer]
        strides = () if view.contiguous else view.strides
        return Binding(value, view.type, about.types.get(value, view.type), space, address, strides)

    return Program(
        about.name,
        about.source,
        about.dtype,
        dict(about.dims),
        schedule.chip.model_dump(),
        tuple(ahead.blocks),
        tuple(ahead.launches),
        tuple(bind(value, schedule.values[value]) for value in schedule.graph.inputs),
        tuple(bind(value, view) for value, view in schedule.outputs.items()),
        tuple(bind(value, schedule.values[value]) for value in consts),
        {value: c for value, c in consts.items() if c.present},
        placement.dram_bytes,
        ahead.sram_bytes,
        about.works,
        about.notes + ahead.notes + idle_notes(schedule),
        about.groups,
        placement.state,
        placement.resident_bytes,
    )
