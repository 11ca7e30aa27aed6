"""The order of issue: phases of a round, rounds of steps."""

from __future__ import annotations

import numpy as np
from mtia_emu.kernels.builder import Builder
from mtia_emu.kernels.phases import Phases

from mtia_emu.machine.chip import load_chip
from mtia_emu.program.isa import Opcode
from mtia_emu.types import FP32


def test_a_round_has_the_loads_of_one_step_beside_the_store_of_another() -> None:
    """Written out by hand: three steps, each loaded, multiplied a round later, stored two rounds later."""
    issue = Phases(loads=0, store=2, product=1)
    steps = np.arange(3)
    places = {
        int(place): f"{phase} {step}"
        for phase in ("loads", "store", "product")
        for step, place in zip(steps, issue.at(phase, steps), strict=True)
    }
    assert [places[place] for place in sorted(places)] == [
        *("loads 0",),
        *("loads 1", "product 0"),
        *("loads 2", "store 0", "product 1"),
        *("store 1", "product 2"),
        "store 2",
    ]


def test_a_phase_may_come_before_its_step() -> None:
    issue = Phases(loads=0, stage=-1)
    assert issue.at("stage", 1) < issue.at("loads", 1) and issue.at("stage", 1) > issue.at("loads", 0)


def test_fractions_keep_within_a_phase_and_equal_places_the_order_of_adding() -> None:
    issue = Phases(first=0, then=0)
    build = Builder(load_chip("tiny"), "any", ())
    slots = build.slot(FP32, 4, 4)
    for slot, place in enumerate((issue.at("then", 0), issue.at("first", 0) + 1 / 2, issue.at("first", 0))):
        build.add(Opcode.SIMD, place, pe=0, dst=slots + slot)
    build.add(Opcode.SIMD, issue.at("then", 0), pe=0, dst=slots + 3)
    assert build.block().commands["dst"].tolist() == [2, 1, 0, 3]
