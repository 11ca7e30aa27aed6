"""The product from Python: compile a model, run a program. The command line is a thin shell over this."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from mtia_emu.compiler.formats import format_text, quantised
from mtia_emu.compiler.lower.assemble import About
from mtia_emu.compiler.ops.draws import rows_drawn
from mtia_emu.compiler.passes.quantise import FINE
from mtia_emu.compiler.passes.set_precision import own_dtype
from mtia_emu.compiler.pipeline import Compiled, compile_graph
from mtia_emu.compiler.reference import core_library, evaluate
from mtia_emu.compiler.user_kernels import INSTALLED

from . import settings
from .engine.function import execute
from .engine.lookups import Lookups, through_cache
from .engine.turns import as_routed
from .errors import UserError
from .files.writing import valid
from .gpu import load_gpu
from .machine.chip import Chip, load_chip, put_all, validate
from .machine.units.cache import Cache
from .options import BOARD, DEFAULT_CHIP, DEFAULT_GPU, Mode, Options, Words
from .program.inputs import input_arrays, typed_inputs
from .program.isa import Program
from .program.verify import verify
from .results.check import Check, LayerCheck
from .results.machine import Machine
from .results.report import Comparison, Report, compare
from .sources import Model, Operator, Source, is_program, open_model, operator_source  # noqa: F401
from .study.accelerator import Accelerator, ProgramRun
from .study.lookups import example_lookups, known_lookups
from .study.tuning import tuning

if TYPE_CHECKING:
    from .results.explanation import Explanation
    from .study.system_run import SystemOutcome

Array = np.ndarray[Any, Any]
Progress = Callable[[str, int, int], None]
TOLERANCE = {"fp32": 1e-4, "fp64": 1e-4}  # of an output's largest magnitude
NARROW_TOLERANCE = 1e-2
INT8_TOLERANCE = FINE  # products rounded to 8 bits: each to 1/127 of a row's largest value
SERVING = Mode()
REFERENCES = "the references of its ops"  # what a graph's text is held to


@dataclass(frozen=True)
class Outcome:
    """What running a model came to: `gpu` and `check` are None where not asked for.

    `lookups` are, by launch, those that only an execution knows; `outputs` are empty where there was none.
    `basis` is what the joules are of by which chip and GPU are compared; those of each report are its own.
    """

    program: Program
    chip: Chip
    report: Report
    gpu: Report | None = None
    check: Check | None = None
    outputs: dict[str, Array] = field(default_factory=dict)
    lookups: Mapping[int, Lookups] = field(default_factory=dict)
    basis: str = BOARD

    @property
    def comparison(self) -> Comparison | None:
        """Return the ratios of GPU to chip, joules of both on the basis; None without a GPU."""
        return None if self.gpu is None else compare(self.report, self.gpu, self.basis)


def compile_stages(
    source: Source,
    chip: Chip,
    *,
    inputs: Mapping[str, Array] | None = None,
    progress: Progress | None = None,
    **options: Unpack[Words],
) -> Compiled:
    """Return a model at every stage of lowering; shapes of `inputs` bind symbolic dimensions."""
    shapes = {name: x.shape for name, x in inputs.items()} if inputs else None
    ours, chosen = source.examples is not None, Options.of(**options)
    if chosen.state is None:
        chosen = replace(chosen, state=source.state)
    if progress is not None:
        progress("load", 0, 1)
    try:
        graph = source.graph(shapes)
        about = About(source.name, str(source.path), source.dims)
        mappings = tuning(chosen)
        compiled = compile_graph(graph, chip, options=chosen, about=about, tuning=mappings, progress=progress)
    except UserError as error:
        if not ours:
            raise
        raise UserError(str(error).replace(str(source.path), source.name)) from None
    if INSTALLED:  # their commands are somebody's
        verify(compiled.program, chip)
    # where the file lies is the user's own business
    origin = source.name if ours else valid(source.path.name)
    return replace(compiled, program=replace(compiled.program, source=origin))


def compile_model(
    model: Model,
    chip: str | Chip = DEFAULT_CHIP,
    *,
    settings: Mapping[str, object] | None = None,
    dims: Mapping[str, int] | None = None,
    inputs: Mapping[str, Array] | None = None,
    **options: Unpack[Words],
) -> Program:
    """Return a model compiled for a chip.

    `model` is an ONNX file, "hf:FOLDER", a `TorchModel` or "zoo:NAME" (with `seed`: with weights);
    `settings` change chip parameters by dotted key; `dims` bind symbolic dimensions, as do the shapes of
    `inputs`; `options` are those of `Options`. Raises `UserError` for what is wrong with any of them.
    """
    loaded = load_chip(chip, settings) if isinstance(chip, str) else chip
    given = None if inputs is None else input_arrays(inputs)
    seed = options.get("seed")
    with open_model(model, dims or {}, execute_seed=seed) as source:
        program = compile_stages(source, loaded, inputs=given, **options).program
        return keep_weights(program) if seed is not None else program


def keep_weights(program: Program) -> Program:
    """Return the program with its weights in memory, for when the model's file goes away."""
    data = {name: x if isinstance(x, np.ndarray) else x.array(name) for name, x in program.data.items()}
    return replace(program, data=data)


