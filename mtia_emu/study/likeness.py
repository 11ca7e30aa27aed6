"""Which of the commands that made a wrong tile is unlike those that made right ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
_SAME = ("op", "fn", "flags", "cast", "operand", "operand2", "rows", "cols", "k", "imm")
_PLACES = ("row", "col", "row2", "col2")


def unlike(
    commands: Array, chain: Sequence[int], feeds: Sequence[set[int]], right: Sequence[Sequence[int]]
) -> int | None:
    """Return the first command of a chain, of commands[n], that has no like in its place in a right chain.

    A chain is what a tile of a result is made by, the command that writes it last. Only right chains of as
    many commands that end in a tile of the same size are compared. A place in an operand is alike where it is
    the same, or the same relative to the tile. A hint, not a proof: None where all are alike, or where there
    is nothing to compare with.
    """
    last = commands[chain[-1]]
    peers = [
        peer
        for peer in right
        if len(peer) == len(chain) and all(commands[peer[-1]][n] == last[n] for n in ("op", "rows", "cols"))
    ]
    for place, index in enumerate(chain):
        mine = _facts(commands, chain, place, feeds)
        if peers and not any(_alike(mine, _facts(commands, peer, place, feeds)) for peer in peers):
            return index
    return None


def _facts(
    commands: Array, chain: Sequence[int], place: int, feeds: Sequence[set[int]]
) -> tuple[Any, list[tuple[int, int, int]]]:
    """Return what one of commands[n] is, where in the chain its operands come from, and its places."""
    c, last = commands[chain[place]], commands[chain[-1]]
    number = {index: at for at, index in enumerate(chain)}
    made_by = tuple(sorted(number[i] for i in feeds[chain[place]]))
    places = [(int(c[n]), int(c[n]) - int(last["row"]), int(c[n]) - int(last["col"])) for n in _PLACES]
    return ([c[n].item() for n in _SAME], made_by), places


def _alike(mine: tuple[Any, Any], other: tuple[Any, Any]) -> bool:
    return mine[0] == other[0] and all(
        any(a == b for a, b in zip(one, two, strict=True)) for one, two in zip(mine[1], other[1], strict=True)
    )
