"""Which launches wait for which exchanges: told by memory, held to the program's own order."""

from __future__ import annotations

from mtia_emu.machine.memories import Memory
from mtia_emu.program.isa import Operand
from mtia_emu.study.accelerator import Accelerator
from mtia_emu.study.partition import partition
from mtia_emu.study.waits import _range, exchanges, waits
from mtia_emu.types import FP16

from .systems import machine, model


def program(name: str, parallel: str):
    over, given = machine(parallel), model(name)
    parts = partition(given.graph, over.mesh)
    (run,) = over.runs(given, parts)
    return run.program


def test_a_decoder_waits_for_each_of_its_sums() -> None:
    made = program("llama-tiny", "tp=2")
    among = exchanges(made)
    assert [made.launches[i].op for i in among] == ["all_reduce"] * 5 + ["all_gather"]
    after = waits(made, among)
    for number in among:
        (before,) = after[number]
        assert before == max(i for i in range(number) if i not in among), "the product before it"
    for number in among[:-1]:
        assert (number,) in after[number + 1 : number + 4], "what reads the sum is launched soon"


def test_looked_up_rows_travel_while_the_dense_part_is_computed() -> None:
    made = program("dlrm-small", "dp=4,tables=row")
    among = exchanges(made)
    after = waits(made, among)
    waiting = {number for number, before in enumerate(after) if number not in among and before}
    free = [i for i in range(min(among), len(after)) if i not in among and i not in waiting]
    assert any(made.launches[i].name.startswith("dense_arch") for i in free)


def test_a_program_without_exchanges_waits_for_none() -> None:
    made = Accelerator(machine("tp=1").chip).program(model("llama-tiny"))
    assert exchanges(made) == () and not any(waits(made, ()))


def test_columns_beside_one_another_do_not_meet() -> None:
    wide = [Operand(FP16, (4, n), (8, 1), Memory.SRAM) for n in (2, 3)]
    two, three = (lambda at, x=x: _range(x, at) for x in wide)
    for at in range(0, 16, 2):  # a row has 8 elements: the second has 3, from element at / 2
        apart = at >= 4 and at + 6 <= 16
        assert two(0).meets(three(at)) == three(at).meets(two(0)) == (not apart), at
    assert not two(0).meets(two(4 * 16)), "behind its last row"
    plain = _range(Operand(FP16, (32,), (1,), Memory.SRAM), 0)
    assert plain.meets(two(4)) and two(4).meets(plain)


def test_exchanges_with_holders_of_tables_wait_for_the_look_ups_not_for_one_another() -> None:
    made = program("dlrm-small", "dp=4,tables=table")
    among = exchanges(made)
    after, ops = waits(made, among), [made.launches[i].op for i in range(len(made.launches))]
    bags = [i for i, op in enumerate(ops) if op.startswith("embedding_bag")]
    sent = [i for i in among if ops[i] == "spread"]
    assert {x for i in sent for x in after[i]} >= set(bags)
    assert not {x for i in sent for x in after[i]} & set(sent)
