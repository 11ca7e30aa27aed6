"""Time at the edge: blocks of a few commands on the chip `tiny`, each start and end worked out by hand.

tiny: 1 GHz; SRAM answers after 10 cycles and moves 64 B a cycle, DRAM after 50 and 16 B; a link moves 32 B,
the DMA port 16 B a cycle after 4 cycles; a hop takes 1 cycle, an issue 2; local memory moves 64 B a cycle.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

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
