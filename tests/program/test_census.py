"""What is counted of a block's commands, by counting them one by one."""

from __future__ import annotations

import pytest

from mtia_emu import api
from mtia_emu.machine.chip import load_chip
from mtia_emu.program.census import census, looks_up
from mtia_emu.program.commands import COMMANDS
from mtia_emu.program.isa import Block

MODELS = {"zoo:dlrm-small": {"batch": 24}, "zoo:llama-tiny": {"batch": 1, "seq": 24}}
BLOCKS = [b for name, dims in MODELS.items() for b in api.compile_model(name, "tiny", dims=dims).blocks]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.kernel)
def test_a_census_is_what_commands_say_one_by_one(block: Block) -> None:
    found, moved, rows = census(block), [0.0] * len(block.operands), dict[int, float]()
    kinds = {int(kind.opcode): kind for kind in COMMANDS.values()}
    for c in block.commands:
        kind, operand = kinds[int(c["op"])], int(c["operand"])
        elements = float(c["rows"]) * float(c["cols"])
        if kind.loads_tile or kind.fills_stage or kind.stores:
            moved[operand] += elements * block.operands[operand].dtype.bytes
        if kind.looks_up:
            whole = float(c["k"]) if kind.pools else elements / block.operands[operand].cols
            rows[operand] = rows.get(operand, 0.0) + whole
    assert found.commands == block.size == len(block.commands)
    assert found.pes == max(block.commands["pe"].tolist()) + 1 <= load_chip("tiny").pes
    assert found.moved_bytes == pytest.approx(moved)
    assert dict(found.looked_up) == pytest.approx(rows)
    assert looks_up(block) is any(kinds[int(c["op"])].pools for c in block.commands)


def test_models_look_up_and_do_not() -> None:
    assert {looks_up(block) for block in BLOCKS} == {True, False}
    assert any(census(block).looked_up and not looks_up(block) for block in BLOCKS)  # rows of a vocabulary