def save_program(program: Program, path: str | Path) -> None:
    """Write a compiled program to a file."""
    from .program.file import save

    save(program, path)


def load_program(path: str | Path) -> Program:
    """Return the program in a file; raises `UserError` for a broken one."""
    from .program.file import load

    return load(path)


def run(
    model: Model | Program,
    chip: str | Chip | None = None,
    *,
    settings: Mapping[str, object] | None = None,
    dims: Mapping[str, int] | None = None,
    inputs: Mapping[str, Array] | None = None,
    gpu: str | Machine | None = DEFAULT_GPU,
    progress: Progress | None = None,
    **options: Unpack[Words],
) -> Outcome:
    """Compile (unless it is a program already), time and price a model; with `inputs` or `check` execute it
    too.

    `gpu` is the machine to stand beside, None for none; `gpu_mode` is of a GPU given by its name, a machine
    has its own (`Gpu.in_mode`). `options` are the fields of
    `Options` (`dtype`, `tune`, `beside`, `prefetch`, `place`, `seed`, ...), or a whole value as `options`.
    `check` compares outputs with an oracle's (`expected_outputs`), on `inputs` or on seeded random ones.
    """
    chosen = Options.of(**options)
    if chosen.of_many:
        raise UserError("api.run is of one chip (right: api.run_over, for a model over a system of many)")
    other = reference(gpu, chosen.gpu_mode)
    inputs = None if inputs is None else input_arrays(inputs)
    if isinstance(model, Program) or is_program(model):
        refuse_compiled(dims, chosen)
        program = model if isinstance(model, Program) else load_program(model)
        loaded = chip_of(program, chip, settings)
        known = known_lookups(program) if inputs is None else {}
        done = run_program(program, loaded, inputs=inputs, lookups=known, gpu=other, progress=progress)
        return replace(done, basis=chosen.basis)
    loaded = chip if isinstance(chip, Chip) else load_chip(chip or DEFAULT_CHIP, settings)
    seed = chosen.seed if chosen.check or inputs is not None else None
    with open_model(model, dims or {}, execute_seed=seed) as source:
        return run_source(source, loaded, inputs=inputs, gpu=other, progress=progress, options=chosen)


def run_over(
    model: Model,
    *,
    settings: Mapping[str, object] | None = None,
    dims: Mapping[str, int] | None = None,
    inputs: Mapping[str, Array] | None = None,
    gpu: str | None = DEFAULT_GPU,
    progress: Progress | None = None,
    **options: Unpack[Words],
) -> SystemOutcome:
    """Split a model over the chips of the option `system`, as the option `parallel` says; time and price it.

    With `inputs` or `check` all ranks are executed. `settings` change the chips of the system; `gpu` names
    a GPU, of which the first system that is large enough stands beside, or such a system.
    """
    from .study.system_run import split_run

    chosen, given = Options.of(**options), None if inputs is None else input_arrays(inputs)
    seed = chosen.seed if chosen.check or given is not None else None
    with open_model(model, dims or {}, execute_seed=seed) as source:
        return split_run(source, settings or {}, given, gpu, chosen, progress)


