"""Reports on many chips that differ in a parameter or two: of one program, or of its model compiled anew.

All chips are asked about one block before the next, so that what they have in common is done once and let go.
A new program's blocks that the first one has too are such blocks; its others are timed when it is compiled.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, TypeVar

import numpy as np

from mtia_emu.compiler.pipeline import compile_graph

from ..engine.cost import BlockCost, cost
from ..engine.launches import Counts, Key, kept_cost, part
from ..engine.lookups import Lookups
from ..engine.power import slower
from ..engine.timing import check_fits
from ..engine.variants import Variants
from ..errors import UserError
from ..machine.chip import Chip
from ..program.census import looks_up
from ..program.deferred import Deferred
from ..program.isa import Block, Program
from ..results.report import Report
from ..reuse.memo import Memo, Memoise
from .accelerator import Accelerator, Asks, GraphModel, ProgramRun
from .tuning import tuning

Array = np.ndarray[Any, Any]
T = TypeVar("T")
Tick = Callable[[int, int], None]
PASSES = ("own", "count", "suit")  # stages whose results serve for many chips: they read little of them


@dataclass
class Question:
    """A report that is asked for; the costs on `chip` are wanted next.

    Those of `shared` launches are of blocks of the first program, `own` gives those of the others on a chip.
    `costs` are those of all launches, by clock, as far as they are known. In the end there is a `report`, or
    it is `refused`.
    """

    chip: Chip
    asks: Asks
    shared: Mapping[int, Key]
    own: Callable[[Chip], Mapping[int, BlockCost]]
    costs: dict[float, list[BlockCost]] = field(default_factory=dict)
    report: Report | None = None
    refused: UserError | None = None

    @cached_property
    def keys(self) -> frozenset[Key]:
        """Return the first program's blocks whose costs are wanted."""
        return frozenset(self.shared.values())

    @property
    def open(self) -> bool:
        """Return whether costs are still wanted."""
        return self.report is None and self.refused is None

    def tell(self, known: Mapping[Key, BlockCost]) -> None:
        """Go on with the costs of the shared blocks on `chip`."""
        try:
            each = {**{index: known[key] for index, key in self.shared.items()}, **self.own(self.chip)}
            self.costs[self.chip.clock_hz] = [each[index] for index in sorted(each)]
            self.chip = self.asks.send(self.costs[self.chip.clock_hz])
        except StopIteration as done:
            self.report = done.value
        except UserError as error:
            self.refused = error


class WhatIf:
    """A program and what is asked of it on many chips; `model` is what it was compiled from."""

    def __init__(
        self, program: Program, chip: Chip, lookups: Mapping[int, Lookups], model: GraphModel | None = None
    ) -> None:
        self._run, self._model, self._memo = ProgramRun(program, lookups), model, Memo()
        self._grid = part(program, chip).grid
        self._counts = Counts(program, chip, lookups)
        self._keys = {index: self._counts.key(index) for index in range(len(program.launches))}
        self._first = {key: index for index, key in reversed(self._keys.items())}
        self._alike = defaultdict[Hashable, list[Key]](list)
        for key in self._first:
            self._alike[_kind(program.blocks[key[0]], key)].append(key)

    def same(self, chip: Chip) -> Question:
        """Return the question for the report of the very program on a chip."""
        asks = Accelerator(chip).asks(self._run)
        return Question(next(asks), asks, self._keys, lambda _: {})

    def anew(self, chip: Chip) -> Question:
        """Return the question for the report of the model compiled for a chip; raise what refuses it."""
        run = self._compiled(chip)
        shared = self._shared(run, chip)
        own = _Own(chip, run, shared, lambda: self._compiled(chip))
        program = replace(run.program, blocks=tuple(map(_bare, run.program.blocks)))
        asks = Accelerator(chip).asks(replace(run, program=program))
        question = Question(next(asks), asks, shared, own.on)
        while question.open and not shared:  # nothing to wait for
            question.tell({})
        own.let_go(chip)
        return question

    def answer(self, questions: Sequence[Question], tick: Tick | None = None) -> None:
        """Answer questions: block by block, and again for those that ask for another clock."""
        while still := [x for x in questions if x.open]:
            known: dict[int, dict[Key, BlockCost]] = {id(x): {} for x in still}
            for number, key in enumerate(self._first):
                if tick is not None:
                    tick(number, len(self._first))
                asking = [x for x in still if key in x.keys]
                chips = [x.chip for x in asking]
                each = _costs(self._run.program, self._counts, self._first[key], chips) if asking else ()
                for question, cost_there in zip(asking, each, strict=True):
                    known[id(question)][key] = cost_there
            for question in still:
                question.tell(known[id(question)])
            tick = None

    def _compiled(self, chip: Chip) -> ProgramRun:
        """Return the model compiled for a chip, with the rows that it looks up."""
        if self._model is None:
            raise UserError(f"{self._run.model} is compiled: there is no model to compile for another chip")
        model, search = self._model, tuning(self._model.options)
        found = compile_graph(
            model.graph,
            chip,
            about=model.about,
            tuning=replace(search, memoise=_passes_in(self._memo, search.memoise)),
            fused=model.fused,
            options=model.options,
        )
        return ProgramRun(found.program, model.lookups(found.program))

    def _shared(self, run: ProgramRun, chip: Chip) -> dict[int, Key]:
        """Return the launches of another program whose blocks the first has too, and which those are."""
        program = run.program
        if part(program, chip).grid != self._grid:
            return {}
        counts, found = Counts(program, chip, run.lookups), dict[Key, Key | None]()
        for index in range(len(program.launches)):
            key = counts.key(index)
            if key not in found:
                block = program.blocks[key[0]]
                alike = self._alike.get(_kind(block, key), ()) if key[1] < 0 and not looks_up(block) else ()
                found[key] = next((x for x in alike if self._same_commands(block, x)), None)
        keys = {index: found[counts.key(index)] for index in range(len(program.launches))}
        return {index: key for index, key in keys.items() if key is not None}

    def _same_commands(self, block: Block, key: Key) -> bool:
        first = self._run.program.blocks[key[0]]
        if isinstance(block, Deferred) and isinstance(first, Deferred):
            return block.known.content == first.known.content
        return np.array_equal(_words(block.commands), _words(first.commands))


