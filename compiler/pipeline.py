"""The passes in order, and compilation from a model file to a program."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mtia_emu import settings
from mtia_emu.chip import Chip
from mtia_emu.errors import UserError
from mtia_emu.isa import Program
from mtia_emu.types import DType, dtype

from . import text
from .check import check
from .emit import emit
from .frontend import load
from .graph import Graph
from .passes import Bags, Epilogue, Fold, Heads, Layout, Legalise, Maps, Norms, Pass, Precision, Prune, Rotary, Strips, Tails
from .passes.precision import own_dtype
from .place import place
from .schedule import Schedule, schedule

Progress = Callable[[str, int, int], None]


def passes(own: DType, to: DType, chip: Chip) -> tuple[Pass, ...]:
    """Return the default pipeline for a model of floats `own` that runs in `to` on a chip."""
    return (
        Legalise(),  # first: the passes below match one spelling
        Fold(),
        Norms(),  # before precision: the casts around a norm are part of its spelling
        Rotary(),
        Bags(),
        Epilogue(),  # before heads: scales leave the operands that heads looks at
        Heads(),
        Epilogue(),  # again: heads opens the way for scales behind shared keys
        *([Precision(own.name, to.name)] if own != to else []),
        Fold(),  # casts that precision made needless
        Maps(),  # after all that matches single ops
        Tails(),
        Strips(chip.sram.bytes // 8),  # after maps: a strip's chain is as short as it gets
        Layout(),  # last: fold would undo the views of stored weights
        Prune(),
    )


@dataclass(frozen=True)
class Compiled:
    """A model at each stage of lowering."""

    imported: Graph
    lowered: Graph
    schedule: Schedule
    program: Program


def lower(graph: Graph, pipeline: tuple[Pass, ...]) -> Graph:
    """Return the graph after all passes, checked after each; `MTIA_EMU_DEBUG=3` prints it each time."""
    debug = settings.integer(settings.DEBUG)
    for step in pipeline:
        graph = check(step(graph), after=step.name)
        if debug >= 1:
            print(f"{step.name}: {len(graph.nodes)} nodes", file=sys.stderr)
        if debug >= 3:
            print(text.dump(graph), file=sys.stderr)
    return graph


def choose_dtype(own: DType, chip: Chip, wanted: str | None) -> tuple[DType, tuple[str, ...]]:
    """Return the float type to run in, and a note where it is not the model's own."""
    if not own.is_float:  # a model of integers runs as it is
        return own, ()
    if wanted is not None:
        kind = dtype(wanted)
        if not kind.is_float:
            raise UserError(f"--dtype {wanted}: models run in a floating point type (right: fp16, bf16, fp32)")
    else:
        kind = chip.nearest_matrix_dtype(own)
    notes = []
    if kind != own:
        notes.append(f"the model's {own} runs as {kind}")
    if not chip.pe.matrix.supports(kind.name):
        notes.append(f"the matrix unit of {chip.name} has no rate for {kind}: products run on the SIMD engine")
    return kind, tuple(notes)


def compile_graph(
    graph: Graph, chip: Chip, *, name: str = "", wanted: str | None = None, source: str = "",
    dims: Mapping[str, int] | None = None, inputs_in: str = "dram", progress: Progress | None = None,
) -> Compiled:
    """Return a graph compiled for a chip."""
    report = progress or (lambda stage, done, total: None)
    own = own_dtype(graph)
    kind, notes = choose_dtype(own, chip, wanted)
    report("lower", 0, 1)
    lowered = lower(graph, passes(own, kind, chip))
    report("schedule", 0, 1)
    plan = schedule(lowered, chip)
    placement = place(plan, inputs_in)
    if placement.dram_bytes > chip.dram.bytes:
        notes += (f"the program takes {placement.dram_bytes / 1e9:.1f} GB of DRAM, {chip.name} has "
                  f"{chip.dram.bytes / 1e9:.1f} GB: read it as one of several chips' share",)
    if placement.spilled:
        notes += (f"{len(placement.spilled)} activations found no room in SRAM and are in DRAM",)
    model_types = dict(graph.inputs) | {name: graph.type_of(name) for name in graph.outputs}
    program = emit(plan, placement, name=name or graph.name, source=source, dtype=kind.name, dims=dims or {}, model_types=model_types,
                   notes=notes, progress=lambda done, total: report("emit", done, total))
    return Compiled(graph, lowered, plan, program)


def compile_file(
    path: str | Path, chip: Chip, *, name: str = "", dims: Mapping[str, int] | None = None,
    shown_dims: Mapping[str, int] | None = None, input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    wanted: str | None = None, inputs_in: str = "dram", progress: Progress | None = None,
) -> Compiled:
    """Return an ONNX file compiled for a chip; errors as in `frontend.load`.

    `name` and `shown_dims` are what the report says of the model; without them the file's own and `dims`.
    """
    if progress is not None:
        progress("load", 0, 1)
    graph = load(path, dims, input_shapes=input_shapes)
    return compile_graph(graph, chip, name=name, wanted=wanted, source=str(path), dims=shown_dims or dims,
                         inputs_in=inputs_in, progress=progress)

