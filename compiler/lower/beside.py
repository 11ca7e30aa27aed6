"""Independent steps side by side: which may share a launch, and which do, each on rows of the grid.

`gather` puts steps that wait for nothing of each other next to one another, at one moment, before they are
placed: what they touch lives at the same time. `launches` then decides by the time of the blocks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, groupby

from mtia_emu.kernels.beside import beside, scratch_bytes
from mtia_emu.kernels.builder import NoRoom
from mtia_emu.kernels.search import MappingSearch, Timer

from mtia_emu.machine.chip import Chip
from mtia_emu.program.isa import BESIDE, Block, Launch, Part
from mtia_emu.reuse.memo import Memoise, SameObject
from mtia_emu.sums import add_up

from ..user_kernels import kernel_of
from .place import SCRATCH_SHARE
from .steps import Schedule, Step
from .views import View

REACH = 16  # so many moments back a step looks for others
ROOM_SHARE = 8  # the steps of a moment touch at most one part in so many of SRAM
MOST_COMMANDS = 1 << 14  # of blocks that are timed to decide, all in all: as many as compile time allows
WORTH = 100  # a join that saves less than one part in so many of the time is not worth the time to try it
MANY = 64  # pairs of views, beyond which they are looked at all at once
SELDOM = 100  # nor is a moment that is fewer than one in so many, unless with `--tune full`


def gather(schedule: Schedule, search: MappingSearch) -> None:
    """Move steps up beside earlier ones that they are independent of; `moments` says which are beside.

    Of several such moments a step takes the one in which most is done at the same time: the largest of those
    that are smaller than itself, else the smallest.
    """
    moments: list[_Moment] = []
    for step in schedule.steps:
        mine = _Moment(
            [step], _sizes(schedule, step), sum(v.type.bytes for v in (*step.inputs, *step.outputs))
        )
        mine.note(step)
        best: _Moment | None = None
        for other in reversed(moments[-REACH:]):
            if other.holds_up(step):
                break
            if _fit(schedule, mine, other, search) and (best is None or mine.rank(other) > mine.rank(best)):
                best = other
        if best is None:
            moments.append(mine)
        else:
            best.steps.append(step)
            best.note(step)
            best.sizes |= mine.sizes
            best.most_bytes = max(best.most_bytes, mine.most_bytes)
    schedule.steps = [step for moment in moments for step in moment.steps]
    schedule.moments = [number for number, moment in enumerate(moments) for _ in moment.steps]


@dataclass
class _Moment:
    """Steps that may run at the same time, and the bytes of each temporary that they touch.

    `most_bytes` is about how much the step with most to do has to move; `read` and `written` are the views of
    each buffer.
    """

    steps: list[Step]
    sizes: dict[str, int]
    most_bytes: int
    read: dict[str, list[View]] = field(default_factory=dict)
    written: dict[str, list[View]] = field(default_factory=dict)

    def note(self, step: Step) -> None:
        """Keep what a step reads and writes."""
        for views, kept in ((step.inputs, self.read), (step.outputs, self.written)):
            for view in views:
                kept.setdefault(view.buffer, []).append(view)

    def holds_up(self, step: Step) -> bool:
        """Return whether a step may write what one of these reads or writes, or read what one writes."""
        return any(
            meet(views, side.get(buffer, ()))
            for all_views, sides in (
                (step.outputs, (self.written, self.read)),
                (step.inputs, (self.written,)),
            )
            for buffer, views in _by_buffer(all_views).items()
            for side in sides
        )

    def rank(self, other: _Moment) -> tuple[int, int]:
        """Return how much is to be won beside another, to compare with that beside a third."""
        return min(self.most_bytes, other.most_bytes), -other.most_bytes


def _sizes(schedule: Schedule, step: Step) -> dict[str, int]:
    """Return the bytes of the temporaries that a step touches."""
    touched = {v.buffer: schedule.buffers[v.buffer] for v in (*step.inputs, *step.outputs)}
    return {name: b.type.bytes for name, b in touched.items() if b.role == "temp"}


def _fit(schedule: Schedule, step: _Moment, moment: _Moment, search: MappingSearch) -> bool:
    """Return whether a step may join others: a row of PEs for each, room for all that they touch."""
    if not all(_may_share(s, search) for s in (*step.steps, *moment.steps)):
        return False
    room = sum((moment.sizes | step.sizes).values()) <= schedule.chip.sram.bytes // ROOM_SHARE
    return room and len(moment.steps) < schedule.chip.grid.rows


def _may_share(step: Step, search: MappingSearch) -> bool:
    """Return whether a step may share a launch; what takes long to map, with `--tune full` alone."""
    kernel = kernel_of(step)
    return kernel.shares_launch and (search.thorough or not kernel.slow_search)


def _by_buffer(views: Sequence[View]) -> dict[str, list[View]]:
    out: dict[str, list[View]] = {}
    for view in views:
        out.setdefault(view.buffer, []).append(view)
    return out


def meet(some: Sequence[View], others: Sequence[View]) -> bool:
    """Return whether two lots of views of one buffer may have an element in common: some two not `apart`."""
    if len(some) * len(others) > MANY and _in_lanes(some, others):
        return False
    return any(not apart(a, b) for a in some for b in others)


def _in_lanes(some: Sequence[View], others: Sequence[View]) -> bool:
    """Return whether views are seen apart at once: in lines of one stride, all keep to other columns."""
    for line in set.intersection(*(set(v.strides) for v in some)) - {0, 1}:
        columns = [(*_columns(v, line), mine) for mine, side in enumerate((some, others)) for v in side]
        if all(high <= line for _, high, _ in columns) and _disjoint(columns):
            return True
    return False


def _disjoint(columns: list[tuple[int, int, int]]) -> bool:
    """Return whether no range (from, to (excluded), whose) overlaps one of the other owner, 0 or 1."""
    reached = [0, 0]
    for low, high, whose in sorted(columns):
        if low < reached[1 - whose]:
            return False
        reached[whose] = max(reached[whose], high)
    return True


def apart(a: View, b: View) -> bool:
    """Return whether views of one buffer are seen to have no element in common.

    One ends before the other begins; or, of memory cut into lines of some stride, they keep to different
    columns.
    """
    if a.end <= b.offset or b.end <= a.offset:
        return True
    for line in {*a.strides, *b.strides} - {0, 1}:
        (low, high), (begin, end) = _columns(a, line), _columns(b, line)
        if max(high, end) <= line and (high <= begin or end <= low):
            return True
    return False


def _columns(view: View, line: int) -> tuple[int, int]:
    """Return the columns, from and to (excluded), that a view keeps to in lines of so many elements."""
    first = view.offset % line
    inner = [(n - 1) * s for n, s in zip(view.shape, view.strides, strict=True) if s % line]
    return first, first + sum(inner) + 1


@dataclass(frozen=True)
class BlockSource:
    """A kernel call's block, to be made: `key` is all that it depends on besides the chip that it is for."""

    key: Hashable
    make: Callable[[Chip], Block]