def run_source(
    source: Source,
    chip: Chip,
    *,
    inputs: Mapping[str, Array] | None = None,
    sample: bool = False,
    gpu: str | Machine | None = DEFAULT_GPU,
    progress: Progress | None = None,
    **options: Unpack[Words],
) -> Outcome:
    """Run a model that is on disk: see `run`. With `sample` it is executed on seeded random inputs."""
    chosen = Options.of(**options)
    if chosen.by_layer and not chosen.check:
        raise UserError("--by-layer is part of the check: give --check too")
    other = reference(gpu, chosen.gpu_mode)
    compiled = compile_stages(source, chip, inputs=inputs, progress=progress, options=chosen)
    program = compiled.program
    if (chosen.check or sample) and inputs is None:
        _refuse_unready(program)  # before inputs are made, which may be as large as the model
        inputs = source.inputs(compiled.onnx, chosen.seed)
    lookups = example_lookups(source, program, chosen.seed) if inputs is None else {}
    outcome = run_program(program, chip, inputs=inputs, lookups=lookups, gpu=other, progress=progress)
    outcome = replace(outcome, basis=chosen.basis)
    if not chosen.check or inputs is None:
        return outcome
    if progress is not None:
        progress("oracle", 0, 1)
    layers = _by_layer(compiled, chip, inputs, progress) if chosen.by_layer else ()
    return replace(outcome, check=_compared(source, compiled, chosen, inputs, outcome.outputs, layers))


def _by_layer(
    compiled: Compiled, chip: Chip, inputs: Mapping[str, Array], progress: Progress | None
) -> tuple[LayerCheck, ...]:
    """Return how far each layer is from its reference."""
    from .study.by_layer import by_layer

    total = len(compiled.program.launches)
    tick = (lambda done: progress("by layer", done, total)) if progress else None
    return by_layer(compiled, chip, typed_inputs(inputs, compiled.program.inputs), tick)


def _compared(
    source: Source,
    compiled: Compiled,
    options: Options,
    inputs: Mapping[str, Array],
    outputs: Mapping[str, Array],
    layers: tuple[LayerCheck, ...],
) -> Check:
    """Return how far the outputs of an execution are from an oracle's, beside how far each layer is.

    Those of a graph's text and of random draws, alike nowhere else, are held to the references of its ops.
    """
    from .oracle import Expected, compare_outputs, expected_outputs
    from .plugins.kernels import own_operators

    program, spelling = compiled.program, format_text(options)
    graph, given = compiled.onnx, typed_inputs(inputs, program.inputs)
    expected = (
        Expected(evaluate(graph, given), REFERENCES)
        if source.is_graph or rows_drawn(graph.nodes)
        else expected_outputs(source.path, given, own_operators())
    )
    own = own_dtype(graph).name  # what the oracle computes in, and rounds to
    few = quantised(spelling) if spelling != own else None
    tolerance = max(*map(_tolerance, (program.dtype, own)), few.tolerance if few is not None else 0.0)
    check = compare_outputs(outputs, expected.outputs, tolerance)
    return replace(check, oracle=expected.oracle, layers=layers)


def _tolerance(dtype: str) -> float:
    return TOLERANCE.get(dtype, NARROW_TOLERANCE)


def run_program(
    program: Program,
    chip: Chip,
    *,
    inputs: Mapping[str, Array] | None = None,
    lookups: Mapping[int, Lookups] | None = None,
    cache: Cache | None = None,
    gpu: str | Machine | None = DEFAULT_GPU,
    progress: Progress | None = None,
) -> Outcome:
    """Time and price a program on a chip, and execute it where inputs are given.

    `lookups` say which rows of tables are looked up where nothing is executed. They pass `cache`
    (`engine.lookups.row_cache`), which keeps for the next run what this one leaves; without one they meet the
    steady state of a program that is compiled warm, or an empty cache.
    """
    other = reference(gpu)
    outputs: dict[str, Array] = {}
    work = ProgramRun(program, lookups or {})
    if inputs is not None:
        _refuse_unready(program)
        given = typed_inputs(input_arrays(inputs), program.inputs)
        total = len(program.launches)
        tick = (lambda done: progress("execute", done, total)) if progress else None
        execution = execute(program, chip, given, core_library(), tick)
        program = as_routed(program, execution.turns)
        outputs, work = execution.outputs, ProgramRun(program, execution.lookups, execution.zero_macs)
    if progress is not None:
        progress("time", 0, 1)
    if cache is not None:
        work = replace(work, lookups=through_cache(program, chip, work.lookups, cache))
    report = Accelerator(chip).report(work)
    compared = None if other is None else other.report(work)
    return Outcome(program, chip, report, compared, None, outputs, work.lookups)


