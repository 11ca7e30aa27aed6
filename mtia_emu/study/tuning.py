"""How hard the compiler looks for mappings: `--tune fast`, by estimate, or `--tune full`, by time as well.

Which layers run side by side is decided by time in both.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import partial

import numpy as np

from mtia_emu.compiler.lower.choice import Tuning
from mtia_emu.kernels.search import FAST, Search

from ..engine.shared import shared_cycles
from ..engine.timing import timeline
from ..machine.chip import Chip
from ..machine.units.kept import kept
from ..options import Options
from ..program.isa import Block
from ..reuse.plan_cache import default_cache, remembered, rules_digest
from ..reuse.sharing import Share, unshared


def tuning(options: Options, *, share: Share = unshared, cached: bool = True) -> Tuning:
    """Return how mappings are chosen with options; unless `cached`, nothing that it finds is kept on disk.

    Unless `options.beside`, each layer has a launch of its own.
    """
    timer = kept_cycles if share is unshared and cached else partial(shared_cycles, share=share)
    judge = timer if options.beside else None
    if options.tune == "fast":
        return Tuning(replace(FAST, beside=judge), share)
    kept = default_cache() if cached else None
    through = remembered(kept, share, options.deciding("choice")) if kept else share
    return Tuning(Search(time=cycles, beside=judge), through)


def cycles(block: Block, chip: Chip) -> float:
    """Return the cycles of a block by the timing reading."""
    return timeline(block, chip).cycles


def kept_cycles(block: Block, chip: Chip) -> float:
    """Return the cycles of a block by the timing reading, from disk where an equal one was timed before.

    So compiling a model again needs no timing, whose machine code takes longer to load than to run.
    """
    content = hashlib.blake2b(np.ascontiguousarray(block.commands).tobytes(), digest_size=16).hexdigest()
    source = f"{rules_digest()} {block!r} {content} {chip!r}"
    return float(kept("cycles", source, (), lambda: np.asarray(shared_cycles(block, chip, unshared))))
