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
class Routed:
    """How the commands of a block follow its operand `operand`, a table int32[turns, 2].

    A turn has an expert and so many of its rows, none at the end of a table that is not full. `commands` are
    those before the table is read; `turn`, [command], is the turn that each is a part of, -1 for none, and
    `first`, [command], the row of the turn at which its tile begins. `strides` are, for operands that hold
    something of every expert, the operand and the rows that an expert has in it. `table` is the one for which
    the block's own commands stand.
    """

    operand: int
    experts: int
    strides: tuple[tuple[int, int], ...]
    commands: Array = field(repr=False)
    turn: Array = field(repr=False)
    first: Array = field(repr=False)
    table: Array = field(repr=False)

    def with_more(self, commands: Array) -> Routed:
        """Return it with commands [n] behind all others that are part of no turn."""
        none, n = np.full(len(commands), -1), len(self.commands)
        both = np.zeros(n + len(commands), self.commands.dtype)
        both[:n], both[n:] = self.commands, commands
        turn, first = np.append(self.turn, none), np.append(self.first, none)
        return replace(self, commands=both, turn=turn, first=first)

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
        inside = self.turn >= 0
        left = np.where(inside, table[self.turn, ROWS] - self.first, 1)
        kept = left > 0
        commands, inside, left = self.commands[kept], inside[kept], left[kept]
        expert = table[self.turn[kept], EXPERT]
        shared = np.zeros(len(commands), bool)
        for operand, rows in self.strides:
            at = inside & (commands["operand"] == operand) & ~shared
            commands["row"][at] += (expert * rows)[at].astype(np.int32)
            shared |= at
        clipped = inside & ~shared
        commands["rows"][clipped] = np.minimum(commands["rows"], left)[clipped]
        return commands
