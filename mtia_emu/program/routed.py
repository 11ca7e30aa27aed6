"""Commands that follow a table of turns: products with the experts that rows are routed to.

Which experts a run needs, and for how many rows, only data tell. A block that follows such a table has its
commands twice: as they stand before the table is read, and as they are for one table. The second form is a
list of commands like any other; it is what is timed, priced, drawn and executed.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..errors import UserError

Array = np.ndarray[Any, Any]
EXPERT, ROWS = 0, 1  # the columns of a table of turns


@dataclass(frozen=True, eq=False)
class Marks:
    """Of which turns commands are, [command] each.

    `turn` is the turn that a command is a part of, -1 for none, and `first` the row of the turn at which its
    tile begins. `whole` is true where a command's rows are those of the expert's own, as weights have them:
    it has all of them in a turn with rows from `first` on, and is not there in another.
    """

    turn: Array = field(repr=False)
    first: Array = field(repr=False)
    whole: Array = field(repr=False)

    def of_no_turn(self, more: int) -> Marks:
        """Return them with those of `more` commands behind, which are part of no turn."""
        none = np.full(more, -1)
        turn, first = np.append(self.turn, none), np.append(self.first, none)
        return Marks(turn, first, np.append(self.whole, np.zeros(more, bool)))


@dataclass(frozen=True, eq=False)
class Routed:
    """How the commands of a block follow its operand `operand`, a table int32[turns, 2].

    A turn has an expert and so many of its rows, none at the end of a table that is not full. `commands` are
    those before the table is read, and `marks` say of which turns. `strides` are, for operands that hold
    something of every expert, the operand and the rows that an expert has in it. `table` is the one for which
    the block's own commands stand.
    """

    operand: int
    experts: int
    strides: tuple[tuple[int, int], ...]
    commands: Array = field(repr=False)
    marks: Marks = field(repr=False)
    table: Array = field(repr=False)

    def with_more(self, commands: Array) -> Routed:
        """Return it with commands [n] behind all others that are part of no turn."""
        n = len(self.commands)
        both = np.zeros(n + len(commands), self.commands.dtype)
        both[:n], both[n:] = self.commands, commands
        return replace(self, commands=both, marks=self.marks.of_no_turn(len(commands)))

    def followed(self, table: Array) -> Array:
        """Return the commands for a table int32[turns, 2]: those of rows that are there, of their experts.

        Raises `UserError` for a table that names an expert that there is not, or a negative count.
        """
        wrong = (table[:, ROWS] < 0) | ((table[:, EXPERT] < 0) | (table[:, EXPERT] >= self.experts))
        if wrong.any():
            turn = int(np.argmax(wrong))
            raise UserError(
                f"turn {turn} has {table[turn, ROWS]} rows of expert {table[turn, EXPERT]}; right: experts "
                f"0 to {self.experts - 1}"
            )
        inside = self.marks.turn >= 0
        left = np.where(inside, table[self.marks.turn, ROWS] - self.marks.first, 1)
        kept = left > 0
        commands, inside, left = self.commands[kept], inside[kept], left[kept]
        expert, whole = table[self.marks.turn[kept], EXPERT], self.marks.whole[kept]
        for operand, rows in self.strides:
            at = inside & whole & (commands["operand"] == operand)
            commands["row"][at] += (expert * rows)[at].astype(np.int32)
        clipped = inside & ~whole
        commands["rows"][clipped] = np.minimum(commands["rows"], left)[clipped]
        return commands
