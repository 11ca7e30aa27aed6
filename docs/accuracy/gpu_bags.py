"""Embedding bags of an A100 by shape, read off a figure of ISCA 2023 (the GPU beside MTIA 1)."""

from __future__ import annotations

from typing import Any

import numpy as np

from accuracy import tables
from accuracy.score import Score, halves, score
from mtia_emu.gpu import Facts, Gpu
from mtia_emu.types import INT8, BagWork

Frame = Any
MEASURED = "a100-sxm-40gb"  # 330 W and 1,555 GB/s are what the figure's shares go back to
TABLES = 64  # not published; as for the MTIA rows of the same figure
FEWER, MORE = 32, 128  # numbers of tables that the figure would not tell from that


def bags() -> Frame | None:
    """Return the published rows with their seconds, were there 64 tables; None where the folder is absent."""
    import pandas

    path = tables.REFERENCE / "mtia" / "mtia1_tbe.csv"
    if not path.is_file():
        return None
    rows = pandas.read_csv(path)
    rows = rows[rows.series.str.startswith("GPU_BS")].reset_index(drop=True)
    rows = rows.assign(batch=rows.series.str.removeprefix("GPU_BS").astype(int))
    return at(rows, TABLES)


def at(rows: Frame, count: int) -> Frame:
    """Return rows with their seconds, were there so many tables: rates are of elements of a byte each."""
    moved = count * rows.batch * rows.pooling * rows.dim
    return rows.assign(tables=count, seconds=moved / (rows.derived_GBps * 1e9))


def chosen(rows: Frame) -> np.ndarray:
    """Return by row whether it may be fitted."""
    return halves(list(zip(rows.pooling, rows.rows, rows.dim, rows.batch, strict=True)))


def bag_seconds(facts: Facts, rows: Frame) -> np.ndarray:
    """Return the time of published bags, launched by a host that waits, as an operator of PyTorch is."""
    extra = facts.launch_host_s - facts.launch_graph_s
    gpu = Gpu.model_validate(facts.model_dump())
    return np.array([extra + gpu.kernel(_work(row)).seconds for row in rows.itertuples()])


def _work(row: Any) -> BagWork:
    count = int(row.tables * row.batch)
    lookups, rows, dim = count * int(row.pooling), int(row.tables * row.rows), int(row.dim)
    return BagWork(
        "", "", INT8, lookups=lookups, bags=count, dim=dim, rows=rows, flops=lookups * dim,
        read_bytes=min(lookups, rows) * dim + 8 * (lookups + count + 1), write_bytes=2 * count * dim,
    )  # fmt: skip


def scored(facts: Facts, count: int = TABLES) -> Score | None:
    """Return the score of the rows that were not fitted, were there so many tables."""
    rows = bags()
    if rows is None:
        return None
    rows = at(rows[~chosen(rows)], count)
    return score(bag_seconds(facts, rows), rows.seconds.to_numpy())
