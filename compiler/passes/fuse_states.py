"""Elementwise work of which several values are kept, as an optimiser's, as one kernel call."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from mtia_emu.kernels.rows.tape import Source, Tape, TapeStep, finish

from mtia_emu.types import FP32

from ..graph import Match, Node, Rewrite, Skip
from .base import Rule, Rules, building
from .fuse_maps import tape_of


@dataclass(frozen=True)
class FuseStates(Rules):
    """Fuse elementwise work with all that reads it, where some of it is an output: a step's next states.

    The next moments of a weight, the weight and its copy in fewer bits are each read and written once, by one
    kernel. Every value is rounded to its own type, whoever reads it: bits stay as they are. A fused node has
    at most `max_inputs` operands and `max_steps` steps.
    """

    max_inputs: int = 16
    max_steps: int = 64
    rounds: ClassVar[int] = 1  # what it makes, it does not match

    @property
    def rules(self) -> tuple[Rule, ...]:
        return (self._fuse,)

    def _fuse(self, node: Node, match: Match) -> Rewrite | Skip | None:
        if tape_of(node, match) is None or any(_alike(n, node, match) for n in match.users(node.output)):
            return None  # it joins what reads it, or nothing
        members = _members(node, match)
        kept = [m for m in members if m is node or match.is_output(m.output)]
        if len(kept) < 2:
            return None
        if _comes_back(node, members, match):
            return Skip("fused it would wait for what reads it")
        inputs, tape = _joined(members, kept, match)
        if len(inputs) > self.max_inputs or len(tape.steps) > self.max_steps:
            return Skip(f"fused it would have {len(inputs)} operands and {len(tape.steps)} steps")
        b = building(node, match)
        kinds = " ".join(m.type.dtype.name for m in kept)
        made = b.adds("maps", *inputs, fold=False, tape=str(tape), to=kinds)
        return b.rewrite({m.output: value for m, value in zip(kept, made, strict=True)})


def _alike(node: Node, other: Node, match: Match) -> bool:
    """Return whether a node is elementwise work of another's shape."""
    return node.type.shape == other.type.shape and tape_of(node, match) is not None


def _members(node: Node, match: Match) -> list[Node]:
    """Return the elementwise nodes of one shape that only each other read, from a node on, in order."""
    members, again = {node.name: node}, True

    def ends(reader: Node) -> bool:
        return reader.name in members or (
            _alike(reader, node, match) and all(r.name in members for r in match.users(reader.output))
        )

    while again:  # what is read by several joins with the last of them
        again = False
        for maker in [match.producer(value) for m in list(members.values()) for value in m.inputs]:
            if maker is None or maker.name in members or not _alike(maker, node, match):
                continue
            readers = match.users(maker.output)
            if all(map(ends, readers)):
                members |= {n.name: n for n in (*readers, maker)}
                again = True
    return _ordered(list(members.values()))


def _comes_back(node: Node, members: list[Node], match: Match) -> bool:
    """Return whether a member waits for a reader of the last node, the only one that others read."""
    own = {m.name for m in members}
    seen, waiting = set[str](), match.users(node.output)
    while waiting:
        reader = waiting.pop()
        if reader.name in own:
            return True
        if reader.name not in seen:
            seen.add(reader.name)
            waiting += [n for value in reader.outputs for n in match.users(value)]
    return False


def _ordered(members: list[Node]) -> list[Node]:
    """Return nodes so that each is behind those that it reads."""
    out, waiting = list[Node](), {m.output for m in members}
    while members:
        ready = next(m for m in members if waiting.isdisjoint(m.inputs))
        members.remove(ready)
        waiting.remove(ready.output)
        out.append(ready)
    return out


def _joined(members: list[Node], kept: list[Node], match: Match) -> tuple[list[str], Tape]:
    """Return operands and tape of nodes as one; what is kept are its results."""
    made = {m.output for m in members}
    names = list(dict.fromkeys(v for m in members for v in m.inputs if v not in made))
    known: dict[str, Source] = {name: index for index, name in enumerate(names)}
    steps: list[TapeStep] = []
    for member in members:
        tape = tape_of(member, match)
        assert tape is not None
        done, before = finish(tape, [member.type.dtype]), len(steps)
        steps += [
            replace(step, sources=tuple(_moved(s, before, member, known) for s in step.sources))
            for step in done.steps
        ]
        (last,) = (before + ~int(result) for result in done.results)
        narrow = member.type.dtype.is_float and member.type.dtype.bits < FP32.bits
        steps[last] = replace(steps[last], rounds=steps[last].rounds or narrow)
        known[member.output] = ~last
    return names, Tape(len(names), tuple(steps), tuple(known[m.output] for m in kept))


def _moved(source: Source, before: int, member: Node, known: dict[str, Source]) -> Source:
    """Return a source of a node's own tape in the joined one, which has `before` steps ahead of it."""
    if isinstance(source, float):
        return source
    return known[member.inputs[source]] if source >= 0 else source - before
