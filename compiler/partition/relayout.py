"""From one layout of a value to another: which collectives that takes, and in which order."""

from __future__ import annotations

from dataclasses import dataclass

from ..ops.layout import Axes, Layout


@dataclass(frozen=True)
class Move:
    """One step from a layout to another: an op among ranks along `axes`, or a rank's own part ("part").

    `dim` is the dimension that is gathered, scattered or cut, `join` that along which an exchange joins.
    """

    op: str
    axes: Axes
    dim: int = 0
    join: int = 0


COST = {"part": 0.001, "all_to_all": 1.0, "all_gather": 1.0, "reduce_scatter": 1.0, "all_reduce": 2.0}


def moves(have: Layout, want: Layout) -> tuple[Move, ...]:
    """Return the steps from a layout to another of the same value, in order.

    Sums that are owed and not wanted are paid first, by scattering them where a dimension is to be split over
    their axes. Axes that pass from a dimension to another are exchanged; else they are gathered, from
    the fastest on, and cut. Raises `ValueError` where a sum would have to be owed anew.
    """
    if set(want.sums) - set(have.sums):
        raise ValueError(f"{have} cannot come to owe a sum as {want} does")
    steps, dims = _paid(have, want)
    extra = [dims[i][_common(dims[i], axes) :] for i, axes in enumerate(want.dims)]
    lacking = [axes[_common(dims[i], axes) :] for i, axes in enumerate(want.dims)]
    for i, axes in enumerate(extra):
        j = next((j for j, other in enumerate(lacking) if axes and other == axes and i != j), None)
        if j is not None and not extra[j]:
            steps.append(Move("all_to_all", axes, j, i))
            extra[i], lacking[j] = (), ()
    steps += [Move("all_gather", axes, i) for i, axes in enumerate(extra) if axes]
    steps += [Move("part", axes, i) for i, axes in enumerate(lacking) if axes]
    return tuple(steps)


def _paid(have: Layout, want: Layout) -> tuple[list[Move], list[Axes]]:
    """Return the steps that pay the sums which are not wanted, and the dimensions as they leave them.

    Where dimensions are to be split over some of the axes, these are scattered first: what is left to sum is
    smaller.
    """
    dims, steps = list(have.dims), list[Move]()
    owed = tuple(axis for axis in have.sums if axis not in want.sums)
    for i, axes in enumerate(want.dims):
        new = axes[len(dims[i]) :]
        if axes[: len(dims[i])] == dims[i] and new and set(new) <= set(owed):
            dims[i] = axes
            steps.append(Move("reduce_scatter", new, i))
            owed = tuple(axis for axis in owed if axis not in new)
    return [*steps, *([Move("all_reduce", owed)] if owed else [])], dims


def _common(one: Axes, other: Axes) -> int:
    """Return how many axes two dimensions begin with alike."""
    count = 0
    while count < min(len(one), len(other)) and one[count] == other[count]:
        count += 1
    return count


def cost(steps: tuple[Move, ...]) -> float:
    """Return a rank among ways to the same layout: the fewer and lighter collectives, the lower."""
    return sum(COST[step.op] for step in steps)
