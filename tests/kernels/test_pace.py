"""Estimates of how long blocks leave DRAM idle, held to the timing reading."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from mtia_emu.kernels.pace import pace

from mtia_emu import api
from mtia_emu.engine.timing import Timeline, timeline
from mtia_emu.machine.chip import load_chip
from mtia_emu.program.isa import Block, Program

CHIP = load_chip("mtia-2i")


@pytest.fixture(scope="module", params=[{"seq": 1, "past": 512}, {"seq": 256}], ids=["decode", "prefill"])
def llama(request: pytest.FixtureRequest) -> Program:
    return api.compile_model("zoo:llama-3.2-1b", CHIP, dims=request.param, beside=False, prefetch=False)


def timed(program: Program) -> Iterator[tuple[Block, Timeline]]:
    """Yield the block and the times of each launch."""
    known = {i: timeline(block, CHIP) for i, block in enumerate(program.blocks)}
    yield from ((program.blocks[x.block], known[x.block]) for x in program.launches)


def test_work_of_dram_is_nearly_that_of_the_timing(llama: Program) -> None:
    for block, time in timed(llama):
        found = pace(block, CHIP)
        assert found is not None and found.dram == pytest.approx(time.busy["dram"], rel=0.05, abs=1)


def test_idle_time_is_about_right_in_all(llama: Program) -> None:
    pairs = [(pace(block, CHIP), time.cycles - time.busy["dram"]) for block, time in timed(llama)]
    estimated, real = sum(p.idle for p, _ in pairs if p), sum(x for _, x in pairs)
    assert estimated == pytest.approx(real, rel=0.15)


def test_what_waits_for_dram_is_less_than_its_work(llama: Program) -> None:
    for block, time in timed(llama):
        found = pace(block, CHIP)
        rest = max(cycles for name, cycles in time.busy.items() if name != "dram")
        assert found is not None and found.late <= max(time.busy["dram"] - 0.7 * rest, 0) + 1


def test_what_depends_on_data_has_no_pace() -> None:
    program = api.compile_model("zoo:dlrm-small", CHIP, dims={"batch": 8}, beside=False)
    bags = [block for block in program.blocks if block.kernel == "embedding_bag"]
    assert bags and all(pace(block, CHIP) is None for block in bags)
