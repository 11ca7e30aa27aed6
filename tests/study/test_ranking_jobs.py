"""Jobs of a ranking service, timed by runs of its model."""

from __future__ import annotations

import pytest

import mtia_emu
from mtia_emu import load_chip
from mtia_emu.errors import UserError
from mtia_emu.gpu import load_gpu
from mtia_emu.results.machine import Machine
from mtia_emu.study.accelerator import Accelerator
from mtia_emu.study.ranking_jobs import ranking_jobs

MODEL, SIZES = "zoo:dlrm-small", (32, 128)


@pytest.mark.parametrize("machine", [Accelerator(load_chip("mtia-2i")), load_gpu("h100-sxm")])
def test_jobs_are_a_run_in_two_parts(machine: Machine) -> None:
    jobs = ranking_jobs(MODEL, machine, SIZES)
    for size in SIZES:
        program = mtia_emu.compile_model(MODEL, dims={"batch": size})
        report = (
            mtia_emu.run(program, gpu=None).report if machine.name == "mtia-2i" else machine.report(program)
        )
        bags = sum(x.seconds for x in report.layers if x.op == "embedding_bags")
        assert jobs.remote_s(size) == pytest.approx(bags) and bags > 0
        assert jobs.remote_s(size) + jobs.merge_s(size) == pytest.approx(report.seconds)
        assert jobs.joules(size) == pytest.approx(report.joules)


def test_tables_decide_how_many_chips_it_needs() -> None:
    jobs = ranking_jobs(MODEL, Accelerator(load_chip("tiny")), (8,))
    assert jobs.least_chips(jobs.weight_bytes / jobs.memory_bytes / 2.5) == 3
    assert jobs.weight_bytes > 4 * 64 * 10_000  # its largest table alone


def test_what_looks_no_rows_up_is_refused() -> None:
    with pytest.raises(UserError, match=r"zoo:llama-tiny: no layer looks rows up .*zoo:dlrm-mc2"):
        ranking_jobs("zoo:llama-tiny", Accelerator(load_chip("mtia-2i")), (1,))
