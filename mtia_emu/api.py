"""The product from Python: compile a model, run a program. The command line is a thin shell over this."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from . import program_file
from .chip import Chip, load_chip, validate
from .compiler.ops import OPS, reference
from .compiler.pipeline import Compiled, compile_file
from .engine.function import execute
from .engine.run import report as make_report
from .errors import UserError
from .gpu import Gpu, load_gpu
from .isa import Program
from .report import Check, Report

Array = np.ndarray[Any, Any]
Progress = Callable[[str, int, int], None]
TOLERANCE = {"fp32": 1e-4, "fp64": 1e-4, "int8": 5e-2}  # of an output's largest magnitude; int8 rounds on purpose
NARROW_TOLERANCE = 1e-2
ZOO = "zoo:"


@dataclass(frozen=True)
class Outcome:
    """What running a model came to: `gpu` and `check` are None where not asked for."""

    program: Program
    chip: Chip
    report: Report
    gpu: Report | None = None
    check: Check | None = None
    outputs: dict[str, Array] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """A model on disk and, for the zoo, inputs that are right for it."""

    path: Path
    name: str
    dims: dict[str, int]
    examples: Callable[[int], dict[str, Array]] | None = None


@contextlib.contextmanager
def open_model(model: str, dims: Mapping[str, int], *, execute_seed: int | None = None) -> Iterator[Source]:
    """Give the ONNX file or saved program that `model` names; a zoo model is written to a folder that then goes away.

    With `execute_seed` a zoo model gets random weights, so that it can be executed.
    """
    if not model.startswith(ZOO):
        path = Path(model)
        if not path.is_file():
            raise UserError(f"model {model!r} is not a file; give an ONNX file, a compiled program, or zoo:NAME "
                            "(`mtia-emu zoo` lists the names)")
        yield Source(path, path.stem if path.stem != "model" else path.absolute().parent.name, dict(dims))
        return
    from . import zoo

    name = model[len(ZOO):]
    with tempfile.TemporaryDirectory(prefix="mtia-emu-") as folder:
        path = zoo.build(name, dims, Path(folder), weights_seed=execute_seed)
        full = zoo.dims(name) | dict(dims)
        yield Source(path, model, full, lambda seed: zoo.example_inputs(name, full, seed))


def compile_stages(
    source: Source, chip: Chip, *, dtype: str | None = None, inputs: Mapping[str, Array] | None = None,
    place: str = "dram", progress: Progress | None = None,
) -> Compiled:
    """Return a model at every stage of lowering; shapes of `inputs` bind symbolic dimensions."""
    shapes = {name: x.shape for name, x in inputs.items()} if inputs else None
    dims = {} if source.examples is not None else source.dims
    return compile_file(source.path, chip, name=source.name, dims=dims, shown_dims=source.dims, input_shapes=shapes,
                        wanted=dtype, inputs_in=place, progress=progress)


def compile_model(
    model: str | Path, chip: str | Chip = "mtia-2i", *, settings: Mapping[str, object] | None = None,
    dims: Mapping[str, int] | None = None, dtype: str | None = None, inputs: Mapping[str, Array] | None = None,
    seed: int | None = None,
) -> Program:
    """Return a model compiled for a chip.

    `model` is an ONNX file or "zoo:NAME" (with `seed`: with random weights); `settings` change chip parameters by
    dotted key; `dims` bind symbolic dimensions, as do the shapes of `inputs`. Raises `UserError` for what is wrong
    with the model, the chip or the request.
    """
    machine = load_chip(chip, settings) if isinstance(chip, str) else chip
    with open_model(str(model), dims or {}, execute_seed=seed) as source:
        program = compile_stages(source, machine, dtype=dtype, inputs=inputs).program
        return keep_weights(program) if seed is not None else program


def keep_weights(program: Program) -> Program:
    """Return the program with its weights in memory, for when the model's file goes away."""
    from dataclasses import replace

    data = {name: x if isinstance(x, np.ndarray) else x.array(name) for name, x in program.data.items()}
    return replace(program, data=data)


def save_program(program: Program, path: str | Path) -> None:
    """Write a compiled program to a file."""
    program_file.save(program, path)


def load_program(path: str | Path) -> Program:
    """Return the program in a file; raises `UserError` for a broken one."""
    return program_file.load(path)