@dataclass(frozen=True)
class Run:
    """A launch of some of the calls of a moment, by number: its block, and those that it was joined from."""

    calls: tuple[int, ...]
    block: Block
    parts: tuple[Block, ...] = ()

    def launch(self, number: int, alone: Sequence[Launch]) -> Launch:
        """Return the launch of the block, which has that number, from what would be launches alone.

        Scratch operands stand at its start there; each part has scratch of its own.
        """
        if not self.parts:
            return replace(alone[0], block=number)
        starts = accumulate(map(scratch_bytes, self.parts), initial=0)
        places = [
            place + start * x.space.of_block
            for part, launch, start in zip(self.parts, alone, starts, strict=False)
            for x, place in zip(part.operands, launch.addresses, strict=True)
        ]
        names = tuple(Part(x.name, x.op, x.origin) for x in alone)
        name, op, origin = (
            BESIDE.join(getattr(x, field) for x in names) for field in ("name", "op", "origin")
        )
        return Launch(number, tuple(places), name, op, origin, names)


def launches(
    calls: Sequence[BlockSource], chip: Chip, search: MappingSearch, memoise: Memoise, *, often: bool = True
) -> tuple[Run, ...]:
    """Return the launches of a moment's calls: side by side where that is faster, alone unless `often`."""
    if len(calls) == 1 or not (often or search.thorough):
        return tuple(Run((i,), call.make(chip)) for i, call in enumerate(calls))
    key = (tuple(call.key for call in calls), search.candidates, search.most_commands)
    return memoise("beside", key, chip, lambda c: _decide(calls, c, search, memoise))


