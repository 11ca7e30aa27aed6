"""Machines: a chip, a GPU and a table of measured times answer the same question, and nobody asks which."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from mtia_emu.compiler.lower.assemble import About
from mtia_emu.compiler.pipeline import compile_graph

import mtia_emu
from mtia_emu import api
from mtia_emu.engine.function import execute
from mtia_emu.engine.run import report
from mtia_emu.errors import UserError
from mtia_emu.machine.chip import load_chip
from mtia_emu.options import Mode, Options
from mtia_emu.results.machine import Computation, Machine
from mtia_emu.results.report import Joules, Report, Stretch, Traffic
from mtia_emu.results.spans import Track
from mtia_emu.study.accelerator import Accelerator, GraphModel, ProgramRun
from mtia_emu.study.lookups import example_lookups, known_lookups

CHIP = load_chip("tiny")
H100 = mtia_emu.load_gpu("h100-sxm")
MODEL, DIMS = "zoo:dlrm-small", {"batch": 4}


@dataclass(frozen=True)
class Table:
    """Seconds that were measured, by model."""

    seconds: dict[str, int]
    name: str = "table"

    def report(self, work: Computation, /) -> Report:
        track = Track(self.name, 1.0)
        stretch = Stretch((), track.exact_seconds(self.seconds[work.model]))
        return Report(
            work.model,
            self.name,
            work.dtype,
            dict(work.dims),
            (track,),
            (stretch,),
            Joules(),
            Traffic(),
            0,
            0.0,
        )


def model(**options: str) -> GraphModel:
    with api.open_model(MODEL, DIMS) as source:
        about = About(source.name, dims=source.dims)
        return GraphModel(
            source.graph(), Options.of(**options), about, lookups=lambda p: example_lookups(source, p)
        )


def test_every_machine_answers_a_graph_and_a_program() -> None:
    program = mtia_emu.compile_model(MODEL, CHIP, dims=DIMS)
    machines: list[Machine] = [Accelerator(CHIP), H100, H100.in_mode(Mode(fused=False)), Table({MODEL: 3})]
    for machine in machines:
        for work in (model(), program):
            done = machine.report(work)
            assert (done.model, done.machine, done.dims["batch"]) == (MODEL, machine.name, 4)
            assert done.seconds > 0 and [x.name for x in done.tracks] == [machine.name]


def test_a_chip_compiles_a_graph_as_a_run_does() -> None:
    cold = load_chip("mtia-2i"), {"state": "cold"}
    for chip, options in ((CHIP, {}), (CHIP, {"dtype": "int8"}), (load_chip("mtia-2i"), {}), cold):
        done = mtia_emu.run(MODEL, chip, dims=DIMS, gpu=None, **options)
        machine = Accelerator(chip)
        assert machine.report(model(**options)) == done.report
        assert machine.report(ProgramRun(done.program, known_lookups(done.program))) == done.report
    assert machine.report(done.program) != done.report  # there the rows looked up tell of the cache


@pytest.mark.parametrize("kind", ["fp32", "fp16", "int8", "quantise{weights=int4,group=16,activations=none}"])
def test_a_gpu_takes_the_work_that_a_program_holds(kind: str) -> None:
    work = model(dtype=kind)
    program = Accelerator(CHIP).program(work)
    assert (work.works, work.dtype) == (program.works, program.dtype)
    assert H100.report(work) == H100.report(program)
    fused = replace(work, fused=compile_graph(work.graph, CHIP, options=work.options).fused)
    assert fused.works == program.works


def test_a_gpu_is_a_machine_in_its_mode() -> None:
    program = mtia_emu.compile_model(MODEL, CHIP, dims=DIMS)
    known = ProgramRun(program, known_lookups(program))
    fast, slow = H100.report(known), H100.in_mode(Mode(launch="host")).report(known)
    assert slow.seconds > fast.seconds and slow == mtia_emu.run(program, gpu_mode=Mode(launch="host")).gpu
    assert fast == mtia_emu.run(program, gpu=H100, gpu_mode=Mode(launch="host")).gpu  # it has its own mode


def test_what_an_execution_knows_is_part_of_the_report() -> None:
    program = mtia_emu.compile_model(MODEL, CHIP, dims=DIMS, seed=0)
    from mtia_emu import zoo

    inputs = zoo.example_inputs("dlrm-small", DIMS)
    ran = execute(program, CHIP, inputs, api.core_library())
    done = Accelerator(CHIP).report(ProgramRun(program, ran.lookups, ran.zero_macs))
    assert done == mtia_emu.run(program, inputs=inputs, gpu=None).report
    assert done.joules_by.compute < report(program, CHIP, ran.lookups).joules_by.compute  # zeros spare some
    assert np.isfinite(done.joules)


def test_any_machine_may_stand_beside_a_chip() -> None:
    done = mtia_emu.run(MODEL, CHIP, dims=DIMS, gpu=Table({MODEL: 3}))
    assert done.gpu is not None and (done.gpu.machine, done.gpu.seconds) == ("table", 3.0)


def test_a_chip_refuses_what_it_cannot_compile() -> None:
    @dataclass(frozen=True)
    class Other:
        model: str = "m"
        dtype: str = "fp16"
        dims: tuple[()] = ()
        works: tuple[()] = ()

    with pytest.raises(UserError, match="tiny cannot run 'm': neither program nor graph"):
        Accelerator(CHIP).report(Other())  # type: ignore[arg-type]
