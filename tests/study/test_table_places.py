"""Where a planner lays a model's tables, on the chips that the mesh has for them."""

from __future__ import annotations

import pytest
from mtia_emu.compiler.partition.mesh import parse_parallel
from mtia_emu.compiler.partition.tables import TablePlace, tables

from mtia_emu.errors import UserError
from mtia_emu.study.table_places import planned_places
from mtia_emu.system.load import changed_system, load_system

from .systems import model

SYSTEM = load_system("tiny-board")
GRAPH = model("dlrm-small", batch=64).graph


def places(parallel: str, system=SYSTEM) -> dict[str, TablePlace] | None:
    return planned_places(GRAPH, parse_parallel(parallel), system, "zipf:1.05")


def test_every_table_has_a_place_of_a_kind_that_is_asked_for() -> None:
    for text, kinds in (("table", {"table"}), ("table+column", {"table", "column"}), ("copied", {"copied"})):
        found = places(f"dp=4,tables={text}")
        assert found is not None and found.keys() == tables(GRAPH).keys()
        assert {p.kind for p in found.values()} <= kinds
        owners = {o for p in found.values() for o in p.owners}
        assert owners <= set(range(4)) and (text == "copied") == (not owners)


def test_look_ups_are_spread_over_the_ranks() -> None:
    found, read = places("dp=4,tables=table"), tables(GRAPH)
    assert found is not None
    load = [0.0] * 4
    for name, place in found.items():
        load[place.owners[0]] += read[name].read_bytes
    assert max(load) == max(r.read_bytes for r in read.values()) + min(r.read_bytes for r in read.values())
    assert min(load) > 0


def test_where_no_plan_is_asked_for_there_is_none() -> None:
    assert places("dp=4") is None and places("dp=4,tables=row") is None
    assert planned_places(model("resnet-tiny").graph, parse_parallel("dp=2,tables=table"), SYSTEM) == {}


def test_tables_that_do_not_fit_say_by_how_much() -> None:
    with pytest.raises(UserError, match="too little"):
        places("dp=2,tables=table", changed_system("tiny-board", {"dram.bytes": 1_000_000}))
