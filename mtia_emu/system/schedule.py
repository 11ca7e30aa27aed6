"""A collective as rounds of sends between ranks: the one description that values and time are read from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray
SWITCH = -1  # as an end of a send: the switch that adds or copies


@dataclass(frozen=True)
class Round:
    """Sends that start together, an entry each: so many pieces, from the source's piece `at` to `to`.

    `adds` where what comes in is added to what is there, else it takes its place. What several ranks add to
    one piece is added in the order of ranks, the piece's own among them.
    """

    source: Array
    target: Array
    at: Array
    to: Array
    pieces: Array
    adds: bool

    def key(self) -> tuple[bytes, bytes, bytes, bool]:
        """Return what the time of the round follows from."""
        return self.source.tobytes(), self.target.tobytes(), self.pieces.tobytes(), self.adds


@dataclass(frozen=True)
class CollectiveSchedule:
    """Rounds, one after another, of a message that is cut into `pieces` equal pieces.

    Where they are `overlapped`, the message is large enough that its parts are in all rounds at once.
    """

    rounds: tuple[Round, ...]
    pieces: int
    overlapped: bool = False


def sends(
    ends: tuple[Array | int, Array | int], places: tuple[Array | int, Array | int], *, pieces: int = 1,
    adds: bool = False,
) -> Round:  # fmt: skip
    """Return a round of sends with (sources, targets) and pieces (from, to); one number stands for all."""
    parts = np.broadcast_arrays(*(np.asarray(x, np.int64) for x in (*ends, *places, pieces)))
    source, target, at, to, count = (np.ascontiguousarray(np.atleast_1d(part)) for part in parts)
    return Round(source, target, at, to, count, adds)
