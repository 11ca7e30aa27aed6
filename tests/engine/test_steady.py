"""The steady state that is solved for is the one that a cache settles in, run after run."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import mtia_emu
from mtia_emu import api
from mtia_emu.engine.lookups import _missed, cache_bytes, from_inputs
from mtia_emu.engine.steady import FOR_EVER, GONE, Missed, Table, looked_up, stay, steady
from mtia_emu.errors import UserError
from mtia_emu.machine.chip import Chip
from mtia_emu.machine.units.cache import Cache, whole_sets
from mtia_emu.program.commands import LOOKS_UP
from mtia_emu.program.inputs import typed_inputs
from mtia_emu.sources import Source
from mtia_emu.streams import Popularity, Zipf
from mtia_emu.zoo.operators import Tbe

SMALL = {"sram.bytes": 3 << 20, "sram.granule_bytes": 1 << 20}
RUNS = 24


def settled(source: Source, chip: Chip, runs: int = RUNS) -> float:
    """Return the share of rows' lines that hit in the last of so many runs, line by line."""
    program = api.compile_stages(source, chip, state="warm").program
    line = chip.sram.line_bytes
    cache = Cache(whole_sets(cache_bytes(program, chip), line, chip.sram.ways))
    asked = missed = 0
    for seed in range(runs):
        given = typed_inputs(source.examples(seed), program.inputs)  # type: ignore[misc]
        for number, rows in from_inputs(program, given).items():
            launch = program.launches[number]
            block = program.blocks[launch.block]
            lines = _missed(cache, line, block, launch, rows)
            width = block.operands[int(block.commands["operand"][0])].cols * 2
            if seed == runs - 1:
                asked, missed = asked + len(rows.rows) * -(-width // line), missed + int(lines.sum())
    return 1 - missed / asked


@pytest.mark.parametrize(
    ("skew", "rows", "dim"),
    [
        ("uniform", 20_000, 64),
        ("zipf:1.05", 20_000, 64),
        ("histogram:dlrm-2021", 60_000, 32),
        ("uniform", 90_000, 16),
    ],
)
def test_rows_hit_as_often_as_line_by_line(skew: str, rows: int, dim: int) -> None:
    chip = mtia_emu.load_chip("mtia-2i", SMALL)
    with api.operator_source(Tbe(4, rows, dim, 20, 64, "fp16", skew), None) as source:
        warm = api.run_source(source, chip, gpu=None, state="warm").report.served
        cold = api.run_source(source, chip, gpu=None, state="cold").report.served
        assert warm is not None and cold is not None and warm.row_hit_rate is not None
        assert warm.row_hit_rate == pytest.approx(settled(source, chip), abs=0.02)
        assert cold.row_hit_rate is not None and cold.row_hit_rate < warm.row_hit_rate


def test_a_cold_run_has_no_state() -> None:
    chip = mtia_emu.load_chip("mtia-2i")
    program = mtia_emu.compile_model("zoo:dlrm-small", chip, state="cold")
    assert steady(program, chip, {}) == {} and program.resident_bytes == 0
    assert steady(replace(program, state="warm"), chip, {}) != {}


def test_tables_that_fit_are_read_from_sram_alone() -> None:
    """Without data the mean stands: all rows of all tables are in the cache."""
    chip = mtia_emu.load_chip("mtia-2i")
    program = mtia_emu.compile_model("zoo:dlrm-small", chip, state="warm")
    report = api.run_program(program, chip, gpu=None).report
    assert report.served is not None and report.served.row_hit_rate == 1.0
    assert report.served.dense_hit_rate is not None and report.served.dense_hit_rate > 0.95


def test_the_time_that_a_row_stays_fills_the_cache() -> None:
    """100 rows of 10 B, each asked for once a run: after ln 2 runs half of them have been."""
    table, all_ways = Table(100.0, 10.0, 100.0), 1 << 20
    half = stay([table], 500, all_ways)
    assert half.shares.sum() == pytest.approx(1.0) and (half.shares >= 0).all()
    assert half.times @ half.shares == pytest.approx(np.log(2), rel=0.05)
    assert stay([table], 1000, 16) is FOR_EVER and stay([table], 0, 16) is GONE and stay([], 9, 16) is GONE
    assert table.missed(FOR_EVER) == Missed(0.0, 0.0, 0.0)
    assert table.missed(GONE).all == pytest.approx(1.0) and table.missed(GONE).first == 1.0
    missed = table.missed(half)
    assert missed.all == pytest.approx(0.5, rel=0.05)
    assert missed.first == pytest.approx(0.5 / (1 - np.exp(-1)), rel=0.05) and missed.again == 0.0


def test_sets_of_few_lines_find_less() -> None:
    table = Table(100_000.0, 64.0, 10_000.0, Popularity(Zipf(1.05)))
    found = [1 - table.missed(stay([table], 1 << 20, ways)).all for ways in (1, 4, 16, 1024)]
    assert found == sorted(found) and found[-1] - found[0] > 0.02


SIZES = (0, 2 << 20, 32 << 20, 64 << 20, 128 << 20, 256 << 20, 1 << 30)


@pytest.mark.parametrize("model", ["zoo:dlrm-mlperf", "zoo:llama-tiny", "zoo:dlrm-small"])
def test_more_sram_is_never_slower_and_dram_never_takes_more(model: str) -> None:
    """A larger SRAM leaks more: beyond some size that outweighs what DRAM is spared."""
    runs = []
    with api.open_model(model, {}) as source:
        for size in SIZES[3:]:
            chip = mtia_emu.load_chip("mtia-2i", {"sram.bytes": size, "tdp_w": 1000.0})  # no limit slows it
            runs.append(api.run_source(source, chip, gpu=None, state="warm").report)
    for less, more in itertools.pairwise(runs):
        assert more.seconds <= less.seconds * 1.001
        assert more.joules_by.dram <= less.joules_by.dram * 1.001
        assert more.traffic.dram_read_bytes <= less.traffic.dram_read_bytes


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("granule", [1, 4096, 32 << 20, 1 << 40])
def test_any_division_of_sram_serves_between_nothing_and_all(size: int, granule: int) -> None:
    chip = mtia_emu.load_chip("mtia-2i", {"sram.bytes": size, "sram.granule_bytes": granule})
    runs = {}
    for state in ("cold", "warm"):
        try:
            program = mtia_emu.compile_model("zoo:dlrm-small", chip, state=state)
        except UserError:
            continue
        runs[state] = api.run_program(program, chip, gpu=None).report
        served = runs[state].served
        assert served is not None
        assert 0 <= served.dense_hit_bytes <= served.dense_bytes
        assert 0 <= served.row_hit_bytes <= served.row_bytes
        assert program.sram_bytes <= max(size, 0)
    assert len(runs) == 2
    assert runs["warm"].seconds <= runs["cold"].seconds * 1.001


def test_rows_looked_up_are_counted_as_commands_say() -> None:
    program = mtia_emu.compile_model("zoo:dlrm-small", "mtia-2i")
    counts = [sum(looked_up(b).values()) for b in program.blocks]
    assert sum(counts) > 0 and all(n >= 0 for n in counts)


WIDE = """graph wide {
  in %i : int64[12]
  const %table : fp16[8,70000] = absent
  %y : fp16[12,70000] = gather(%table, %i) {axis=0}
  out %y
}"""


def test_rows_wider_than_a_tile_are_looked_up_once_and_never_spare_more_than_they_take(
    tmp_path: Path,
) -> None:
    """Rows come in parts of the columns, the last one narrower than the others."""
    (tmp_path / "wide.ir").write_text(WIDE)
    outcome = api.run(tmp_path / "wide.ir", "mtia-2i", gpu=None)
    (block,) = [b for b in outcome.program.blocks if b.kernel == "gather"]
    gathers = block.commands[LOOKS_UP[block.commands["op"]]]
    assert len(set(gathers["cols"].tolist())) > 1
    assert looked_up(block) == {0: pytest.approx(12)}
    moved = outcome.report.traffic
    assert 0 <= moved.dram_read_bytes < 8 * 140_000  # the table is in SRAM from runs before
