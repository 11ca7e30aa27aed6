"""What joules are of: a chip with its memory, the board around it, or its share of a server."""

from __future__ import annotations

from dataclasses import dataclass

from ..options import BOARD, CHIP, SERVER


@dataclass(frozen=True)
class Around:
    """What stands around a machine, by which its joules are brought to a basis.

    `native` is what its own joules are of. `regulator_share` is lost in the board's regulators, of what chip
    and memory take; `board_w` and, for `machines` of a server together, `server_w` flow all the time.
    `host_bytes_per_s` is the link to the host, each way; 0 where it is not known.
    """

    native: str
    regulator_share: float
    board_w: float
    machines: int
    server_w: float
    host_bytes_per_s: float = 0.0

    def joules(self, own: float, seconds: float, basis: str) -> float:
        """Return the joules on a basis of a run that takes so many of its own."""
        fixed = self.board_w * seconds
        chip = own if self.native == CHIP else max(0.0, own - fixed) / (1 + self.regulator_share)
        if basis == CHIP:
            return chip
        board = own if self.native == BOARD else chip * (1 + self.regulator_share) + fixed
        return board if basis == BOARD else board + self.server_w / self.machines * seconds


@dataclass(frozen=True)
class Published:
    """What its maker publishes of performance per watt beside a GPU, over its models, and where."""

    low: float
    mean: float
    high: float
    text: str


HOLDS = {
    CHIP: "the chip and its memory",
    BOARD: "chip, memory and the board's regulators",
    SERVER: "chip, memory, board and a share of the server's host, network and fans",
}
LEAVES = {
    CHIP: "regulators, host, network and cooling",
    BOARD: "host, network and cooling",
    SERVER: "the building's cooling, and idle time",
}
