"""What tiles of a tape are estimated to take, beside the timing of their blocks."""

from __future__ import annotations

import pytest
from harness import packed
from mtia_emu.kernels.rows.rowwise import emit_rowwise, tape_cycles
from mtia_emu.kernels.rows.tape import Tape, parse

from mtia_emu.engine.timing import timeline
from mtia_emu.machine.chip import load_chip
from mtia_emu.types import FP16

TAPE = parse("1 -> t2 | t0 = fold_max(x0); t1 = sub(x0, t0); t2 = exp(t1) : fp16")
COPY = Tape(1, (), (0,))


@pytest.mark.parametrize("name", ["tiny", "mtia-1", "mtia-2i"])
@pytest.mark.parametrize("spaces", [("sram", "sram"), ("dram", "sram"), ("dram", "dram")])
@pytest.mark.parametrize(("rows", "cols"), [(1, 60), (30, 100), (500, 64)])
@pytest.mark.parametrize("tape", [TAPE, COPY], ids=["tape", "copy"])
def test_the_estimate_is_near_the_timing(
    tape: Tape, rows: int, cols: int, spaces: tuple[str, str], name: str
) -> None:
    chip = load_chip(name)
    x, out = packed(FP16, (rows, cols), spaces[0]), packed(FP16, (rows, cols), spaces[1], written=True)
    block = emit_rowwise(chip, "row", tape, [x], [out])
    assert tape_cycles(chip, tape, [x], [out]) == pytest.approx(timeline(block, chip).cycles, rel=0.1)


def test_short_rows_in_dram_go_to_few_pes() -> None:
    chip = load_chip("mtia-2i")
    x, out = (packed(FP16, (70, 1709), "dram", written=w) for w in (False, True))
    block = emit_rowwise(chip, "row", TAPE, [x], [out])
    assert len(set(block.commands["pe"])) < 35  # of 64: runs of three rows


def test_work_goes_down_the_rows_first() -> None:
    chip = load_chip("mtia-2i", {"grid.cols": 16})
    x, out = (packed(FP16, (8, 512), "sram", written=w) for w in (False, True))
    block = emit_rowwise(chip, "row", TAPE, [x], [out])
    assert set(block.commands["pe"] % 16) == {0}
