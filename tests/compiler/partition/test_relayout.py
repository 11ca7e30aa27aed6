"""From any layout to any other: the steps are few, and lead there."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mtia_emu.compiler.ops.layout import Layout
from mtia_emu.compiler.partition.lockstep import combined
from mtia_emu.compiler.partition.mesh import Mesh
from mtia_emu.compiler.partition.ranks import part_of
from mtia_emu.compiler.partition.relayout import Move, cost, moves

MESH = Mesh({"dp": 2, "tp": 6})
AXES = ("dp", "tp.0", "tp.1")


@st.composite
def layouts(draw: st.DrawFn, sums: bool = False) -> Layout:
    dims: list[tuple[str, ...]] = [(), ()]
    owed = []
    for axis in draw(st.permutations(AXES)):
        at = draw(st.integers(0, 3 if sums else 2))
        if at < 2:
            dims[at] = (*dims[at], axis)
        elif at == 3:
            owed.append(axis)
    return Layout(tuple(dims)).owing(owed)


def held(array: np.ndarray, layout: Layout) -> list[np.ndarray]:
    """Return what each rank has of a value: of a sum that is owed, the first has the whole."""
    parts = [part_of(array, layout, place, MESH) for place in MESH.ranks]
    return [
        np.zeros_like(x) if any(place[a] for a in layout.sums) else x
        for x, place in zip(parts, MESH.ranks, strict=True)
    ]


def moved(parts: list[np.ndarray], move: Move) -> list[np.ndarray]:
    out: list[np.ndarray] = [parts[0]] * len(parts)
    for rank, place in enumerate(MESH.ranks):
        group = MESH.group(place, move.axes)
        if move.op == "part":
            out[rank] = np.split(parts[rank], len(group), axis=move.dim)[MESH.index(place, move.axes)]
        else:
            got = combined(move.op, [[parts[r]] for r in group], {"dim": move.dim, "join": move.join})
            out[rank] = got[group.index(rank)]
    return out


@given(layouts(sums=True), layouts())
def test_the_steps_lead_from_a_layout_to_another(have: Layout, want: Layout) -> None:
    whole = np.arange(24.0 * 24).reshape(24, 24)
    parts = held(whole, have)
    for move in moves(have, want):
        parts = moved(parts, move)
    for got, right in zip(parts, held(whole, want), strict=True):
        np.testing.assert_array_equal(got, right)


@pytest.mark.parametrize(
    ("have", "want", "ops"),
    [
        (Layout((("tp.0",), ())), Layout((("tp.0",), ())), []),
        (Layout(((), ())), Layout((("tp.0",), ())), ["part"]),
        (Layout((("tp.0",), ())), Layout(((), ())), ["all_gather"]),
        (Layout((("tp.0",), ())), Layout(((), ("tp.0",))), ["all_to_all"]),
        (Layout(((), ()), ("tp.0",)), Layout(((), ())), ["all_reduce"]),
        (Layout(((), ()), ("tp.0",)), Layout((("tp.0",), ())), ["reduce_scatter"]),
        (Layout(((), ()), ("ep", "tp.0")), Layout((("ep",), ())), ["reduce_scatter", "all_reduce"]),
        (Layout((("dp",), ()), ("tp.0",)), Layout(((), ())), ["all_reduce", "all_gather"]),
        (Layout((("dp", "tp.0"), ())), Layout((("dp",), ())), ["all_gather"]),
    ],
)
def test_each_way_takes_the_collective_that_is_made_for_it(
    have: Layout, want: Layout, ops: list[str]
) -> None:
    assert [move.op for move in moves(have, want)] == ops


def test_a_sum_that_is_paid_is_not_owed_again() -> None:
    with pytest.raises(ValueError, match="cannot come to owe"):
        moves(Layout(((),)), Layout(((),), ("dp",)))


def test_taking_a_part_is_the_cheapest_and_a_sum_the_dearest() -> None:
    part, gather = cost((Move("part", ("dp",)),)), cost((Move("all_gather", ("dp",)),))
    assert 0 == cost(()) < part < gather < cost((Move("all_reduce", ("dp",)),))
