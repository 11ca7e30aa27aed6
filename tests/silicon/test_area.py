"""Die area: against the published dies, and by what it should follow."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from mtia_emu.errors import UserError
from mtia_emu.machine.chip import load_chip
from mtia_emu.silicon import area, load_silicon


@pytest.mark.parametrize("name", ["mtia-1", "mtia-2i"])
def test_published_dies_are_within_a_fifth(name: str) -> None:
    """MTIA 1 gave one number (the rest of a PE); MTIA 2i gave none."""
    chip = load_chip(name)
    assert area(chip).total_mm2 == pytest.approx(chip.die_mm2, rel=0.2)


def test_components_sum_to_the_die_and_none_is_free() -> None:
    found = area(load_chip("mtia-2i"))
    assert sum(asdict(found).values()) == pytest.approx(found.total_mm2)
    assert all(value > 0 for value in asdict(found).values())


@pytest.mark.parametrize(
    "key, part",
    [
        ("sram.bytes", "sram"),
        ("pe.local.bytes", "local"),
        ("pe.matrix.rows", "array"),
        ("pe.matrix.arrays", "array"),
        ("pe.simd.fp32_macs_per_cycle", "simd"),
        ("noc.row_bytes_per_cycle", "noc"),
        ("dram.channels", "dram"),
        ("dram.channel_bytes_per_s", "dram"),
    ],
)
def test_a_parameter_adds_area_where_it_is_built(key: str, part: str) -> None:
    chip = load_chip("mtia-2i")
    value = chip.model_dump()
    for name in key.split("."):
        value = value[name]
    base, more = asdict(area(chip)), asdict(area(load_chip("mtia-2i", {key: 2 * value})))  # type: ignore[operator]
    assert more[part] > base[part]
    assert {n: v for n, v in more.items() if n != part} == {n: v for n, v in base.items() if n != part}


def test_pads_are_of_packages_and_do_not_shrink_with_their_rate() -> None:
    """Eight packages of LPDDR5 at 2.8 mm2; slower pins take as much room, faster ones more."""
    mm2 = {
        rate: area(load_chip("mtia-2i", {"dram.channel_bytes_per_s": rate})).dram
        for rate in (6.4e9, 12.8e9, 25.6e9)
    }
    assert mm2[6.4e9] == mm2[12.8e9] == pytest.approx(8 * 2.8) and mm2[25.6e9] == pytest.approx(16 * 2.8)


def test_a_finer_node_shrinks_all_but_analogue() -> None:
    coarse, fine = (asdict(area(load_chip("mtia-2i", {"node_nm": nm}))) for nm in (7, 5))
    assert coarse.pop("dram") == fine.pop("dram")
    assert all(coarse[name] > fine[name] for name in coarse)
    assert coarse["array"] / fine["array"] == pytest.approx(138.2 / 96.3)
    assert coarse["sram"] / fine["sram"] == pytest.approx(0.027 / 0.021)


def test_a_lane_is_as_large_as_its_costliest_dtype() -> None:
    def lanes(**rates: float) -> float:
        chip = load_chip("mtia-2i")
        matrix = chip.pe.matrix.model_copy(update={"rates": rates})
        return area(chip.model_copy(update={"pe": chip.pe.model_copy(update={"matrix": matrix})})).array

    assert lanes(int8=1.0, fp16=0.5) == lanes(fp16=0.5) == pytest.approx(lanes(fp16=1.0) / 2)
    assert lanes(int8=1.0) < lanes(fp16=0.5) < lanes(fp32=0.5)


def test_an_unknown_node_is_refused() -> None:
    with pytest.raises(UserError, match="node_nm is 6: area and cost are known at 5, 7, 10, 14, 28 nm"):
        area(load_chip("mtia-2i", {"node_nm": 6}))


def test_settings_change_the_facts_and_wrong_ones_are_refused() -> None:
    chip = load_chip("mtia-2i")
    assert area(chip, load_silicon({"area.host_mm2": 1015.0})).host > 500
    with pytest.raises(UserError, match=r"unknown key 'area.host_mm'; did you mean 'area.host_mm2'"):
        load_silicon({"area.host_mm": 1.0})
    with pytest.raises(UserError, match=r"silicon: 'cost.wafer_mm' is -1.0"):
        load_silicon({"cost.wafer_mm": -1.0})
    with pytest.raises(UserError, match=r"cost.bond_loss_share.*at most 0.5"):
        load_silicon({"cost.bond_loss_share": 0.9})
    with pytest.raises(UserError, match=r"unknown key 'dram.hbm3-6400.usd'"):
        load_silicon({"dram.hbm3-6400.usd": 4.0})
    with pytest.raises(UserError, match=r"'node.5.wafer_usd.*' is nan"):
        load_silicon({"node.5.wafer_usd": float("nan")})
