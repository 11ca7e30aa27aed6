"""Steps that are too large for a block as several, each of which computes a part of the results."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby, islice

from mtia_emu.kernels.builder import TooLarge, at_most
from mtia_emu.kernels.halves import Portion

from mtia_emu.program.isa import MOST_COMMANDS

from ..user_kernels import kernel_of
from .steps import Schedule, Step

SMALL_MACS, SMALL_ELEMENTS = 1 << 34, 1 << 26  # blocks of so little work have few commands
LARGE_MACS = 1 << 39  # blocks of so much have more commands than is worth while
CUT_COMMANDS = 1 << 21  # of a block, where it can be cut: parts of one size share one, which is soon timed
MOST_PARTS = 1 << 12  # of a step


def split(schedule: Schedule, key: Callable[[Step], Hashable], make: Callable[[Step], object]) -> Schedule:
    """Return the schedule with steps cut in two until what `make` makes of each has not too many commands.

    Of steps whose `key` is equal it makes the same. Steps beside one that is cut run one after another, as
    its parts do. Raises what `make` raises for a step that cannot be cut.
    """
    cut = _Cut(key, make)
    parts = {i: cut.parts(step) for i, step in enumerate(schedule.steps) if _may_be_large(step)}
    if all(len(each) == 1 for each in parts.values()):
        return schedule
    steps: list[Step] = []
    moments: list[int] = []
    for _, group in groupby(enumerate(schedule.moments or range(len(schedule.steps))), lambda x: x[1]):
        numbers = [i for i, _ in group]
        whole = [part for i in numbers for part in parts.get(i, [schedule.steps[i]])]
        first = moments[-1] + 1 if moments else 0
        together = len(whole) == len(numbers)
        moments += [first if together else first + i for i in range(len(whole))]
        steps += whole
    return replace(schedule, steps=steps, moments=moments if schedule.moments else [])


@dataclass
class _Cut:
    """Cuts steps; `large` has the keys of those that were too large: a model's layers repeat them."""

    key: Callable[[Step], Hashable]
    make: Callable[[Step], object]
    large: set[Hashable] = field(default_factory=set)

    def parts(self, step: Step) -> list[Step]:
        """Return the parts of a step for which blocks of few commands do."""
        parts = list(islice(self._fitting(step), MOST_PARTS + 1))
        if len(parts) > MOST_PARTS:
            raise TooLarge(
                f"{step.kernel}: takes more than {MOST_PARTS} launches, a block has at most {MOST_COMMANDS} "
                "commands; make the problem smaller (a smaller batch, say)"
            )
        return parts

    def _fitting(self, step: Step) -> Iterator[Step]:
        key = self.key(step)
        parts = halves(step) if key in self.large or _macs(step) > LARGE_MACS else []
        if not parts:
            try:
                with at_most(CUT_COMMANDS):
                    self.make(step)
            except TooLarge:
                self.large.add(key)
                parts = halves(step)
                if not parts:
                    self.make(step)
        for part in parts:
            yield from self._fitting(part)
        if not parts:
            yield step


def _may_be_large(step: Step) -> bool:
    """Return whether a step multiplies or moves so much that a block of it may have many commands."""
    streamed = kernel_of(step).streamed(step.inputs, step.outputs)
    sizes = [v.type.size for v in (*streamed, *step.outputs)]
    return _macs(step) > SMALL_MACS or max(sizes, default=0) > SMALL_ELEMENTS


def halves(step: Step) -> list[Step]:
    """Return two steps that do what one does, each some part of the results; [] for what cannot be cut."""
    parts = kernel_of(step).halves(Portion(step.inputs, step.outputs, dict(step.params)))
    return [
        replace(step, inputs=p.inputs, outputs=p.outputs, params=tuple(sorted(p.params.items())))
        for p in parts
    ]


def _macs(step: Step) -> int:
    return kernel_of(step).macs(dict(step.params))
