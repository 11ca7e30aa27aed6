"""The points of a sweep: all of a grid, or seeded samples that no one else decides."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from mtia_emu.errors import UserError
from mtia_emu.sweeps.space import Space, check_size, size
from mtia_emu.sweeps.spec import make_spec

BASE: dict[str, Any] = {"chip": "tiny", "model": [{"model": "zoo:llama-tiny"}]}
AXES = {"dram.channels": "1..8", "clock_hz": "1e9..2e9", "sram.bytes": [1024, 2048, 4096, 8192]}


def test_a_grid_is_the_product_of_its_values() -> None:
    values = {
        "dram.channels": [1, 2, 3],
        "pe.matrix.dataflow": ["ws", "os"],
        "sram.bytes": "1024..4096 step x2",
    }
    space = Space(make_spec(BASE | {"set": values}))
    want = itertools.product([1, 2, 3], ["ws", "os"], [1024, 2048, 4096])
    assert [tuple(p.params.values()) for p in space] == list(want)
    assert [p.index for p in space] == list(range(18)) and len(space) == 18
    assert space[7] == list(space)[7]


def test_a_spec_where_nothing_varies_has_one_point() -> None:
    assert [p.params for p in Space(make_spec(BASE))] == [{}]


@pytest.mark.parametrize("method", ["random", "latin"])
def test_samples_follow_the_seed_alone(method: str) -> None:
    def points(seed: int) -> list[Any]:
        spec = make_spec(BASE | {"set": AXES, "method": method, "points": 40, "seed": seed})
        return [p.params for p in Space(spec)]

    assert points(1) == points(1) != points(2)
    assert all(1 <= p["dram.channels"] <= 8 and 1e9 <= p["clock_hz"] <= 2e9 for p in points(1))
    spec = make_spec(BASE | {"set": AXES, "method": method, "points": 40, "seed": 1})
    assert Space(spec)[33].params == points(1)[33]  # any point by itself


def test_a_latin_hypercube_has_a_point_in_each_stratum() -> None:
    spec = make_spec(BASE | {"set": AXES, "method": "latin", "points": 40})
    points = list(Space(spec))
    assert sorted(int((p.params["clock_hz"] / 1e9 - 1) * 40) for p in points) == list(range(40))
    assert all(sum(p.params["sram.bytes"] == v for p in points) == 10 for v in AXES["sram.bytes"])


def test_very_many_points_take_a_word() -> None:
    values = {"dram.channels": "1..1000 step 1", "sram.bytes": "1000..1000000 step 1000"}
    spec = make_spec(BASE | {"set": values})
    assert size(spec) == 1_000_000
    with pytest.raises(UserError, match=r"1,000,000 points.*--yes"):
        check_size(spec, False)
    check_size(spec, True)
