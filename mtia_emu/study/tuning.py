"""How hard the compiler looks for mappings: `--tune fast` times a few of them, `--tune full` many.

Which layers run side by side is decided by time in both.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from mtia_emu.compiler.lower.choice import Tuning
from mtia_emu.compiler.lower.fixed import fixed_mappings
from mtia_emu.kernels.search import FEW, FEW_COMMANDS, MappingSearch

from ..engine.memoised import memoised_cycles
from ..engine.timing import timeline
from ..machine.chip import Chip
from ..machine.units.kept import kept
from ..options import Options
from ..program.deferred import Deferred, content
from ..program.isa import Block
from ..reuse.memo import Memoise, unmemoised
from ..reuse.plan_cache import default_cache, remembered, rules_digest
from ..reuse.records import records
from .known_blocks import KnownBlocks


def tuning(options: Options, *, memoise: Memoise = unmemoised, cached: bool = True) -> Tuning:
    """Return how mappings are chosen with options; unless `cached`, nothing that it finds is kept on disk.

    Unless `options.beside`, each layer has a launch of its own.
    """
    timer = kept_cycles if memoise is unmemoised and cached else partial(memoised_cycles, memoise=memoise)
    judge = timer if options.beside else None
    fixed = fixed_mappings(options.mapping)
    kept = default_cache() if cached else None
    deciding = options.deciding("choice")
    through = remembered(kept, memoise, deciding) if kept else memoise
    if kept and memoise is unmemoised and (known := records()) is not None:
        through = KnownBlocks(known, through, deciding)
    if options.tune == "full":
        return Tuning(MappingSearch(time=cycles, beside=judge, thorough=True), through, fixed)
    few = MappingSearch(cycles, FEW, FEW_COMMANDS, judge)
    if memoise is unmemoised:
        return Tuning(few, through, fixed)
    return Tuning(replace(few, time=timer), memoise, fixed)  # sooner made again than found on disk


def cycles(block: Block, chip: Chip) -> float:
    """Return the cycles of a block by the timing reading."""
    return timeline(block, chip).cycles


def kept_cycles(block: Block, chip: Chip) -> float:
    """Return the cycles of a block by the timing reading, from disk where an equal one was timed before.

    So compiling a model again needs no timing, whose machine code takes longer to load than to run.
    """
    whose = block.known.digest if isinstance(block, Deferred) else f"{block!r} {content(block)}"
    source = f"{rules_digest()} {whose} {chip!r}"
    return float(kept("cycles", source, (), lambda: np.asarray(memoised_cycles(block, chip, unmemoised))))
