"""One order of adding for all numbers that are reported, whatever the version of Python."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from operator import add
from typing import TypeVar

N = TypeVar("N", int, float)


def add_up(values: Iterable[N]) -> N:
    """Return the sum of numbers, each added to those before it and rounded.

    Python's own `sum` does that up to 3.11; from 3.12 on it makes up for what rounding loses, so that the
    last digits of floats, and choices between what is nearly equal, would depend on the version.
    """
    return reduce(add, values, 0)
