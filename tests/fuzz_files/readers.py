"""What the tool does with a file of each kind: read it, and all that follows from what it says."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from mtia_emu.compiler import text
from mtia_emu.compiler.formats import choose_format
from mtia_emu.compiler.graph_file import read_graph
from mtia_emu.compiler.inputs.samples import random_inputs
from mtia_emu.compiler.passes.set_precision import own_dtype
from mtia_emu.compiler.pipeline import compile_lowered, lower, passes
from rich.console import Console

from mtia_emu import api
from mtia_emu.engine.run import report
from mtia_emu.files.npz import read_npz
from mtia_emu.files.writing import json_text
from mtia_emu.fleet.answer import fleet
from mtia_emu.fleet.answer_json import as_json as fleet_json
from mtia_emu.fleet.page import fleet_page
from mtia_emu.fleet.plan import as_json as plan_json
from mtia_emu.fleet.plan import plan
from mtia_emu.machine.chip import load_chip
from mtia_emu.machine.drams import read_dram
from mtia_emu.program import isa
from mtia_emu.program.inputs import input_arrays, typed_inputs
from mtia_emu.program.isa import Program
from mtia_emu.program.text import dump
from mtia_emu.results.difference import as_json as difference_json
from mtia_emu.results.difference import compare
from mtia_emu.results.report_file import read_report
from mtia_emu.results.report_json import as_json
from mtia_emu.serving.answers_json import as_json as served_json
from mtia_emu.serving.arrivals import synthetic
from mtia_emu.serving.length_files import parse_lengths, read_lengths
from mtia_emu.serving.rules import EngineRules
from mtia_emu.serving.served import serve
from mtia_emu.serving.simulate import Service
from mtia_emu.serving.step_table_file import read_table
from mtia_emu.serving.traces import read_trace
from mtia_emu.silicon import area, cost
from mtia_emu.streams import histogram
from mtia_emu.study.listing import chip_parameters, gpu_parameters
from mtia_emu.sweeps.evaluate import Evaluator, make_job
from mtia_emu.sweeps.export import write_csv
from mtia_emu.sweeps.page import write_page
from mtia_emu.sweeps.space import Space, check_size
from mtia_emu.sweeps.spec import GUIDED, load_spec, make_spec
from mtia_emu.sweeps.store import read
from mtia_emu.sweeps.study import Study
from mtia_emu.system.listing import as_json as system_json
from mtia_emu.system.load import load_system
from mtia_emu.types import FP32, TensorType
from mtia_emu.view.terminal import print_report

CHIP = "tiny"
SMALL_BYTES = 1 << 24  # of a program's inputs
MOST_NODES = 2000  # of a checkpoint: one with more layers is not at fault for taking its time
SHOWN = 0.1  # share of the files whose report is printed too
EXECUTED = 0.3  # share of the models that are executed


def _onnx(path: Path, rng: random.Random) -> None:
    with api.open_model(str(path), {}) as source:
        compiled = api.compile_stages(source, load_chip(CHIP))
    executed = rng.random() < EXECUTED and _is_small(compiled.program)
    _run(compiled.program, rng, random_inputs(compiled.onnx, 1) if executed else None)
    if rng.random() < SHOWN:
        for printed in (text.dump(compiled.onnx), text.dump(compiled.graph), str(compiled.schedule)):
            assert isinstance(printed, str)


def _is_small(program: Program) -> bool:
    """Return whether inputs are made: before that the tool refuses what takes too much memory."""
    return sum(b.model_type.bytes for b in program.inputs) < SMALL_BYTES


def _run(program: Program, rng: random.Random, inputs: dict[str, np.ndarray] | None) -> None:
    """Time a program, execute it on inputs, and now and then show it."""
    if inputs is not None and any(b.name not in program.data for b in program.consts):
        inputs = None
    chip = api.chip_of(program, None, None)
    outcome = api.run_program(program, chip, inputs=inputs, gpu="h100-sxm" if rng.random() < SHOWN else None)
    if rng.random() < SHOWN:
        dump(program)
        print_report(outcome.report, outcome.gpu, None, Console(file=io.StringIO(), width=80))
        json_text(as_json(outcome.report, outcome.gpu, None))


def _external(path: Path, rng: random.Random) -> None:
    with api.open_model(str(path), {}) as source:
        compiled = api.compile_stages(source, load_chip(CHIP))
    _run(compiled.program, rng, random_inputs(compiled.onnx, 1) if _is_small(compiled.program) else None)


def _program(path: Path, rng: random.Random) -> None:
    program = api.load_program(path)
    inputs = None
    if rng.random() < EXECUTED and _is_small(program):
        inputs = {b.name: np.zeros(b.model_type.shape, b.model_type.dtype.numpy) for b in program.inputs}
    _run(program, rng, inputs)


def _graph(path: Path, rng: random.Random) -> None:
    graph = read_graph(path)
    text.dump(graph, digests=False)
    chip = load_chip(CHIP)
    form = choose_format(own_dtype(graph), chip, None)
    lowered = lower(graph, passes(own_dtype(graph), form.floats)) if rng.random() < 0.7 else graph
    report(compile_lowered(lowered, chip, dtype=form.name), chip)


@cache
def _bindings() -> tuple[isa.Binding, ...]:
    kind = TensorType(FP32, (2, 4))
    return (isa.Binding("x", kind, kind, "dram", 0),)


def _arrays(path: Path, rng: random.Random) -> None:
    typed_inputs(input_arrays(read_npz(str(path))), _bindings())


@cache
def _work(folder: Path) -> Program:
    from .seeds import _two_layers

    (folder / "work.onnx").write_bytes(_two_layers())
    return api.compile_model(folder / "work.onnx", CHIP)


def _chip(path: Path, rng: random.Random) -> None:
    chip = load_chip(str(path))
    cost(chip), area(chip)
    if rng.random() < SHOWN:
        chip_parameters(str(path))
    if rng.random() < EXECUTED:
        from .seeds import _two_layers

        (path.parent / "work.onnx").write_bytes(_two_layers())
        report(api.compile_model(path.parent / "work.onnx", chip), chip)


def _gpu(path: Path, rng: random.Random) -> None:
    program = _work(path.parent)
    gpu = api.load_gpu(str(path))
    gpu.report(program)
    if rng.random() < SHOWN:
        gpu_parameters(str(path))


def _dram(path: Path, rng: random.Random) -> None:
    read_dram(path)


def _spec(path: Path, rng: random.Random) -> None:
    spec = make_spec(load_spec(path), "spec")
    if any(not m.model.startswith("zoo:") for m in spec.model):
        return
    check_size(spec, False)
    if spec.method in GUIDED:
        return
    evaluator = Evaluator(make_job(spec))
    space = Space(spec)
    for index in {0, len(space) - 1, len(space) // 2}:
        if index >= 0:
            evaluator.excluded(space[index])


def _store(path: Path, rng: random.Random) -> None:
    with read(path) as store:
        for row in store.rows(layers=True):
            assert row.status
        study = Study.of(store, layers=True)
        study.best()
        if rng.random() < SHOWN:
            write_csv(store, path.parent / "out.csv")
        if rng.random() < SHOWN:
            write_page(study, path.parent / "out.html")


def _report(path: Path, rng: random.Random) -> None:
    side = read_report(path)
    found = compare(side, side)
    if rng.random() < SHOWN:
        json_text(difference_json(found))


def _scenario(path: Path, rng: random.Random) -> None:
    answer = fleet(path, samples=16)
    json_text(fleet_json(answer))
    if rng.random() < SHOWN:
        fleet_page(answer)
    if rng.random() < SHOWN and answer.scenario.plan is not None:
        plan_json(plan(answer.scenario))


def _histogram(path: Path, rng: random.Random) -> None:
    law = histogram(str(path))
    law.ranks(np.linspace(0, 1, 5), 1000)


def _checkpoint(path: Path, rng: random.Random) -> None:
    _model(path.parent, rng)


def _gguf(path: Path, rng: random.Random) -> None:
    _model(path, rng)


def _model(path: Path, rng: random.Random) -> None:
    with api.open_model(f"hf:{path}", {"seq": 4}) as source:
        if len(source.graph(None).nodes) > MOST_NODES:
            return
        compiled = api.compile_stages(source, load_chip(CHIP))
        executed = rng.random() < EXECUTED and compiled.program.data and _is_small(compiled.program)
        _run(compiled.program, rng, random_inputs(compiled.onnx, 1) if executed else None)


def _system(path: Path, rng: random.Random) -> None:
    system_json(load_system(str(path)))


def _steps(path: Path, rng: random.Random) -> None:
    load = synthetic("even", np.arange(4) / 2, parse_lengths("64"), parse_lengths("16"))
    served = serve(Service(read_table(path), EngineRules(token_budget=1024, max_sequences=64)), load)
    json_text(served_json(served))


def _trace(path: Path, rng: random.Random) -> None:
    assert len(read_trace(path))


def _lengths(path: Path, rng: random.Random) -> None:
    synthetic("even", np.arange(4) / 2, read_lengths(path), parse_lengths("16"))


READERS: dict[str, Callable[[Path, random.Random], None]] = {
    "onnx": _onnx,
    "external": _external,
    "program": _program,
    "graph": _graph,
    "arrays": _arrays,
    "chip": _chip,
    "gpu": _gpu,
    "dram": _dram,
    "spec": _spec,
    "store": _store,
    "histogram": _histogram,
    "report": _report,
    "scenario": _scenario,
    "checkpoint": _checkpoint,
    "gguf": _gguf,
    "system": _system,
    "steps": _steps,
    "trace": _trace,
    "lengths": _lengths,
}
