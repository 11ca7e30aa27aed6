"""The mapping of each layer beside its runner-up and the least that its work takes, as a file of mappings."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mtia_emu.compiler.pipeline import Compiled
from mtia_emu.compiler.user_kernels import kernel_named
from mtia_emu.kernels.builder import NoRoom
from mtia_emu.kernels.kernel import Kernel, KernelCall, unmemoised
from mtia_emu.kernels.search import CANDIDATES

from ..engine.bounds import least_cycles
from ..engine.events import events
from ..engine.timing import timeline
from ..engine.totals import Totals
from ..machine.chip import Chip
from ..program.isa import BESIDE, Block

MOST_COMMANDS = 1 << 19  # of other mappings that are timed for a layer
BAND = " rows "  # between the rows that a layer beside others has, and its mapping


@dataclass(frozen=True)
class LayerMapping:
    """The mapping of layers that are the same kernel call, in cycles without launch and prefetch.

    `rows` are the rows of PEs that they have beside others, 0 where all. `runner_up` is the fastest other
    mapping of those that were timed, "" where there is none; `least_cycles` no mapping goes below.
    """

    layers: tuple[str, ...]
    kernel: str
    mapping: str
    rows: int
    cycles: float
    runner_up: str
    runner_up_cycles: float
    least_cycles: float


def layer_mappings(compiled: Compiled, chip: Chip) -> list[LayerMapping]:
    """Return the mappings of a model's layers whose kernels have several, those of one call together."""
    found: dict[Any, LayerMapping] = {}
    for key, name in _calls(compiled):
        if key in found:
            found[key] = replace(found[key], layers=(*found[key].layers, name))
        else:
            found[key] = _judged(*key, chip, name)
    return list(found.values())


def _calls(compiled: Compiled) -> Iterator[tuple[tuple[Kernel, KernelCall, str, int], str]]:
    """Yield kernel, call, mapping, rows (0: all) and name of each layer whose kernel has several mappings."""
    for launch, calls in zip(compiled.program.launches, compiled.calls, strict=True):
        texts = compiled.program.blocks[launch.block].mapping.split(BESIDE)
        names = [part.name for part in launch.parts] or [launch.name]
        for (kernel_name, call, *_), text, layer in zip(calls, texts, names, strict=True):
            kernel = kernel_named(kernel_name, call)
            if not kernel.mapped or not text:
                continue
            rows, mapping = text.split(BAND, 1) if launch.parts else ("0", text)
            yield (kernel, call, mapping, int(rows)), layer


def _judged(kernel: Kernel, call: KernelCall, text: str, rows: int, whole: Chip, name: str) -> LayerMapping:
    """Return what a mapping takes, and the fastest of others that are ranked for the same call."""
    chip = whole.part(rows, whole.grid.cols) if rows else whole
    chosen = kernel.emit_mapping(chip, call, kernel.fixed(text, call, chip))
    best, best_cycles, spent = "", math.inf, 0
    for mapping in kernel.candidates(kernel.problem(call), chip, CANDIDATES, unmemoised):
        other = kernel.spelled(mapping)
        block = _block(kernel, call, mapping, chip) if other != text else None
        if block is None:
            continue
        spent += len(block.commands)
        if spent > MOST_COMMANDS and best:
            break
        cycles = timeline(block, chip).cycles
        if cycles < best_cycles:
            best, best_cycles = other, cycles
    least = least_cycles(Totals(events(chosen, chip)), _streamed_bytes(kernel, call), chip)
    timed = timeline(chosen, chip).cycles
    return LayerMapping((name,), kernel.name, text, rows, timed, best, best_cycles, least)


def _block(kernel: Kernel, call: KernelCall, mapping: Any, chip: Chip) -> Block | None:
    try:
        return kernel.emit_mapping(chip, call, mapping)
    except NoRoom:
        return None


def _streamed_bytes(kernel: Kernel, call: KernelCall) -> tuple[float, float]:
    """Return the bytes of DRAM, and of SRAM, that a call must move once; infinite where it looks rows up."""
    streamed = kernel.streamed(call.inputs, call.outputs)
    if len(streamed) < len(call.inputs):
        return math.inf, math.inf
    sizes = [0.0, 0.0]
    for x in (*streamed, *call.outputs):
        distinct = math.prod(n for n, stride in zip(x.shape, x.strides, strict=True) if stride)
        sizes[not x.space.off_chip] += distinct * x.dtype.bytes
    return sizes[0], sizes[1]


def as_toml(mappings: Sequence[LayerMapping], model: str, chip: Chip) -> str:
    """Return the text of a file that `--mapping` takes: a layer a line, what else there is as comments."""
    lines = [
        f"# Mappings of {json.dumps(model)} on {json.dumps(chip.name)}. Cycles are of the block, launch and "
        "prefetch aside.",
        "[mappings]",
    ]
    for x in mappings:
        lines.append("")
        lines.append(
            f"# {x.kernel}: {x.cycles:,.0f} cycles; {x.least_cycles:,.0f} at least, whatever the mapping"
        )
        if x.runner_up:
            more = x.runner_up_cycles / x.cycles - 1
            lines.append(f"# runner-up: {x.runner_up}  # {x.runner_up_cycles:,.0f} cycles, {more:+.1%}")
        beside = f"# beside others, on {x.rows} rows: " if x.rows else ""
        lines += [f"{beside}{json.dumps(name)} = {json.dumps(x.mapping)}" for name in x.layers]
    return "\n".join(lines) + "\n"
