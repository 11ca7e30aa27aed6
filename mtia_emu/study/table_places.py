"""Where the embedding tables of a model lie that is split over a system: a planner's answer, by table."""

from __future__ import annotations

from collections.abc import Sequence

from mtia_emu.compiler.graph import Graph
from mtia_emu.compiler.partition.mesh import Mesh
from mtia_emu.compiler.partition.tables import COLUMN, COPIED, ROW, WHOLE_TABLE, TablePlace, TableRead, tables

from ..system.planner import plan
from ..system.sharding import ShardJob, TablePlacement
from ..system.tables import EmbeddingTable
from ..system.topology import System
from .partition import Exchanges

UNIFORM = "uniform"


def planned_places(
    graph: Graph, mesh: Mesh, system: System, skew: str = UNIFORM
) -> dict[str, TablePlace] | None:
    """Return how each table lies by the kinds that the mesh allows; None where it asks for no plan.

    What is least is what the system's planner says: exchanges, and the look-ups of the slowest chip. Rows
    are asked for by the law `skew`. Raises `UserError` where tables do not fit.
    """
    found = tables(graph)
    if not mesh.planned or not found:
        return {} if mesh.planned else None
    chips = Exchanges(system, mesh).groups(0, mesh.lookup)[0]
    held = tuple(_table(name, read, skew) for name, read in found.items())
    batch = max(read.samples for read in found.values())
    job = ShardJob(system, held, batch, some=chips)
    kinds = [kind for kind in mesh.planned if kind != ROW or all(_has_even_rows(t, len(chips)) for t in held)]
    placed = plan(job, kinds or (WHOLE_TABLE,)).placements
    return {name: _place([p for p in placed if p.table == number]) for number, name in enumerate(found)}


def _table(name: str, read: TableRead, skew: str) -> EmbeddingTable:
    rows, dim = read.kind.shape
    size = read.kind.dtype.bytes
    return EmbeddingTable(name, 1, rows, dim, read.pooling, skew, size, size)


def _has_even_rows(table: EmbeddingTable, ranks: int) -> bool:
    return table.rows % ranks == 0


def _place(placements: Sequence[TablePlacement]) -> TablePlace:
    """Return the place of one table from what the planner says of it."""
    kind = placements[0].kind
    if kind in (ROW, COPIED):
        return TablePlace(kind)
    owners = tuple(p.rank for p in placements for _ in range(p.count))
    return TablePlace(WHOLE_TABLE if len(owners) == 1 else COLUMN, owners)
