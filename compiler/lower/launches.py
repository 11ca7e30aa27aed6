"""What emission gives: the blocks of a schedule's steps, and the launches that run them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mtia_emu.program.isa import Block, Launch

from .steps import Schedule


@dataclass
class Launches:
    """The launches of a schedule whose steps fit a block each, and the distinct `blocks` that they run.

    Launch i runs at moment times[i]; steps[i] are the numbers of the steps that it runs, calls[i] what they
    call: the kernel's name, its `KernelCall`, and the mapping that the user fixed, if any.
    """

    schedule: Schedule
    blocks: list[Block] = field(default_factory=list)
    launches: list[Launch] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    steps: list[tuple[int, ...]] = field(default_factory=list)
    calls: list[tuple[Any, ...]] = field(default_factory=list)
