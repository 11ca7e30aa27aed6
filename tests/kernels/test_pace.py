"""Estimates of how long blocks leave DRAM idle, held to the timing reading."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import tiny
from mtia_emu.kernels import pace as pacing
from mtia_emu.kernels.pace import pace
from tiny import ACC, FAR, NEAR, OUT, RESULT, TILE, A, B, command, simd

from mtia_emu import api
from mtia_emu.engine.timing import Timeline, timeline
from mtia_emu.machine.chip import load_chip
from mtia_emu.program.commands import COMMANDS, QUEUES, Batch, CommandCost, Queue
from mtia_emu.program.commands.simd import ApplyFunction
from mtia_emu.program.events import Events
from mtia_emu.program.isa import FIRST, Block, Opcode, Program

CHIP = load_chip("mtia-2i")
LOADS = (command(Opcode.LOAD, operand=NEAR, dst=A, **TILE), command(Opcode.LOAD, operand=FAR, dst=B, **TILE))
PRODUCT = command(Opcode.MATMUL, dst=ACC, src0=A, src1=B, k=8, flags=FIRST, **TILE)
LAST = (simd("copy", ACC, rows=8), command(Opcode.STORE, operand=OUT, src0=RESULT, **TILE))


def test_the_pace_of_a_small_block() -> None:
    """A tile of a product on tiny, b from DRAM: 128 B are 8 cycles of DRAM.

    Load queue 8 + 8, array 2 folds of 8: 16. SIMD is busiest: 64 x 4 B / 16 = 16, and 4 until it is done.
    Before it begins: an issue 2, and the first load, 8 + 10 + 1 + 4 = 23. After the last load that a product
    waits for: the product 16, its pipeline and first load 8, the store 8, and 1 + 4 until it is there: 37.
    """
    found = pace(tiny.block(*LOADS, PRODUCT, *LAST), load_chip("tiny"))
    assert found is not None
    assert (found.dram, found.other, found.edge) == (8, 20, 62)
    assert (found.idle, found.late) == (74, 0)


def test_the_pace_of_a_block_that_dram_holds_up() -> None:
    """DRAM of 4 B a cycle takes 32 for b, longer than the 20 of SIMD: the rest waits 12.

    Before it an issue, 2; after it b's way, 50 + 1 + 4; then product 24, SIMD 20, store 13.
    """
    found = pace(tiny.block(*LOADS, PRODUCT, *LAST), load_chip("tiny", {"dram.channel_bytes_per_s": 2e9}))
    assert found is not None
    assert (found.dram, found.other, found.edge) == (32, 20, 2 + 55 + 24 + 20 + 13)
    assert (found.idle, found.late) == (114, 12)


def test_the_pace_of_a_tile_summed_over_two_pes() -> None:
    """PE 1 adds the sums of PE 0 to its own: 256 B / 32 = 8 and a hop, between the product and its store.

    SIMD is busiest again: 20. Before it an issue 2 and the first load, 8 + 10 + 2 + 4 = 24; after the last
    load the product 16 + 8, the sums 8 + 1, the store 8 and 2 + 4.
    """
    near = [{**load, "operand": NEAR} for load in LOADS]
    add = command(Opcode.REDUCE, src_pe=0, dst=ACC, **TILE)
    mine = [{**c, "pe": 1} for c in (*near, PRODUCT, add, *LAST)]
    found = pace(tiny.block(*near, PRODUCT, *mine), load_chip("tiny"))
    assert found is not None
    assert (found.dram, found.other, found.edge) == (0, 20, 2 + 24 + 24 + 9 + 14)


class OnNewUnit(ApplyFunction):
    """A function of elements on a unit that nothing here knows: it is taken for 100, its result 7 later."""

    queue = Queue("newest", "newest", "a unit of a PE", "simd")

    def cost(self, batch: Batch, ev: Events) -> CommandCost:
        return CommandCost(np.full(len(batch.at), 100.0), 7.0)


@pytest.mark.parametrize(
    ("channel", "dram", "edge"), [(8e9, 8, 2 + 23 + 24 + 13), (3.2e8, 200, 2 + 55 + 24 + 107 + 13)]
)
def test_a_new_unit_is_busy_as_any_other(
    channel: float, dram: float, edge: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tile of a product, its copy on a new unit, which is busiest beside a fast DRAM.

    Then the copy is in the work already, so after the last load are the product, 16 + 8, and the store,
    8 + 1 + 4. Beside a slow DRAM the copy's 100 + 7 are waited for too.
    """
    monkeypatch.setitem(COMMANDS, Opcode.SIMD, OnNewUnit())
    monkeypatch.setattr(pacing, "QUEUES", (*QUEUES[:-1], OnNewUnit.queue, QUEUES[-1]))
    chip = load_chip("tiny", {"dram.channel_bytes_per_s": channel})
    estimate = pace(tiny.block(*LOADS, PRODUCT, *LAST), chip)
    assert estimate is not None
    assert (estimate.dram, estimate.other, estimate.edge) == (dram, 100, edge)


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
