"""Ranks with equal programs are one class; every table is on the chips that its place names."""

from __future__ import annotations

from collections import Counter

from mtia_emu.compiler.partition.tables import TablePlace, tables

from mtia_emu.study.partition import Partition, partition
from mtia_emu.study.rank_classes import rank_classes, shards

from .systems import machine, model

GRAPH = model("dlrm-small", batch=64).graph


def parts(parallel: str, places: dict[str, TablePlace] | None = None) -> Partition:
    return partition(GRAPH, machine(parallel).mesh, places)


def test_ranks_are_alike_unless_tables_lie_whole() -> None:
    for text in ("dp=4", "dp=4,tables=row", "tp=2,tables=column", "dp=4,tables=copied"):
        (alike,) = rank_classes(parts(text, {} if "copied" in text else None), 0)
        assert alike.rank == 0 and len(alike.chips) == machine(text).mesh.chips


def test_ranks_that_differ_are_classes_of_their_own() -> None:
    found = rank_classes(parts("dp=4,tables=table"), 0)
    assert [c.chips for c in found] == [(0,), (1,), (2,), (3,)]
    both = rank_classes(parts("dp=2,tp=2,tables=table"), 0)
    assert [c.chips for c in both] == [(0, 1), (2, 3)] and both[0].name == "chips 0, 1"


def test_ranks_without_tables_are_alike() -> None:
    places = {name: TablePlace("table", (0,)) for name in tables(GRAPH)}
    found = rank_classes(parts("dp=4,tables=table", places), 0)
    assert [c.chips for c in found] == [(0,), (1, 2, 3)]


def test_shards_name_each_table_where_it_lies() -> None:
    names = list(tables(GRAPH))
    kinds = ("table", "column", "row", "copied", "table", "table", "table", "copied")
    given = list(zip(names, kinds, strict=True))
    places = {n: TablePlace(k, (i % 4,) if k == "table" else ()) for i, (n, k) in enumerate(given)}
    found = shards(parts("dp=4,tables=plan", places))
    named = Counter(t for x in found for t in x.tables)
    assert named[names[0]] == 1 and named[f"{names[1]} in columns"] == 4
    assert named[f"{names[2]} in rows"] == named[f"{names[3]} copied"] == 4
    once = sum(GRAPH.consts[n].type.bytes for n, k in given if k != "copied")
    copied = sum(GRAPH.consts[n].type.bytes for n, k in given if k == "copied")
    assert sum(x.bytes for x in found) == once + 4 * copied
    assert not shards(parts("dp=4,tables=row"))