class _Own:
    """What the launches cost, on a chip at its clocks, of a program for it: of all but the shared ones."""

    def __init__(
        self, chip: Chip, run: ProgramRun, shared: Collection[int], again: Callable[[], ProgramRun]
    ) -> None:
        self._chip, self._shared, self._again = chip, shared, again
        self._run: ProgramRun | None = run
        self._known: dict[float, dict[int, BlockCost]] = {}

    def on(self, now: Chip) -> Mapping[int, BlockCost]:
        """Return the costs at one clock, by launch."""
        if now.clock_hz not in self._known:
            run, chips = self._run or self._again(), [now] if now == self._chip else [now, slower(now)]
            for chip, found in zip(chips, _own_costs(run, chips, self._shared), strict=True):
                self._known[chip.clock_hz] = found
        return self._known[now.clock_hz]

    def let_go(self, chip: Chip) -> None:
        """Let the program go, whose commands take memory, after it was timed: few are asked about again."""
        self.on(chip)
        self._run = None


def _own_costs(run: ProgramRun, chips: Sequence[Chip], shared: Collection[int]) -> list[dict[int, BlockCost]]:
    """Return what a program's launches cost on chips, all but the shared ones."""
    program = run.program
    counts, seen = Counts(program, chips[0], run.lookups), dict[Key, list[BlockCost]]()
    out: list[dict[int, BlockCost]] = [{} for _ in chips]
    for index in range(len(program.launches)):
        if index in shared:
            continue
        key = counts.key(index)
        if key not in seen:
            seen[key] = list(_costs(program, counts, index, chips))
        for costs, found in zip(out, seen[key], strict=True):
            costs[index] = found
    return out


def _costs(program: Program, counts: Counts, index: int, chips: Sequence[Chip]) -> Iterator[BlockCost]:
    """Yield what a launch of a program costs on each of some chips on which the caches serve the same."""
    key, here = counts.key(index), [part(program, chip) for chip in chips]
    block, made = program.blocks[key[0]], list[Variants]()

    def worked_out(chip: Chip) -> BlockCost:
        if len(here) == 1:
            check_fits(block, chip)
            return cost(block, chip, counts.of(index)).untimed()
        if not made:
            check_fits(block, chip)
            made.append(Variants(block, chip, lambda there: counts.on(index, there)))
        return made[0].cost(chip)

    for chip in here:
        yield kept_cost(program, key, chip, partial(worked_out, chip))


def _kind(block: Block, key: Key) -> Hashable:
    """Return what a block's cost depends on beside its commands and the chip."""
    size = block.size, block.scratch_bytes, block.stages, block.scalar, block.bands
    return key[1:], block.kernel, block.operands, block.slots, size


def _words(commands: Array) -> Array:
    """Return commands as plain numbers: they are compared field by field otherwise, which takes long."""
    return np.ascontiguousarray(commands).view(np.uint64)


def _bare(block: Block) -> Block:
    """Return a block without its commands, which take memory and which no report asks for."""
    if isinstance(block, Deferred):
        return block
    return replace(block, commands=block.commands[:0].copy(), routed=None)


def _passes_in(memo: Memoise, through: Memoise) -> Memoise:
    """Return what keeps results of `PASSES` in memory, and of all else where it is kept anyway."""

    def memoise(
        kind: str, key: Hashable, chip: Chip, work: Callable[[Chip], T], *, decides: bool = False
    ) -> T:
        return (memo if kind in PASSES else through)(kind, key, chip, work, decides=decides)

    return memoise
