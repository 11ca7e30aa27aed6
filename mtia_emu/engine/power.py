"""A run under the chip's limit of power: at which clock it draws no more, and what there is to say of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from typing import cast

from ..machine.chip import Chip
from ..machine.supply import memory_supply_v, supply_v
from ..machine.units.energy import LEAKAGE_KNOWN_C
from ..results.power import PowerState
from ..results.report import Report
from ..silicon import nearest_node
from .energy import asleep_w, clock_w, leakage_w, standing

STEPS = 256  # of an octave: a step is 0.27 % of the clock, at most 0.8 % of the power
OCTAVES = 6  # below the nominal clock, or a lower one that is asked for: no chip goes slower
EVEN = 1e-9  # of a step: what rounding may take from a clock that is one
GUESSES = 6  # after which steps are halved

At = Callable[[Chip], Report]
Search = Generator[
    Chip, Report, Report
]  # asks for reports at clocks of a chip, and returns the one that holds


def sustained(chip: Chip, at: At) -> Report:
    """Return the report of a run that is repeated for long, at the fastest clock within `tdp_w`.

    `at` gives the report of the same program at another clock: what runs on the chip's clock slows down, DRAM
    and launches do not. The power that counts is the run's average: dies warm up in seconds, runs take less.
    Clocks are chosen from a grid of equal ratios: neither a higher limit nor a higher clock is slower.
    """
    search = clocks(chip)
    now = next(search)
    while True:
        try:
            now = search.send(at(now))
        except StopIteration as done:
            return cast(Report, done.value)


def clocks(chip: Chip) -> Search:
    """Ask for the reports that `sustained` needs, a clock after the other; return the one that it returns."""
    found = yield chip
    if found.watts > chip.tdp_w:
        found = yield from _slowed(chip, found)
    now = chip.at_clock(found.clock_hz)
    notes = (*found.notes, *_notes(chip, now, found))
    return replace(found, power=state(chip, now), notes=notes)


def _slowed(chip: Chip, full: Report) -> Search:
    """Ask for reports; return the one at the fastest step within the limit, the slowest where none is.

    The next step to try is where power would meet the limit if the last one tried only slowed down further;
    after some tries, half way.
    """
    fast = math.floor(STEPS * math.log2(chip.power.nominal_hz / chip.clock_hz) + EVEN)
    slow = max(fast, 0) + STEPS * OCTAVES + 1
    last, under, tries = (chip, full), full, 0
    while slow - fast > 1:
        step = (fast + slow) // 2 if tries >= GUESSES else _guess(chip, *last, fast, slow)
        now = _at_step(chip, step)
        last, tries = (now, (yield now)), tries + 1
        if last[1].watts > chip.tdp_w:
            fast = step
        else:
            slow, under = step, last[1]
    return under if under is not full else last[1]


def _guess(chip: Chip, known: Chip, report: Report, fast: int, slow: int) -> int:
    """Return the fastest step between two at which a chip would keep to its limit, or the nearest to it.

    Power above what flows anyway is taken to go with f V^2, as where nothing waits for DRAM.
    """
    above = (report.watts - standing(known).total) / (known.clock_hz * supply_v(known) ** 2)
    low, high = fast, slow - 1
    while high - low > 1:
        middle = (low + high) // 2
        now = _at_step(chip, middle)
        watts = standing(now).total + above * now.clock_hz * supply_v(now) ** 2
        low, high = (middle, high) if watts > chip.tdp_w else (low, middle)
    return high


def slower(chip: Chip) -> Chip:
    """Return the chip a step slower: whether one more is needed is what a search mostly asks next."""
    return _at_step(chip, round(STEPS * math.log2(chip.power.nominal_hz / chip.clock_hz)) + 1)


def _at_step(chip: Chip, step: int) -> Chip:
    """Return the chip with its clock so many steps below the nominal one."""
    return chip.at_clock(chip.power.nominal_hz * 2.0 ** (-step / STEPS))


def state(asked: Chip, now: Chip) -> PowerState:
    """Return the state of a chip that was asked for one clock and runs at another."""
    return PowerState(
        asked.clock_hz,
        now.clock_hz,
        supply_v(now),
        memory_supply_v(now),
        asked.tdp_w,
        standing(now).total,
        asleep_w(now),
        leakage_w(now),
        clock_w(now),
    )


def _notes(asked: Chip, now: Chip, report: Report) -> Iterator[str]:
    """Yield what a reader must know of limits that were met and ranges that were left."""
    slow = f"{now.clock_hz / 1e9:.4g} GHz in place of {asked.clock_hz / 1e9:.4g}"
    if report.watts > asked.tdp_w:
        yield (
            f"power: {report.watts:.1f} W at {slow}, the slowest clock, are above tdp_w, {asked.tdp_w:g} W: "
            "the limit cannot be kept"
        )
    elif now.clock_hz < asked.clock_hz:
        yield f"power: runs at {slow}, to draw no more than tdp_w, {asked.tdp_w:g} W"
    yield from _ranges(now)


def _ranges(chip: Chip) -> Iterator[str]:
    """Yield where a chip's supply, temperature or node leaves what its numbers are known for."""
    power, e = chip.power, chip.energy
    low, high = sorted((supply_v(chip), memory_supply_v(chip)))
    clock = f"at {chip.clock_hz / 1e9:.3g} GHz"
    if high > power.most_v:
        yield f"supply: {high:.3g} V {clock}, above power.most_v, {power.most_v:g} V: beyond what is known"
    if low < power.least_v or (chip.clock_hz < power.nominal_hz and low == power.least_v):
        yield f"supply: {low:.3g} V {clock}, the least: a slower clock saves no energy an event"
    cold, hot = LEAKAGE_KNOWN_C
    if not cold <= e.temperature_c <= hot:
        yield (
            f"temperature: {e.temperature_c:g} C is outside {cold:g} to {hot:g}, for which the growth of "
            "leakage was estimated"
        )
    node_nm = nearest_node(chip.node_nm)
    if node_nm != chip.node_nm:
        yield (
            f"process: no areas are known at {chip.node_nm:g} nm: leakage and clock are those of {node_nm:g}"
        )
