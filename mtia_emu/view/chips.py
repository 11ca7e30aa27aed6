"""What many chips came to on a terminal: stages, their memory, and what they exchange."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType

from ..results.system_use import StageUse, SystemUse
from . import units
from .page import Cell, Page

TIMES = ["chips", "time", "computes", "exchanges", "exposed"]
MEMORY = ["weights", "state", "other", "needed", "there is", ""]
EXCHANGES = ["exchange", "over", "chips", "bytes", "times", "each", "together", "algorithm"]


def system_parts(page: Page, use: SystemUse) -> Iterator[RenderableType]:
    """Yield the sections on a run over many chips: stages, their memory, and what they exchange."""
    name = [""] if len(use.stages) > 1 else []
    yield page.section(
        f"Chips: {use.chips} of {use.chip}, {use.parallel}",
        page.table([*name, *TIMES], [_stage(stage)[1 - len(name) :] for stage in use.stages]),
        *(page.text(line, "dim") for line in _said(use)),
    )
    rows_of = [_memory(stage)[1 - len(name) :] for stage in use.stages]
    yield page.section("Memory of a chip", page.table([*name, *MEMORY], rows_of))
    rows = sorted(use.exchanges, key=lambda x: -x.seconds * x.times)
    if rows:
        several = len(use.stages) > 1
        cells: list[list[Cell]] = [
            [
                f"{x.kind} of {x.stage}" if several else x.kind,
                x.axes,
                x.chips,
                units.size(x.bytes),
                x.times,
                units.seconds(x.seconds),
                units.seconds(x.seconds * x.times),
                x.algorithm,
            ]
            for x in rows
        ]
        yield page.section(
            "Exchanges of a micro-batch" if use.batches > 1 else "Exchanges", page.table(EXCHANGES, cells)
        )


def _stage(stage: StageUse) -> list[Cell]:
    times = (stage.seconds, stage.compute_s, stage.exchange_s, stage.exposed_s)
    return [stage.name, stage.chips, *(units.seconds(x) for x in times)]


def _memory(stage: StageUse) -> list[Cell]:
    """Return what is needed of a chip's memory, how much there is, and what is lacking."""
    memory = stage.memory
    other = memory.activations + memory.buffers
    sizes = (memory.weights, memory.state, other, memory.needed, memory.capacity)
    lacks = f"{units.size(memory.short)} too few" if memory.short else "fits"
    return [stage.name, *(units.size(x) for x in sizes), lacks]


def _said(use: SystemUse) -> Iterator[str]:
    """Yield what there is to say below the table."""
    yield f"links and switches take {units.joules(use.link_joules)}, hosts {units.watts(use.host_w)} besides"
    if use.idle_s > 0:
        yield f"an average chip waits {units.seconds(use.idle_s)} for other stages"
    if use.batches > 1:
        yield f"{use.batches} micro-batches: times above are of one"
