"""Caches that go from engines for prompts to engines that decode: how long, and over what."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import UserError

MOST_ENGINES = 4096


@dataclass(frozen=True)
class CachePath:
    """The way of a cache from one engine to another: `latency_s`, then its bytes at `bytes_per_s`.

    `links` are the numbers of what it passes. Each carries one cache after another, in the order of sending.
    """

    latency_s: float
    bytes_per_s: float
    links: tuple[int, ...]

    def seconds(self, size: int) -> float:
        """Return what a cache of so many bytes takes on free links."""
        return self.latency_s + size / self.bytes_per_s


@dataclass(frozen=True)
class Handover:
    """Separate engines for prompts: how many, and what brings their caches to the engines that decode.

    Without `paths`, each engine has a link of its own to all others, of this rate and latency. With them,
    paths[i][j] is the way from the i-th engine for prompts to the j-th that decodes; the rate is then that of
    the slowest one, the latency the longest.
    """

    engines: int
    bytes_per_s: float
    latency_s: float = 0.0
    paths: tuple[tuple[CachePath, ...], ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.engines <= MOST_ENGINES:
            raise UserError(f"{self.engines} engines for prompts; right are 1 to {MOST_ENGINES}")
        if not 0 < self.bytes_per_s < math.inf or not 0 <= self.latency_s < math.inf:
            raise UserError(
                f"caches are handed over at {self.bytes_per_s} bytes/s after {self.latency_s} s; right is a "
                "rate above 0 and a time of 0 or more"
            )

    @classmethod
    def over(cls, paths: tuple[tuple[CachePath, ...], ...]) -> Handover:
        """Return the handover over these paths, a row for each engine for prompts."""
        each = [path for row in paths for path in row]
        slowest = min(path.bytes_per_s for path in each)
        return cls(len(paths), slowest, max(path.latency_s for path in each), paths)

    def path(self, sender: int, receiver: int) -> CachePath:
        """Return the way from an engine for prompts to one that decodes."""
        if self.paths:
            return self.paths[sender][receiver]
        return CachePath(self.latency_s, self.bytes_per_s, (sender,))

    def check(self, decoding: int) -> None:
        """Raise `UserError` where paths lead to another number of engines that decode."""
        if any(len(row) != decoding for row in self.paths):
            raise UserError(f"paths lead to {len(self.paths[0])} engines; right is to all {decoding}")
