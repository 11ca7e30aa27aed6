"""Columns as people read them."""

from __future__ import annotations

import pytest

from mtia_emu.sweeps.labels import NAMES, amount_of, label_of, name_of
from mtia_emu.sweeps.spec import ALL_OBJECTIVES


@pytest.mark.parametrize(
    ("column", "label"),
    [
        ("area_mm2", "die area, mm2"),
        ("decode.seconds", "time of a run: decode, s"),
        ("dram.channels", "dram.channels"),
        ("bound_by", "bound_by"),
    ],
)
def test_a_label_is_a_name_and_a_unit(column: str, label: str) -> None:
    assert label_of(column) == label


def test_every_objective_has_a_name_and_a_unit() -> None:
    assert set(ALL_OBJECTIVES) <= set(NAMES)
    assert all(all(name_of(column)) for column in ALL_OBJECTIVES)


def test_an_amount_has_its_unit_with_a_prefix_where_that_helps() -> None:
    assert amount_of("seconds", 6.055e-5) == "time of a run 60.6 us"
    assert amount_of("area_mm2", 814.0) == "die area 814 mm2" and amount_of("x.y", 3) == "x.y 3"
