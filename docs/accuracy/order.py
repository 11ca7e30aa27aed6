"""The fast timing reading beside the slow one that serves shared resources strictly by time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mtia_emu import api
from mtia_emu.engine.launches import Counts
from mtia_emu.engine.timing import timeline
from mtia_emu.machine.chip import Chip, load_chip
from mtia_emu.program.isa import Program
from mtia_emu.zoo.operators import Gemm

PRODUCTS = (
    ("mtia-1", (128, 1024, 1024), "int8", "sram"),
    ("mtia-1", (512, 2048, 2048), "int8", "sram"),
    ("mtia-1", (128, 4096, 4096), "int8", "sram"),
    ("mtia-2i", (512, 2048, 2048), "fp16", "sram"),
    ("mtia-2i", (512, 4096, 2048), "fp16", "weights-dram"),
    ("mtia-2i", (64, 4096, 4096), "fp16", "dram"),
    ("mtia-2i", (1, 4096, 4096), "fp16", "dram"),
)
MODELS = (("zoo:dlrm-small", {"batch": 256}), ("zoo:llama-3.2-1b", {"seq": 128}))


def programs() -> Iterator[tuple[Chip, Program]]:
    """Yield programs small enough for the event queue."""
    for name, sizes, kind, place in PRODUCTS:
        chip = load_chip(name)
        with api.operator_source(Gemm(*sizes, kind), None) as source:
            yield chip, api.compile_stages(source, chip, place=place).program
    for model, dims in MODELS:
        chip = load_chip("mtia-2i")
        yield chip, api.compile_model(model, chip, dims=dims)


def errors() -> list[float]:
    """Return, for each block, how much longer the fast form takes than the slow one, relative."""
    found = []
    for chip, program in programs():
        counts = Counts(program, chip)
        first = {launch.block: index for index, launch in reversed(list(enumerate(program.launches)))}
        for number, block in enumerate(program.blocks):
            ev = counts.of(first[number])
            slow = timeline(block, chip, counts=ev, ordered=True).cycles
            found.append(timeline(block, chip, counts=ev).cycles / slow - 1.0)
    return found


def distribution() -> list[list[object]]:
    """Return the distribution of the errors as a row of percentages."""
    e = 100 * np.array(errors())
    low, middle, high = np.percentile(e, [5, 50, 95])
    return [[len(e), *(f"{x:+.2f} %" for x in (low, middle, high)), f"{np.abs(e).max():.2f} %"]]
