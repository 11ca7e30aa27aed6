"""Estimates of how long blocks leave DRAM idle, held to the timing reading."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import tiny
from mtia_emu.kernels.pace import pace
from tiny import ACC, FAR, NEAR, OUT, RESULT, TILE, A, B, command, simd

from mtia_emu import api
from mtia_emu.engine.timing import Timeline, timeline
from mtia_emu.machine.chip import load_chip
from mtia_emu.program.isa import FIRST, Block, Opcode, Program

CHIP = load_chip("mtia-2i")
LOADS = (command(Opcode.LOAD, operand=NEAR, dst=A, **TILE), command(Opcode.LOAD, operand=FAR, dst=B, **TILE))
PRODUCT = command(Opcode.MATMUL, dst=ACC, src0=A, src1=B, k=8, flags=FIRST, **TILE)
LAST = (simd("copy", ACC, rows=8), command(Opcode.STORE, operand=OUT, src0=RESULT, **TILE))


def test_the_pace_of_a_small_block() -> None:
    """A tile of a product on tiny, b from DRAM: 128 B are 8 cycles of DRAM.

    Load queue 8 + 8, array 2 folds of 8: 16. SIMD is busiest: 64 x 4 B / 16 = 16, and 4 until it is done.
    Before it begins: the first load, 8 + 10 + 1 + 4 = 23. After the last load that a product waits for: the
    product 16, its pipeline and first load 8, the store 8, and 1 + 4 until it is there: 37.
    """
    found = pace(tiny.block(*LOADS, PRODUCT, *LAST), load_chip("tiny"))
    assert found is not None
    assert (found.dram, found.other, found.edge) == (8, 20, 60)
    assert (found.idle, found.late) == (72, 0)


def test_the_pace_of_a_block_that_dram_holds_up() -> None:
    """DRAM of 4 B a cycle takes 32 for b, longer than the 20 of SIMD: the rest waits 12.

    Before it is done nothing; after it b's way, 50 + 1 + 4; then product 24, SIMD 20, store 13.
    """
    found = pace(tiny.block(*LOADS, PRODUCT, *LAST), load_chip("tiny", {"dram.channel_bytes_per_s": 2e9}))
    assert found is not None
    assert (found.dram, found.other, found.edge) == (32, 20, 55 + 24 + 20 + 13)
    assert (found.idle, found.late) == (112, 12)


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
