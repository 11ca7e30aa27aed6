"""What leaks and is clocked: the modelled area, by component, at any process node."""

from __future__ import annotations

from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtia_emu.machine.chip import chip_names, load_chip
from mtia_emu.silicon import area, nearest_node, powered_mm2


@pytest.mark.parametrize("name", chip_names())
def test_the_parts_are_those_of_the_area(name: str) -> None:
    chip = load_chip(name)
    known = chip.model_copy(update={"node_nm": nearest_node(chip.node_nm)})
    assert powered_mm2(chip) == asdict(area(known))


@pytest.mark.parametrize(("nm", "known"), [(7, 7), (6, 7), (5.5, 5), (3, 5), (40, 28)])
def test_a_node_without_facts_stands_as_the_nearest(nm: float, known: float) -> None:
    assert nearest_node(nm) == known
    assert powered_mm2(load_chip("mtia-2i", {"node_nm": nm})) == powered_mm2(
        load_chip("mtia-2i", {"node_nm": known})
    )


@given(st.integers(1, 16), st.integers(1, 64), st.integers(1, 16))
def test_a_chip_that_holds_more_has_no_part_that_is_smaller(rows: int, cols: int, factor: int) -> None:
    less, more = (
        powered_mm2(load_chip("mtia-2i", {"grid.rows": n, "grid.cols": cols})) for n in (rows, factor * rows)
    )
    assert all(less[part] <= more[part] for part in less)
