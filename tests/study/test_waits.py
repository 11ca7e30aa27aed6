"""Which launches wait for which exchanges: told by memory, held to the program's own order."""

from __future__ import annotations

from mtia_emu.study.accelerator import Accelerator
from mtia_emu.study.partition import partition
from mtia_emu.study.waits import exchanges, waits

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
