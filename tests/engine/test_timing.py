"""Time at the edge: blocks of a few commands on the chip `tiny`, each start and end worked out by hand.

tiny: 1 GHz; SRAM answers after 10 cycles and moves 64 B a cycle, DRAM after 50 and 16 B; a link moves 32 B,
the DMA port 16 B a cycle after 4 cycles; a hop takes 1 cycle, an issue 2; local memory moves 64 B a cycle.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from worked import WORKED

from mtia_emu.engine.recurrence import WINDOW
from mtia_emu.engine.timing import timeline
from mtia_emu.errors import UserError
from mtia_emu.machine.chip import load_chip
from mtia_emu.program.isa import COMMAND, FIRST, FUNCTION_NAMES, NO_SLOT, Block, Cast, Opcode, Operand, Slot
from mtia_emu.types import FP16, FP32

CHIP = load_chip("tiny")
TILE: dict[str, Any] = {"rows": 8, "cols": 8}
COPY = FUNCTION_NAMES.index("copy")
SLOTS = (Slot(FP16, 0, 128), Slot(FP16, 128, 128), Slot(FP32, 0, 256, True), Slot(FP16, 256, 128))
A, B, OUT, FAR, SCRATCH = range(5)
A_SLOT, B_SLOT, ACC, RESULT = range(4)


def block(*commands: dict[str, Any]) -> Block:
    """Return a block over 8x8 operands: a, b and out in SRAM, one in DRAM, one in scratch."""
    records = np.zeros(len(commands), COMMAND)
    for name in ("operand", "operand2", "dst", "src0", "src1", "src2", "stage", "src_pe"):
        records[name] = NO_SLOT
    for record, fields in zip(records, commands, strict=True):
        for name, value in fields.items():
            record[name] = value
    spaces = ("sram", "sram", "sram", "dram", "scratch")
    operands = tuple(
        Operand(FP16, (8, 8), (8, 1), s, s in ("scratch",) or i == OUT) for i, s in enumerate(spaces)
    )
    turned = Operand(FP16, (8, 8), (1, 8), "sram", False, True)
    return Block("test", (operands[0], turned, *operands[2:]), SLOTS, records, 128, 1)


LOAD_A = {"op": Opcode.LOAD, "operand": A, "dst": A_SLOT, **TILE}
LOAD_B = {"op": Opcode.LOAD, "operand": B, "dst": B_SLOT, **TILE}
MATMUL = {"op": Opcode.MATMUL, "dst": ACC, "src0": A_SLOT, "src1": B_SLOT, "k": 8, "flags": FIRST, **TILE}
NARROW = {"op": Opcode.SIMD, "fn": COPY, "dst": RESULT, "src0": ACC, **TILE}
STORE = {"op": Opcode.STORE, "operand": OUT, "src0": RESULT, **TILE}


def times(*commands: dict[str, Any]) -> list[tuple[float, float]]:
    """Return the start and the end of each command; the event queue gives them to within a window."""
    time, slow = timeline(block(*commands), CHIP), timeline(block(*commands), CHIP, ordered=True)
    np.testing.assert_allclose(slow.start, time.start, atol=WINDOW)
    np.testing.assert_allclose(slow.end, time.end, atol=WINDOW)
    return [(round(a, 3), round(b, 3)) for a, b in zip(time.start.tolist(), time.end.tolist(), strict=True)]


@pytest.mark.parametrize("name", WORKED)
def test_each_command_starts_and_ends_when_was_worked_out(name: str) -> None:
    """One command by itself: both rules of sharing give the same, to rounding."""
    x = WORKED[name]
    for ordered in (False, True):
        time = timeline(x.block, x.chip, ordered=ordered)
        assert (time.start[0], time.end[0]) == (x.start, pytest.approx(x.end, abs=1e-6))
        assert time.cycles == time.end[0]


@pytest.mark.parametrize("name", WORKED)
def test_no_command_is_free(name: str) -> None:
    """Beyond its issue each command, and so each opcode, takes time: it holds what it needs and is late."""
    chip = load_chip("tiny", {**WORKED[name].settings, "pe.core.issue_cycles": 0})
    time = timeline(WORKED[name].block, chip)
    assert time.cycles >= 1
    assert max(busy for resource, busy in time.busy.items() if resource != "issue") > 0


# A number of the chip, another value for it, a worked command and when that then ends.
RATES: tuple[tuple[str, float, str, float], ...] = (
    ("pe.core.issue_cycles", 5, "load whole rows", 24),  # 3 later
    ("pe.dma.bytes_per_cycle", 4, "load whole rows", 30),  # 48 / 4 = 12, not 3
    ("pe.dma.runs_per_cycle", 0.5, "load column by column", 33),  # 8 runs take 16, not 8
    ("pe.dma.startup_cycles", 9, "load whole rows", 26),
    ("pe.dma.startup_cycles", 9, "store", 21),
    ("pe.dma.outstanding_rows", 4, "gather", 100),  # 3 x 56 / 4 = 42, not 21
    ("noc.hop_cycles", 3, "load into all", 36),  # 4 hops, 2 more each
    ("noc.hop_cycles", 3, "store", 20),
    ("noc.hop_cycles", 3, "reduce", 13),
    ("noc.row_bytes_per_cycle", 4, "load into a row", 50),  # 128 / 4 = 32, not 8
    ("noc.col_bytes_per_cycle", 4, "load into a row", 26),
    ("noc.col_bytes_per_cycle", 4, "load into a column", 50),
    ("noc.row_bytes_per_cycle", 4, "load into a column", 26),
    ("noc.row_bytes_per_cycle", 4, "store", 40),
    ("sram.latency_s", 30e-9, "load whole rows", 41),
    ("sram.latency_s", 30e-9, "store", 16),  # nobody waits for it
    ("sram.latency_s", 30e-9, "stage", 59),
    ("sram.bytes_per_s", 4e9, "load whole rows", 30),  # 48 / 4 = 12, not 3
    ("sram.bytes_per_s", 4e9, "stage", 71),  # 64 / 4 = 16, not 4
    ("dram.latency_s", 70e-9, "load parts of rows from DRAM", 90),
    ("dram.latency_s", 70e-9, "store parts of rows to DRAM", 19),
    ("dram.latency_s", 70e-9, "gather", 106.5),  # 3 x 76 / 8 = 28.5; 2 + 28.5 + 76
    ("dram.latency_s", 70e-9, "scalar", 152),
    ("dram.channel_bytes_per_s", 2e9, "load parts of rows from DRAM", 106),  # 192 / 4 = 48, not 12
    ("dram.channels", 1, "load parts of rows from DRAM", 82),  # 192 / 8 = 24
    ("dram.burst_bytes", 16, "load parts of rows from DRAM", 61),  # 3 x 16 / 16 = 3
    ("pe.local.bytes_per_cycle", 2, "add a row", 84),  # 160 / 2 = 80 from cycle 0; then 4
    ("pe.core.row_issue_cycles", 30, "gather", 148),  # 3 x 30 = 90, not 21
    ("pe.core.scalar_cycles_per_element", 2, "scalar", 92),
    ("pe.core.sort_keys_per_cycle", 1, "group", 72),  # 4 keys, not 32
    ("pe.simd.startup_cycles", 7, "add a row", 13),
    ("pe.simd.startup_cycles", 7, "fold rows", 17),
    ("pe.simd.startup_cycles", 7, "matmul on the SIMD engine", 57),
    ("pe.simd.startup_cycles", 7, "pool with weights", 272),
    ("pe.simd.bytes_per_cycle", 8, "exp of accumulators", 70),  # 64, not 32
    ("pe.simd.fp32_macs_per_cycle", 8, "matmul on the SIMD engine", 30),  # 24, not 48
    ("pe.simd.row_startup_cycles", 10, "pool with weights", 309),  # a row is added in 14, not 6: 5 x 8 more
    ("kernels.bags_in_flight", 1, "pool with weights", 416),  # 294 for both bags, not 147
    # Chunks of 2, 2 and 1 rows: 2 + 12 + 12 + 6 = 32, not 35: 144, not 147. 5 accumulates are issued: 6 x 2.
    ("pe.core.rows_per_accumulate", 2, "pool with weights", 272),  # 12 + 56 + 144 + 60
    ("pe.reduce.bytes_per_cycle", 16, "reduce", 19),
    ("pe.matrix.fill_cycles", 10, "matmul fp16", 48),
    ("pe.matrix.rows", 4, "matmul fp16", 72),  # 2 lanes: 8 folds of 8 rows; the load takes 2
    ("pe.matrix.cols", 4, "matmul fp16", 74),  # 2 folds across
    ("pe.matrix.arrays", 2, "matmul int8", 50),  # both folds across at once: 3 x 12
    ("pe.matrix.stationary_buffers", 1, "matmul fp16", 54),  # 4 x (4 + 8); 2 + 48 + 4
    ("clock_hz", 2e9, "load whole rows", 21),  # SRAM runs on it
    ("clock_hz", 2e9, "load parts of rows from DRAM", 132),  # 192 / 8 = 24, not 12; answers after 100, not 50
    ("power.nominal_hz", 2e9, "load whole rows", 31),  # SRAM answers after 20 of the slower cycles
)


@pytest.mark.parametrize(("key", "value", "name", "end"), RATES, ids=[f"{k}: {n}" for k, _, n, _ in RATES])
def test_each_number_of_the_chip_tells_where_it_should(key: str, value: float, name: str, end: float) -> None:
    x = WORKED[name]
    time = timeline(x.block, load_chip("tiny", x.settings | {key: value}))
    assert time.end[0] == pytest.approx(end, abs=1e-6)


def test_a_tile_from_load_to_store() -> None:
    assert times(LOAD_A, LOAD_B, MATMUL, NARROW, STORE) == [
        (2, 25),  # issued at 2; 128 B pass the port in 8; then 10 of SRAM, 1 hop and 4 of set-up
        (10, 33),  # the queue is free again at 10: the way there overlaps
        (33, 57),  # 2 folds of 4 lanes x 8 rows; then one load of the array and 4 of pipeline
        (
            45,
            65,
        ),  # from the first of 4 banks on; the last is there at 57 and takes 4 cycles; then 4
        (65, 78),  # 8 through the port; a hop and 4 of set-up
    ]


def test_a_slot_is_written_again_when_its_last_read_ends() -> None:
    assert times(LOAD_A, LOAD_B, MATMUL, LOAD_A)[3][0] == 49  # the product reads from 33 to 49


def test_the_next_tile_follows_the_first_bank() -> None:
    assert times(LOAD_A, LOAD_B, MATMUL, NARROW, MATMUL)[4][0] == 49  # one of 4 banks is read from 45 to 49


def test_products_of_one_tile_follow_at_the_rate_of_the_array() -> None:
    more = {**MATMUL, "flags": 0}
    starts = [start for start, _ in times(LOAD_A, LOAD_B, MATMUL, more, more)]
    assert starts[2:] == [33, 49, 65]


def test_commands_of_one_core_are_issued_one_after_another() -> None:
    other = {**LOAD_A, "pe": 2}
    assert [start for start, _ in times(LOAD_A, other)] == [
        2,
        2,
    ]  # PE 2 stands in another row: its own core and link


def test_a_row_shares_its_link() -> None:
    beside = {**LOAD_A, "pe": 1}
    wide = {"rows": 8, "cols": 8}
    # both ask at 2; the link serves 4 cycles each: it is the port, not the link, that the second waits for
    assert times(LOAD_A, {**beside, **wide}) == [(2, 25), (2, 26)]  # one more hop


def test_a_multicast_takes_the_queue_of_every_receiver() -> None:
    shared = {**LOAD_A, "cast": Cast.ALL}
    found = times(shared, {**LOAD_B, "pe": 3})
    assert found[0] == (2, 28)  # 4 links to the furthest PE
    assert found[1][0] == 10
    busy = timeline(block(shared, {**LOAD_B, "pe": 3}), CHIP).busy
    assert busy["dma"] == 16  # PE 3 receives both
    assert busy["local"] == 4


def test_dram_serves_transfers_in_turn() -> None:
    rate = 16
    far = {**LOAD_A, "operand": FAR}
    first, second = times(far, {**far, "pe": 2, "dst": B_SLOT})
    assert first == (2, pytest.approx(2 + 128 / rate + 50 + 1 + 4, abs=1e-3))
    assert second == (2, pytest.approx(2 + 256 / rate + 50 + 1 + 4, abs=1e-3))


def test_a_staged_tile_is_loaded_when_it_is_there() -> None:
    rate = 16
    stage = {"op": Opcode.STAGE, "operand": FAR, "operand2": SCRATCH, "stage": 0, **TILE}
    load = {**LOAD_A, "operand": SCRATCH, "stage": 0}
    first, second, third = times(stage, load, stage)
    there = 128 / rate + 50 + 1 + 4
    assert first == (0, pytest.approx(there, abs=1e-3))
    assert second[0] == pytest.approx(there, abs=1e-3)
    assert third[0] == pytest.approx(there + 8, abs=1e-3)  # when the load has read it


def test_a_prefetch_takes_what_others_leave_of_dram() -> None:
    far, ahead = {**LOAD_A, "operand": FAR}, {"op": Opcode.STAGE, "operand": FAR, "operand2": OUT, **TILE}
    alone, reach = times(far)[0], 50 + 1 + 4
    load, first, second = times(far, ahead, ahead)
    assert load == alone
    assert first == (0, pytest.approx(8 + 8 + reach, abs=1e-3))  # 128 B of either at 16 B a cycle
    assert second == (pytest.approx(16, abs=1e-3), pytest.approx(24 + reach, abs=1e-3))


def test_partial_sums_travel_when_both_are_ready() -> None:
    other = [{**c, "pe": 1} for c in (LOAD_A, LOAD_B, MATMUL)]
    reduce = {"op": Opcode.REDUCE, "pe": 1, "src_pe": 0, "dst": ACC, **TILE}
    found = times(LOAD_A, LOAD_B, MATMUL, *other, reduce)
    start = max(found[2][0], found[5][0]) + 4 + 8  # the first of 4 banks of both, out of the pipeline
    last = max(found[2][1], found[5][1])
    assert found[6] == (
        start,
        last + 8 / 4 + 1,
    )  # 256 B at 32 B a cycle; a bank is the last


def test_a_core_takes_its_elements_one_by_one() -> None:
    assert times({"op": Opcode.SCALAR, "rows": 100})[0][1] >= 2 + 400 + 50


def test_no_commands_take_no_time() -> None:
    assert timeline(block(), CHIP).cycles == 0


def test_a_block_for_a_larger_chip_is_refused() -> None:
    with pytest.raises(UserError, match="uses PE 4, tiny has 4; compile for this chip"):
        timeline(block({**LOAD_A, "pe": 4}), CHIP)
    small = load_chip("tiny", {"pe.local.bytes": 300})
    with pytest.raises(UserError, match=r"needs 384 bytes of local memory, tiny has 300 \(short by 84\)"):
        timeline(block(LOAD_A), small)
