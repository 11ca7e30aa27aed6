"""Chips: every number has a source, every fault is named, files and settings pass one check."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtia_emu.errors import UserError
from mtia_emu.machine.chip import chip_names, chip_text, known_keys, load_chip, parse_setting, validate
from mtia_emu.study.listing import chip_parameters as parameters
from mtia_emu.types import BF16, FP8_E4M3, FP16, FP32, INT8, INT32

FACTS = {  # as printed: MTIA 1 in ISCA 2023, table I; 2i in ISCA 2025, table 2; 300 in ISCA 2026, table I
    "mtia-1": {
        "clock_hz": 0.8e9, "die_mm2": 373, "grid.rows": 8, "grid.cols": 8, "pe.local.bytes": 128 << 10,
        "sram.bytes": 128 << 20, "sram.bytes_per_s": 800e9, "dram.bytes_per_s": 176e9, "dram.channels": 16,
        "dram.bytes": 64e9, "pe.core.rows_per_accumulate": 32, "typical_w": 25, "tdp_w": 35,
    },
    "mtia-2i": {
        "clock_hz": 1.35e9, "die_mm2": 421, "grid.rows": 8, "grid.cols": 8, "pe.local.bytes": 384 << 10,
        "sram.bytes": 256 << 20, "sram.bytes_per_s": 2.7e12, "dram.bytes_per_s": 204.8e9, "dram.channels": 16,
        "dram.bytes": 128e9, "pe.core.rows_per_accumulate": 128, "typical_w": 65, "tdp_w": 85,
    },
    "mtia-300": {
        "clock_hz": 1.9e9, "grid.rows": 12, "grid.cols": 6, "pe.local.bytes": 512 << 10,
        "sram.bytes": 192 << 20, "sram.bytes_per_s": 11.4e12, "dram.bytes": 216e9, "typical_w": 667,
        "tdp_w": 912,
    },
    "tpu-v4i": {
        "clock_hz": 1.05e9, "pe.matrix.rows": 128, "pe.matrix.cols": 128, "sram.bytes": 128 << 20,
        "dram.bytes": 8e9, "tdp_w": 175,
    },
    "tpu-v5e": {"clock_hz": 1.5e9, "pe.matrix.cols": 128, "dram.bytes": 16e9},
    "tpu-v6e": {"pe.matrix.cols": 256, "dram.bytes": 32e9},
}  # fmt: skip
TOPS = {
    "mtia-1": {"int8": 102.4, "fp16": 51.2},
    "mtia-2i": {"int8": 354, "fp16": 177},
    "mtia-300": {"fp8_e4m3": 1120, "fp16": 560},
    "tpu-v4i": {"int8": 138, "bf16": 138},
    "tpu-v5e": {"int8": 393, "bf16": 197},
    "tpu-v6e": {"int8": 1836, "bf16": 918},
}
LOCAL_GB_PER_S = {"mtia-1": 400, "mtia-2i": 1000, "mtia-300": 1900}
DRAM_GB_PER_S = {
    "mtia-1": 176,
    "mtia-2i": 204.8,
    "mtia-300": 6100,
    "tpu-v4i": 614,
    "tpu-v5e": 819,
    "tpu-v6e": 1638,
}


def at(chip: Any, key: str) -> Any:
    for part in key.split("."):
        chip = getattr(chip, part)
    return chip


@pytest.mark.parametrize("name", FACTS)
def test_published_numbers(name: str) -> None:
    chip = load_chip(name)
    assert {key: at(chip, key) for key in FACTS[name]} == FACTS[name]
    for kind, tops in TOPS[name].items():
        found = 2 * chip.pes * chip.pe.matrix.macs_per_cycle(kind) * chip.clock_hz / 1e12
        assert found == pytest.approx(tops, rel=0.03)
    local = chip.pe.local.bytes_per_cycle * chip.clock_hz / 1e9
    assert local == pytest.approx(LOCAL_GB_PER_S.get(name, local), rel=0.03)
    assert chip.dram.bytes_per_s / 1e9 == pytest.approx(DRAM_GB_PER_S[name], rel=0.001)


@pytest.mark.parametrize("name", chip_names())
def test_every_number_has_a_unit_a_meaning_and_a_source(name: str) -> None:
    rows = parameters(name)
    assert {re.sub(r"(rates|mac_pj)\..*", r"\1", r.key) for r in rows} == set(known_keys())
    for row in rows:
        if row.key != "name":
            assert row.source, row.key
            assert row.unit, row.key
        assert row.text, row.key


def test_derived_rates() -> None:
    chip = load_chip("mtia-2i")
    assert chip.pes == 64
    assert chip.sram_bytes_per_cycle == 2000
    assert chip.peak_macs_per_cycle(INT8) == 64 * 2048
    assert chip.peak_macs_per_cycle(FP32) == 64 * 16  # no matrix rate: the SIMD engine
    assert chip.cycles(1e-6) == pytest.approx(1350)


@pytest.mark.parametrize(
    ("asked", "given_"), [(FP16, FP16), (FP32, FP16), (FP8_E4M3, FP16), (BF16, BF16), (INT32, INT32)]
)
def test_the_nearest_dtype_of_the_matrix_unit(asked: Any, given_: Any) -> None:
    assert load_chip("mtia-2i").nearest_matrix_dtype(asked) == given_


@pytest.mark.parametrize(("key", "value", "words"), [
    ("pe.matrix.row", 4, "unknown key 'pe.matrix.row'; did you mean 'pe.matrix.rows'?"),
    ("grid.rows", -1, "'grid.rows' is -1: input should be greater than 0"),
    ("grid.rows", 300, "less than or equal to 256"),
    ("grid.rows", 1.5, "'grid.rows' is 1.5: input should be a valid integer"),
    ("grid.rows", True, "'grid.rows' is True: not a number"),
    ("grid.rows", "8", "'grid.rows' is '8': not a number"),
    ("grid.rows", {"a": 1}, "'grid.rows' is {'a': 1}"),
    ("clock_hz", float("nan"), "'clock_hz' is nan: input should be a finite number"),
    ("clock_hz", float("inf"), "finite number|less than or equal"),
    ("sram.latency_s", -1e-9, "greater than or equal to 0"),
    ("pe.simd.bytes_per_cycle", 1e300, "a number here is 0 or from 1e-15 to 1e+21"),
    ("pe.simd.bytes_per_cycle", 1e-300, "a number here is 0 or from 1e-15 to 1e+21"),
    ("pe.matrix.cols", 10**12, "a count here is at most 1000000000"),
    ("pe.matrix.skewed", 1, "right: true or false"),
    ("pe.matrix.dataflow", "up", "'pe.matrix.dataflow' is 'up': input should be 'ws', 'os' or 'is'"),
    ("pe.matrix.rates.int9", 1.0, "unknown dtype 'int9'; did you mean 'int8'"),
    ("pe.matrix.rates.fp64", 1.0, "pe.matrix.rates has fp64 but energy.mac_pj has no price for it"),
    ("energy.mac_pj.int8", -0.1, "energy.mac_pj.int8 is -0.1; a price is between 0 and 1e6 pJ"),
    ("grid", 4, "--set grid: a table of keys, not a value (known: cols, rows)"),
    ("clock_hz.x", 4, "--set clock_hz.x: 'clock_hz' is a value, not a table of keys"),
])  # fmt: skip
def test_a_wrong_value_is_named(key: str, value: object, words: str) -> None:
    with pytest.raises(UserError) as error:
        load_chip("tiny", {key: value})
    assert any(part in str(error.value) for part in words.split("|")), str(error.value)


def test_a_missing_key_is_named() -> None:
    values = load_chip("tiny").model_dump()
    del values["pe"]["simd"]
    with pytest.raises(UserError, match=r"chip test: key 'pe\.simd' is missing"):
        validate(values, "test")
    values = load_chip("tiny").model_dump()
    del values["energy"]["mac_pj"]["fp32"]
    with pytest.raises(UserError, match=r"mac_pj\.fp32 is missing"):
        validate(values, "test")


def test_every_fault_is_named_at_once() -> None:
    with pytest.raises(UserError) as error:
        load_chip("tiny", {"grid.rows": 0, "grid.colour": 3})
    assert "'grid.rows' is 0" in str(error.value)
    assert "unknown key 'grid.colour'" in str(error.value)


def test_settings_are_read_as_toml() -> None:
    assert parse_setting("pe.matrix.rows=64") == ("pe.matrix.rows", 64)
    assert parse_setting(" clock_hz = 1.5e9 ") == ("clock_hz", 1.5e9)
    assert parse_setting("pe.matrix.skewed=true") == ("pe.matrix.skewed", True)
    assert parse_setting("pe.matrix.dataflow=os") == ("pe.matrix.dataflow", "os")
    assert parse_setting("pe.matrix.rates.fp8_e4m3=1.0") == ("pe.matrix.rates.fp8_e4m3", 1.0)
    assert load_chip("tiny", dict([parse_setting("grid.rows=3")])).grid.rows == 3


@pytest.mark.parametrize(("text", "words"), [
    ("pe.matrix.rows", "not KEY=VALUE (right: --set pe.matrix.rows=64)"),
    ("=4", "not KEY=VALUE"),
    ("pe.matrx.rows=4", "unknown key 'pe.matrx.rows'; did you mean 'pe.matrix.rows'?"),
])  # fmt: skip
def test_a_wrong_setting_is_refused(text: str, words: str) -> None:
    with pytest.raises(UserError) as error:
        parse_setting(text)
    assert words in str(error.value)


def test_a_chip_of_ones_own(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    text = chip_text("tiny")[0].replace('name = "tiny"', 'name = "mine"')
    mine.write_text(text, encoding="utf-8-sig")
    assert load_chip(str(mine)) == load_chip("tiny").model_copy(update={"name": "mine"})
    assert parameters(str(mine))[0].value == "mine"
    mine.write_text("grid = [")
    with pytest.raises(UserError, match="not TOML"):
        load_chip(str(mine))
    mine.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read as text"):
        load_chip(str(mine))
    mine.write_text("x" * (2 << 20))
    with pytest.raises(UserError, match=r"at most \d+ are read"):
        load_chip(str(mine))
    with pytest.raises(UserError, match="is not a file; give a chip's name"):
        load_chip(str(tmp_path / "none.toml"))
    with pytest.raises(UserError, match="unknown chip 'mtia2i'; did you mean 'mtia-2i'"):
        load_chip("mtia2i")


VALUES = st.one_of(
    st.integers(),
    st.floats(),
    st.booleans(),
    st.text(max_size=3),
    st.none(),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


@settings(max_examples=300)
@given(st.sampled_from(known_keys()), VALUES)
def test_any_value_is_taken_or_refused(key: str, value: object) -> None:
    try:
        chip = load_chip("tiny", {key: value})
    except UserError:
        return
    assert chip == validate(chip.model_dump(), "again")
