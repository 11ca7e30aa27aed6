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
from mtia_emu.types import DType, Work, dtype

from . import text
from .check import Known, check
from .emit import emit
from .frontend import load
from .graph import Graph
from .ops import work
from .passes import (
    Bags,
    Epilogue,
    Fold,
    Heads,
    Layout,
    Legalise,
    Maps,
    Norms,
    Pass,
    Precision,
    Prune,
    Quantise,
    Rotary,
    Strips,
    Tails,
)
from .passes.precision import own_dtype
from .place import place
from .schedule import Schedule, schedule

Progress = Callable[[str, int, int], None]


def passes(own: DType, to: DType, *, int8: bool = False) -> tuple[Pass, ...]:
    """Return the pipeline for a model of floats `own` that runs in `to`, whatever the machine.

    With `int8` products with weights are quantised.
    """
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
        *(
            [Quantise(), Fold()] if int8 else []
        ),  # fold: an activation that several products read is quantised once
        Prune(),
    )


def mapping_passes(chip: Chip) -> tuple[Pass, ...]:
    """Return the passes that suit a graph to a chip; other machines are given the graph before them."""
    return (
        Strips(chip.sram.bytes // 8),  # after maps and tails: a strip's chain is as short as it gets
        Layout(),  # last: fold would undo the views of stored weights
        Prune(),
    )


def works(graph: Graph) -> tuple[Work, ...]:
    """Return the work of each node that has any, in order."""
    counts = [work(graph, node) for node in graph.nodes]
    return tuple(w for w in counts if w.macs or w.flops or w.read_bytes + w.write_bytes)


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
    known: Known = {}
    for step in pipeline:
        graph = check(step(graph), step.name, known)
        if debug >= 1:
            print(f"{step.name}: {len(graph.nodes)} nodes", file=sys.stderr)
        if debug >= 3:
            print(text.dump(graph), file=sys.stderr)
    return graph


@dataclass(frozen=True)
class Format:
    """The number format that a model runs in: its floats' type, and whether products with weights are in int8."""

    floats: DType
    int8: bool = False
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Return the dtype that reports show and measure utilization by."""
        return "int8" if self.int8 else self.floats.name


def choose_format(own: DType, chip: Chip, wanted: str | None) -> Format:
    """Return the format for a model whose own arithmetic is in `own`, with notes where it is another."""
    if not own.is_float:  # a model of integers runs as it is
        return Format(own)
    int8 = wanted == "int8"
    kind = dtype(wanted) if wanted is not None and not int8 else chip.nearest_matrix_dtype(own)
    if not kind.is_float or kind.bits < 16:
        raise UserError(f"--dtype {wanted}: a model runs in fp16, bf16, fp32, or int8 (dynamic quantisation)")
    if int8 and not chip.pe.matrix.supports("int8"):
        raise UserError(
            f"--dtype int8: the matrix unit of {chip.name} has no rate for int8 "
            f"(right: {', '.join(chip.pe.matrix.rates)})"
        )
    notes = []
    if kind != own:
        notes.append(f"the model's {own} runs as {kind}")
    if int8:
        notes.append(
            "products with weights run in int8: a scale a row of activations, found at run time, and a scale a "
            "column of weights"
        )
    elif not chip.pe.matrix.supports(kind.name):
        notes.append(
            f"the matrix unit of {chip.name} has no rate for {kind}: products run on the SIMD engine"
        )
    return Format(kind, int8, tuple(notes))


def compile_graph(
    graph: Graph,
    chip: Chip,
    *,
    name: str = "",
    wanted: str | None = None,
    source: str = "",
    dims: Mapping[str, int] | None = None,
    inputs_in: str = "dram",
    progress: Progress | None = None,
) -> Compiled:
    """Return a graph compiled for a chip."""
    report = progress or (lambda stage, done, total: None)
    own = own_dtype(graph)
    form = choose_format(own, chip, wanted)
    notes = form.notes
    report("lower", 0, 1)
    fused = lower(graph, passes(own, form.floats, int8=form.int8))
    lowered = lower(fused, mapping_passes(chip))
    report("schedule", 0, 1)
    plan = schedule(lowered, chip)
    placement = place(plan, inputs_in)
    if placement.dram_bytes > chip.dram.bytes:
        notes += (
            f"the program takes {placement.dram_bytes / 1e9:.1f} GB of DRAM, {chip.name} has "
            f"{chip.dram.bytes / 1e9:.1f} GB: read it as one of several chips' share",
        )
    if placement.spilled:
        notes += (f"{len(placement.spilled)} activations found no room in SRAM and are in DRAM",)
    model_types = dict(graph.inputs) | {name: graph.type_of(name) for name in graph.outputs}
    program = emit(
        plan,
        placement,
        name=name or graph.name,
        source=source,
        dtype=form.name,
        dims=dims or {},
        model_types=model_types,
        works=works(fused),
        notes=notes,
        progress=lambda done, total: report("emit", done, total),
    )
    return Compiled(graph, lowered, plan, program)


def compile_file(
    path: str | Path,
    chip: Chip,
    *,
    name: str = "",
    dims: Mapping[str, int] | None = None,
    shown_dims: Mapping[str, int] | None = None,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    wanted: str | None = None,
    inputs_in: str = "dram",
    progress: Progress | None = None,
) -> Compiled:
    """Return an ONNX file compiled for a chip; errors as in `frontend.load`.

    `name` and `shown_dims` are what the report says of the model; without them the file's own and `dims`.
    """
    if progress is not None:
        progress("load", 0, 1)
    graph = load(path, dims, input_shapes=input_shapes)
    return compile_graph(
        graph,
        chip,
        name=name,
        wanted=wanted,
        source=str(path),
        dims=shown_dims or dims,
        inputs_in=inputs_in,
        progress=progress,
    )
