"""Bags of a program, with the tables that its launches look up."""

from __future__ import annotations

from dataclasses import replace

import mtia_emu
from mtia_emu.study.accelerator import ProgramRun
from mtia_emu.study.lookups import known_lookups
from mtia_emu.study.row_uses import with_tables
from mtia_emu.types import BagWork

PROGRAM = mtia_emu.compile_model("zoo:dlrm-small", "tiny", dims={"batch": 4})


def test_bags_know_the_tables_that_launches_look_up() -> None:
    lookups = known_lookups(PROGRAM)
    works = ProgramRun(PROGRAM, lookups).works
    bags = [w for w in works if isinstance(w, BagWork)]
    assert sum(w.lookups for w in bags) == sum(t.lookups for w in bags for t in w.tables)
    assert all(t.distinct is not None and 0 < t.distinct <= t.lookups for w in bags for t in w.tables)
    assert sum(t.rows for w in bags for t in w.tables) == sum(w.rows for w in bags)
    assert [replace(w, tables=()) if isinstance(w, BagWork) else w for w in works] == list(PROGRAM.works)


def test_bags_keep_what_they_say_where_rows_are_not_known() -> None:
    assert with_tables(PROGRAM, {}) == PROGRAM.works
