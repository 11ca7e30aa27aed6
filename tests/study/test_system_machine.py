"""Many chips as one machine: times join, amounts add up, memory is counted, faults are told."""

from __future__ import annotations

import pytest

from mtia_emu.errors import UserError
from mtia_emu.results.machine import Machine
from mtia_emu.study.accelerator import Accelerator
from mtia_emu.study.system_machine import SystemMachine

from .systems import machine, model


def test_one_chip_is_the_chip() -> None:
    over, given = machine("tp=1"), model("llama-tiny")
    held: Machine = over
    assert isinstance(held, SystemMachine) and held.name == "tiny-board (tp=1)"
    one, alone = over.report(given), Accelerator(over.chip).report(given)
    assert (one.length, one.macs, one.traffic.dram_read_bytes) == (
        alone.length,
        alone.macs,
        alone.traffic.dram_read_bytes,
    )
    assert one.joules == pytest.approx(alone.joules) and one.layers == alone.layers


def test_time_is_work_and_what_is_exposed() -> None:
    report = machine("tp=2").report(model("llama-tiny"))
    assert report.system is not None
    (use,) = report.system.stages
    assert use.seconds == pytest.approx(use.compute_s + use.exposed_s) == pytest.approx(report.seconds)
    assert use.exchange_s == pytest.approx(sum(x.seconds * x.times for x in report.system.exchanges))
    links = [x for x in report.layers if x.track == report.tracks[1]]
    assert sum(x.span_s for x in links) == pytest.approx(use.exchange_s) and len(links) == 6
    assert report.macs == pytest.approx(2 * sum(x.macs for x in report.layers))


def test_two_chips_have_half_the_weights_each() -> None:
    given = model("llama-tiny", seq=1, past=16)
    one, two = (machine(f"tp={n}").report(given).system for n in (1, 2))
    assert one is not None and two is not None
    whole, half = one.stages[0].memory, two.stages[0].memory
    assert 0.5 * whole.weights < half.weights < 0.51 * whole.weights, "norms and the mask are whole"
    assert half.state == whole.state / 2 > 0
    assert half.short == 0 < half.needed < half.capacity


def test_each_micro_batch_has_a_cache() -> None:
    given = model("llama-tiny", batch=4, seq=1, past=16)
    whole, parts = (machine(p).report(given).system for p in ("tp=1", "mb=4"))
    assert whole is not None and parts is not None
    assert parts.stages[0].memory.state == whole.stages[0].memory.state > 0


def test_a_pipeline_takes_its_stages_in_turn() -> None:
    given = model("llama-tiny", batch=4)
    report = machine("pp=2,mb=4").report(given)
    use = report.system
    assert use is not None and len(use.stages) == 2
    first, second = (stage.seconds for stage in use.stages)
    least = first + second + 3 * max(first, second)
    assert least < report.seconds < 1.2 * least, "sends come on top"
    assert [t.name for t in report.tracks] == ["tiny of stage 0", "tiny of stage 1", "links after stage 0"]
    assert use.idle_s == pytest.approx(report.seconds - 4 * (first + second) / 2)
    assert report.macs == machine("tp=1").report(given).macs


def test_looked_up_rows_hide_behind_the_dense_part() -> None:
    report = machine("dp=4,tables=row").report(model("dlrm-small"))
    assert report.system is not None
    (use,) = report.system.stages
    assert use.exposed_s < use.exchange_s


def test_gpus_wait_for_every_exchange() -> None:
    report = machine("tp=4", "hgx-h200").report(model("llama-tiny"))
    assert report.system is not None
    (use,) = report.system.stages
    assert use.exposed_s == use.exchange_s > 0
    assert report.seconds == pytest.approx(use.compute_s + use.exposed_s)
    chips = [x for x in report.layers if x.track == report.tracks[0]]
    links = [x for x in report.layers if x.track == report.tracks[1]]
    assert len(links) == 6
    for x in links:
        start, end = x.track.seconds(x.start_cycle), x.track.seconds(x.end_cycle)
        assert not any(
            y.track.seconds(y.start_cycle) < end - 2e-9 and start + 2e-9 < y.track.seconds(y.end_cycle)
            for y in chips
        )


def test_exchanges_are_no_work_of_a_core() -> None:
    report = machine("tp=8", "mtia-2i-server").report(model("llama-tiny"))
    exchanges = [x for x in report.layers if x.op in ("all_reduce", "all_gather")]
    assert len(exchanges) == 6 and not any("processor core" in note for note in report.notes)


def test_what_does_not_fit_says_by_how_much() -> None:
    given = model("llama-3-8b", seq=1, past=64)
    report = machine("tp=8").report(given)
    assert report.system is not None and report.system.stages[0].memory.short > 0
    assert any(n.startswith("does not fit: a chip of all chips needs 2.") for n in report.notes), report.notes


@pytest.mark.parametrize(
    ("parallel", "system", "words"),
    [
        ("tp=16", "tiny-board", r"takes 16 chips, tiny-board has 8 \(right: at most 8\)"),
        ("pp=40", "mtia-2i-server", "takes 40 chips"),
    ],
)
def test_a_mesh_that_cannot_be_is_refused(parallel: str, system: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        machine(parallel, system).report(model("llama-tiny"))


def test_a_program_is_of_one_chip() -> None:
    over = machine("tp=2")
    program = Accelerator(over.chip).program(model("llama-tiny"))
    with pytest.raises(UserError, match="a system splits a model's graph"):
        over.report(program)


def test_gpus_run_no_programs() -> None:
    with pytest.raises(UserError, match="they run no programs"):
        _ = machine("tp=2", "hgx-h200").chip


def test_rows_that_go_to_their_experts_are_fewer_than_all() -> None:
    given = model("mixture-tiny", batch=8)
    every, own = (machine(p).report(given).system for p in ("ep=4", "ep=4,dispatch"))
    assert every is not None and own is not None
    assert {x.kind for x in own.exchanges} == {"dispatch", "all_gather", "combine"}
    sent = sum(x.seconds * x.times for x in own.exchanges if x.kind != "all_gather")
    assert sent < sum(x.seconds * x.times for x in every.exchanges)
    assert own.stages[0].compute_s < every.stages[0].compute_s, "attention is of a quarter of the batch"


@pytest.mark.parametrize("parallel", ["pp=2,mb=4", "pp=4,mb=4"])
def test_stages_of_equal_time_are_faster_than_those_of_equal_weights(parallel: str) -> None:
    given = model("llama-tiny", batch=4, seq=64)
    found = [machine(f"{parallel}{text}").report(given) for text in ("", ",stages=time")]
    by_bytes, by_time = (max(s.seconds for s in r.system.stages) for r in found if r.system)
    assert by_time < 0.9 * by_bytes and found[1].seconds < found[0].seconds
    assert found[0].macs == found[1].macs


def test_a_cut_that_cannot_be_better_stays() -> None:
    given = model("llama-tiny", batch=2)
    whole = machine("pp=2,mb=2").report(given)
    assert machine("pp=2,mb=2,stages=time").report(given).seconds <= whole.seconds