def _decide(
    calls: Sequence[BlockSource], chip: Chip, search: MappingSearch, memoise: Memoise
) -> tuple[Run, ...]:
    most = search.most_commands if search.thorough else MOST_COMMANDS
    single = [Run((i,), call.make(chip)) for i, call in enumerate(calls)]
    short = [run for run in single if run.block.size <= most]
    long = [run for run in single if run.block.size > most]
    if search.beside is None or len(short) < 2:
        return tuple(single)
    joined = _launches(short, _Trial(calls, chip, search.beside, memoise))
    return tuple(sorted([*joined, *long], key=lambda run: run.calls))


def _launches(single: list[Run], trial: _Trial) -> list[Run]:
    """Return all as one launch where that is faster, else each beside those before it where that is."""
    for run in single:
        trial.note(run)
    apart = add_up(trial.cycles[run.calls] for run in single) + trial.gap * (len(single) - 1)
    whole = trial.join(single, apart)
    if whole is not None or len(single) == 2:
        return [whole] if whole is not None else single
    joined = single[:1]
    for run in single[1:]:
        last = joined[-1]
        together = trial.join([last, run], trial.cycles[last.calls] + trial.gap + trial.cycles[run.calls])
        joined[-1:] = [last, run] if together is None else [together]
    return joined


class _Trial:
    """What the calls of a moment take alone, and what some take side by side, in cycles by their numbers."""

    def __init__(self, calls: Sequence[BlockSource], chip: Chip, time: Timer, memoise: Memoise) -> None:
        self.calls, self.chip, self.time, self.memoise = calls, chip, time, memoise
        self.cycles: dict[tuple[int, ...], int] = {}
        self.known: dict[Hashable, int] = {}
        self.gap = chip.launch_cycles(1)

    def note(self, run: Run) -> None:
        """Time a launch of one call; equal calls are timed once."""
        key = self.calls[run.calls[0]].key
        if key not in self.known:
            self.known[key] = math.ceil(self.time(run.block, self.chip))
        self.cycles[run.calls] = self.known[key]

    def join(self, runs: Sequence[Run], limit: int) -> Run | None:
        """Return all calls of launches side by side; None where that has no room, or takes `limit` cycles.

        Nor is it tried where next to nothing can be won: at most the launches, and all but the longest call.
        """
        members = tuple(i for run in runs for i in run.calls)
        times = [self.cycles[i,] for i in members]
        if (limit - max(times)) * WORTH < limit:
            return None
        rows = _rows(times, self.chip.grid.rows)
        spans = _octaves([time / n for time, n in zip(times, rows, strict=True)])
        chips = [self.chip.part(n, self.chip.grid.cols) for n in rows]
        try:
            parts = tuple(self.calls[i].make(chip) for i, chip in zip(members, chips, strict=True))
            key = (*map(SameObject, parts), rows, spans)
            block = self.memoise("joined", key, self.chip, lambda c: beside(parts, rows, c.grid.cols, spans))
        except NoRoom:
            return None
        if block.scratch_bytes > self.chip.sram.bytes // SCRATCH_SHARE:
            return None
        self.cycles[members] = math.ceil(self.time(block, self.chip))
        return Run(members, block, parts) if self.cycles[members] < limit else None


def _octaves(spans: Sequence[float]) -> tuple[float, ...]:
    """Return spans as powers of two of the longest: about equal ones on another chip give equal blocks."""
    longest = max(spans)
    return tuple(2.0 ** round(math.log2(max(span, 1e-9) / max(longest, 1e-9))) for span in spans)


def _rows(work: Sequence[int], rows: int) -> tuple[int, ...]:
    """Return how many of a grid's rows each gets: one, and the others where the most is left for a row."""
    given = [1] * len(work)
    for _ in range(rows - len(work)):
        longest = max(range(len(work)), key=lambda i: work[i] / given[i])
        given[longest] += 1
    return tuple(given)


def moments(schedule: Schedule) -> list[list[Step]]:
    """Return the steps of each moment; without moments each step is one."""
    numbers = schedule.moments or range(len(schedule.steps))
    pairs = zip(numbers, schedule.steps, strict=True)
    return [[step for _, step in group] for _, group in groupby(pairs, key=lambda pair: pair[0])]
