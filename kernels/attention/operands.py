"""What attention is called with: its operands, and what is done to scores before their softmax."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mtia_emu.program.isa import Operand

from ..rows.tape import Source, Tape


@dataclass(frozen=True)
class AttentionOperands:
    """The operands of softmax(tape(q k^T, extras)) v.

    q is [groups, heads, queries, dim], k [groups, dim, keys], v [groups, keys, value dim], out as q with the
    values' dim; extras are views of [groups, heads, queries, keys]. Groups may be several dimensions.

    `total`, where it is asked for, gets the logarithm of each row's sum of powers. Where keys are taken in
    parts, out is [groups, parts, heads, queries, value dim], and `total`, an fp32 of
    as many rows, gets the logarithm of each row's sum of powers: by the softmax of these over the parts the
    results are to be weighed. A part with all its keys hidden gives zeros.
    """

    q: Operand
    k: Operand
    v: Operand
    out: Operand
    extras: tuple[Operand, ...] = ()
    total: Operand | None = None


@dataclass(frozen=True)
class ScoreTape:
    """What is done to scores before their softmax: a tape of the score and the extras.

    `mask` is the input of the tape that hides keys beyond the diagonal and changes no others; 0 for none. A
    `guarded` row with all its keys hidden gives zeros; else it gives what the division by its sum, 0, gives.
    """

    tape: Tape
    mask: int = 0
    guarded: bool = False

    def plain(self) -> Tape:
        """Return the tape where the mask changes nothing: without the step that applies it."""
        if not self.mask:
            return self.tape
        at = next(i for i, s in enumerate(self.tape.steps) if self.mask in s.sources)
        step = self.tape.steps[at]
        kept = step.sources[1] if step.function == "where" else step.sources[step.sources[0] == self.mask]

        def moved(source: Source) -> Source:
            if isinstance(source, float) or source >= 0 or ~source < at:
                return source
            return kept if ~source == at else source + 1

        steps = self.tape.steps[:at] + self.tape.steps[at + 1 :]
        steps = tuple(replace(s, sources=tuple(map(moved, s.sources))) for s in steps)
        return Tape(self.tape.inputs, steps, tuple(map(moved, self.tape.results)))