def explain(
    model: Model | Program,
    chip: str | Chip | None = None,
    *,
    settings: Mapping[str, object] | None = None,
    dims: Mapping[str, int] | None = None,
    what_if: bool = True,
    progress: Progress | None = None,
    **options: Unpack[Words],
) -> Explanation:
    """Return what bounds each layer of a model on a chip and, with `what_if`, what would help.

    All but `what_if` are those of `run`. A step of a parameter on which a program's tiles and addresses
    depend is judged with a new program, every other with the same one.
    """
    from .study.accelerator import GraphModel
    from .study.explainer import explain_program
    from .study.sensitivity import varied

    chosen = Options.of(**options)
    if isinstance(model, Program) or is_program(model):
        refuse_compiled(dims, chosen)
        program = model if isinstance(model, Program) else load_program(model)
        loaded = chip_of(program, chip, settings)
        return explain_program(program, loaded, what_if=what_if, progress=progress)
    loaded = chip if isinstance(chip, Chip) else load_chip(chip or DEFAULT_CHIP, settings)
    with open_model(model, dims or {}) as source:
        compiled = compile_stages(source, loaded, progress=progress, options=chosen)
        again = GraphModel(
            compiled.onnx,
            chosen,
            fused=compiled.fused,
            lookups=lambda program: example_lookups(source, program),
        )
        vary = varied(chip or DEFAULT_CHIP, settings)
        return explain_program(compiled.program, loaded, again, vary=vary, what_if=what_if, progress=progress)


def reference(gpu: str | Machine | None, mode: Mode = SERVING) -> Machine | None:
    """Return the machine to stand beside the chip: a GPU by its name, put in a mode; any other as it is."""
    return load_gpu(gpu).in_mode(mode) if isinstance(gpu, str) else gpu


def _refuse_unready(program: Program) -> None:
    """Refuse to execute a program whose weights are absent, or that does not fit the memory we may take."""
    absent = [b.name for b in program.consts if b.name not in program.data]
    if absent:
        raise UserError(
            f"{program.model}: {len(absent)} of {len(program.consts)} weights are absent (first: "
            f"%{absent[0]}), so it can be timed but not executed; put the weights' file beside the model, "
            "or leave out --check and --inputs"
        )
    need, most = program.dram_bytes + program.sram_bytes, settings.integer(settings.MEMORY)
    if need > most:
        raise UserError(
            f"executing {program.model} needs {need} bytes of memory, at most {most} are allowed; set "
            f"{settings.MEMORY.name} higher, or leave out --check and --inputs to only time it"
        )


def chip_of(program: Program, chip: str | Chip | None, settings: Mapping[str, object] | None) -> Chip:
    """Return the chip to time a program on: the one it was compiled for unless another is named."""
    if isinstance(chip, Chip):
        return chip
    if chip is not None:
        return load_chip(chip, settings)
    values = copy.deepcopy(dict(program.chip))  # settings leave the program as it is
    put_all(values, settings or {})
    return validate(values, str(program.chip.get("name", "")))


def refuse_compiled(dims: Mapping[str, int] | None, options: Options, *, chip: bool = False) -> None:
    """Refuse what only makes sense for a model that is yet to be compiled; `chip`: another was asked for."""
    others = [*(["--dim"] if dims else []), *(["--chip"] if chip else [])]
    for flag in [*others, *options.changed(but="program")]:
        raise UserError(f"{flag} has no meaning for a compiled program; give it with the ONNX model")
