"""A service level: what each request is promised, and of how many that must hold."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError, refuse_unknown
from .record import Log

LIMITS = ("ttft", "tpot", "e2e")


@dataclass(frozen=True)
class ServiceLevel:
    """Limits in seconds, infinite where there is none, and the share of requests that must keep them."""

    ttft: float = math.inf
    tpot: float = math.inf
    e2e: float = math.inf
    share: float = 0.99

    def __post_init__(self) -> None:
        for name in LIMITS:
            if not getattr(self, name) > 0:  # not a number, too
                raise UserError(f"service level: {name} is {getattr(self, name)} s; right is more than 0")
        if not 0 < self.share <= 1:
            raise UserError(f"service level: share is {self.share}; right is more than 0, at most 1")

    def kept(self, log: Log) -> NDArray[np.bool_]:
        """Return for each request whether all limits were kept.

        A request of one token has no time per token.
        """
        tpot = np.nan_to_num(log.tpot_s, nan=0.0)
        return (log.ttft_s <= self.ttft) & (tpot <= self.tpot) & (log.e2e_s <= self.e2e)

    def __str__(self) -> str:
        limits = ", ".join(f"{n} {getattr(self, n):g} s" for n in LIMITS if math.isfinite(getattr(self, n)))
        return limits or "no limit"


def parse_level(text: str) -> ServiceLevel:
    """Return the level of a text like `ttft=0.5,tpot=0.05,share=0.9`."""
    known = [field.name for field in fields(ServiceLevel)]
    values: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = part.partition("=")
        if name.strip() not in known:
            raise refuse_unknown("limit", name.strip(), known)
        try:
            values[name.strip()] = float(number)
        except ValueError:
            raise UserError(
                f"service level: {part.strip()[:40]!r} has no number; right is like ttft=0.5"
            ) from None
    if not values.keys() & set(LIMITS):
        raise UserError(f"service level: no limit; right is one of {', '.join(LIMITS)}, in seconds")
    return ServiceLevel(**values)
