"""What many chips came to on a terminal: stages, their memory, and what they exchange."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType

from ..results.system_use import ExchangeUse, ShardUse, StageUse, SystemUse
from . import units
from .page import Cell, Page

TIMES = ["chips", "time", "computes", "exchanges", "exposed"]
MEMORY = ["weights", "state", "other", "needed", "there is", ""]
SHARDS = ["chip", "has", "bytes", "asked for", "tables"]
NAMED = 8  # tables of a chip that are named
EXCHANGES = ["exchange", "over", "chips", "bytes", "times", "each", "together", "algorithm"]


def system_parts(page: Page, use: SystemUse) -> Iterator[RenderableType]:
    """Yield the sections on a run over many chips: stages, their memory, and what they exchange."""
    for title, columns, rows, lines in system_tables(use):
        yield page.section(title, page.table(columns, rows), *(page.text(line, "dim") for line in lines))


def system_tables(use: SystemUse) -> Iterator[tuple[str, list[str], list[list[Cell]], list[str]]]:
    """Yield title, columns, rows and lines below of the tables on a run over many chips."""
    name = [""] if len(use.stages) > 1 else []
    skip = 1 - len(name)
    title = f"Chips: {use.chips} of {use.chip}, {use.parallel}"
    yield title, [*name, *TIMES], [_stage(stage)[skip:] for stage in use.stages], list(_said(use))
    yield "Memory of a chip", [*name, *MEMORY], [_memory(stage)[skip:] for stage in use.stages], []
    if use.shards:
        yield "Tables of each chip", SHARDS, [_shard(x) for x in use.shards], []
    rows = sorted(use.exchanges, key=lambda x: -x.seconds * x.times)
    if rows:
        title = "Exchanges of a micro-batch" if use.batches > 1 else "Exchanges"
        yield title, EXCHANGES, [_exchange(x, several=bool(name)) for x in rows], []


def _exchange(x: ExchangeUse, *, several: bool) -> list[Cell]:
    return [
        f"{x.kind} of {x.stage}" if several else x.kind,
        x.axes,
        x.chips,
        units.size(x.bytes),
        x.times,
        units.seconds(x.seconds),
        units.seconds(x.seconds * x.times),
        x.algorithm,
    ]


def _shard(x: ShardUse) -> list[Cell]:
    more = len(x.tables) - NAMED
    named = ", ".join(x.tables[:NAMED]) + (f" and {more} more" if more > 0 else "")
    return [x.chip, len(x.tables), units.size(x.bytes), f"{x.lookups:,}", named]


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