def run(
    model: str | Path | Program, chip: str | Chip | None = None, *, settings: Mapping[str, object] | None = None,
    dims: Mapping[str, int] | None = None, dtype: str | None = None, inputs: Mapping[str, Array] | None = None,
    check: bool = False, gpu: str | Gpu | None = "h100-sxm", seed: int = 0, place: str = "dram",
    progress: Progress | None = None,
) -> Outcome:
    """Compile (unless it is a program already), time and price a model; with `inputs` or `check` execute it too.

    `check` runs the model in onnxruntime as well, on `inputs` or on seeded random ones, and compares outputs. `gpu`
    names the reference to stand beside, None for none. `place` is "sram" to start operands there.
    """
    inputs = None if inputs is None else input_arrays(inputs)
    if isinstance(model, Program):
        return run_program(model, _machine(model, chip, settings), inputs=inputs, gpu=gpu, progress=progress)
    path = Path(str(model))
    if not str(model).startswith(ZOO) and program_file.is_program(path):
        _refuse(dims=dims, dtype=dtype, check=check)
        program = load_program(path)
        return run_program(program, _machine(program, chip, settings), inputs=inputs, gpu=gpu, progress=progress)
    machine = chip if isinstance(chip, Chip) else load_chip(chip or "mtia-2i", settings)
    wanted = check or inputs is not None
    with open_model(str(model), dims or {}, execute_seed=seed if wanted else None) as source:
        return run_source(source, machine, dtype=dtype, inputs=inputs, check=check, gpu=gpu, seed=seed, place=place,
                          progress=progress)


def run_source(
    source: Source, chip: Chip, *, dtype: str | None = None, inputs: Mapping[str, Array] | None = None,
    check: bool = False, gpu: str | Gpu | None = "h100-sxm", seed: int = 0, place: str = "dram",
    progress: Progress | None = None,
) -> Outcome:
    """Run a model that is on disk: see `run`."""
    from .compiler.samples import random_inputs

    compiled = compile_stages(source, chip, dtype=dtype, inputs=inputs, place=place, progress=progress)
    if check and inputs is None:
        inputs = source.examples(seed) if source.examples else random_inputs(compiled.imported, seed)
    outcome = run_program(compiled.program, chip, inputs=inputs, gpu=gpu, progress=progress)
    if not check or inputs is None:
        return outcome
    from .oracle import compare_outputs, onnxruntime_outputs

    expected = onnxruntime_outputs(source.path, inputs)
    tolerance = TOLERANCE.get(compiled.program.dtype, NARROW_TOLERANCE)
    result = compare_outputs(outcome.outputs, expected, tolerance)
    return Outcome(outcome.program, chip, outcome.report, outcome.gpu, result, outcome.outputs)


def run_program(
    program: Program, chip: Chip, *, inputs: Mapping[str, Array] | None = None, gpu: str | Gpu | None = "h100-sxm",
    progress: Progress | None = None,
) -> Outcome:
    """Time and price a program on a chip, and execute it where inputs are given."""
    outputs: dict[str, Array] = {}
    lookups: Mapping[int, Array] = {}
    if inputs is not None:
        total = len(program.launches)
        tick = (lambda done: progress("execute", done, total)) if progress else None
        execution = execute(program, chip, input_arrays(inputs), LIBRARY, tick)
        outputs, lookups = execution.outputs, execution.lookups
    report = make_report(program, chip, lookups)
    beside = None
    if gpu is not None:
        machine = load_gpu(gpu) if isinstance(gpu, str) else gpu
        beside = machine.run(program.works, model=program.model, dtype=program.dtype, dims=program.dims)
    return Outcome(program, chip, report, beside, None, outputs)


def input_arrays(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return arrays by input name, from keys `name` or `in:name`; outputs stored beside them are left out."""
    return {k.removeprefix("in:"): v for k, v in arrays.items() if not k.startswith("out:")}


def _machine(program: Program, chip: str | Chip | None, settings: Mapping[str, object] | None) -> Chip:
    """Return the chip to time a program on: the one it was compiled for unless another is named."""
    if isinstance(chip, Chip):
        return chip
    if chip is not None:
        return load_chip(chip, settings)
    from .chip import put

    values = dict(program.chip)
    for key, value in (settings or {}).items():
        put(values, key, value)
    return validate(values, str(program.chip.get("name", "")))


def _refuse(**given: Any) -> None:
    """Refuse what only makes sense for a model that is yet to be compiled."""
    for name, value in given.items():
        if value:
            raise UserError(f"--{name.replace('dims', 'dim')} has no meaning for a compiled program; give it to the ONNX model")


LIBRARY = {name: (lambda arrays, attrs, name=name: reference(name, arrays, attrs)) for name in OPS}
