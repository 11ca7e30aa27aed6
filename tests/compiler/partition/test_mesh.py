"""Meshes: how they are spelt, what is refused, and where ranks stand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mtia_emu.compiler.partition.mesh import Mesh, parse_parallel

from mtia_emu.errors import UserError


@pytest.mark.parametrize(
    "text",
    [
        "tp=8",
        "pp=2,dp=2,tp=4,mb=4",
        "tp=2,sp",
        "dp=4,tables=row",
        "ep=2,dispatch",
        "dp=2,bucket=25MiB",
        "pp=2,stages=time",
        "dp=2,bucket=1536KiB",
    ],
)
def test_a_mesh_is_spelt_as_it_is_read(text: str) -> None:
    mesh = parse_parallel(text)
    assert parse_parallel(str(mesh)) == mesh


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tq=2", "unknown axis of --parallel 'tq'"),
        ("tp=0", "no size of 1 or more"),
        ("tp=two", "no size of 1 or more"),
        ("tp", "no size of 1 or more"),
        ("tp=2,tp=4", "gives tp twice"),
        ("sp", "it goes with tp"),
        ("tp=2,sp,sp", "gives sp twice"),
        ("tp=2,sp=1", "sp has no value"),
        ("dp=2,tables=row,tables=column", "gives tables twice"),
        ("pp=2,tables=row", r"split over dp or tp, of which there is none \(right: dp=2,tables=row"),
        ("auto,tp=2", "auto stands alone"),
        ("dp=2,tables=rows", "unknown tables 'rows'"),
        ("tp=64,dp=128", "ranks and micro-batches"),
        ("dp=2,dispatch", "rows go to experts over ep"),
        ("ep=2,dispatch=1", "dispatch has no value"),
        ("dp=2,stages=time", "it goes with pp"),
        ("pp=2,stages=bytes", "unknown stages 'bytes'"),
        ("dp=2,bucket=25", "bucket=25: no size"),
        ("dp=2,bucket=0MiB", "bucket=0MiB: no size"),
        ("dp=2,bucket=-1MiB", "bucket=-1MiB: no size"),
        ("dp=2,bucket=nanMiB", "no size"),
        ("tp=-1", "no size of 1 or more"),
        ("vp=2", r"stages of a chip in a pipeline \(right: pp=2,vp=2"),
        ("pp=2,vp=0", "no size of 1 or more"),
        ("", "unknown axis of --parallel ''"),
    ],
)
def test_what_is_no_mesh_is_refused(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        parse_parallel(text)


SIZES = st.fixed_dictionaries({name: st.integers(1, 4) for name in ("pp", "dp", "cp", "tp", "mb")})


@given(SIZES)
def test_every_rank_stands_somewhere_and_chips_are_shared_by_micro_batches_alone(
    sizes: dict[str, int],
) -> None:
    mesh = Mesh(sizes)
    assert [mesh.number(place) for place in mesh.ranks] == list(range(len(mesh.ranks)))
    chips = [mesh.chip(s, r) for s in range(mesh.stages) for r in range(len(mesh.ranks))]
    assert sorted(set(chips)) == list(range(mesh.chips))
    assert len(chips) == mesh.chips * mesh.batches


@given(SIZES)
def test_groups_along_axes_divide_the_ranks(sizes: dict[str, int]) -> None:
    mesh = Mesh(sizes)
    axes = (*mesh.axes("dp"), *mesh.axes("tp"))
    groups = {mesh.group(place, axes) for place in mesh.ranks}
    assert sorted(rank for group in groups for rank in group) == list(range(len(mesh.ranks)))
    assert {len(group) for group in groups} == {sizes["dp"] * sizes["tp"]}


def test_ranks_of_tp_are_neighbours() -> None:
    mesh = parse_parallel("pp=2,dp=2,tp=4")
    place = mesh.ranks[0]
    assert [mesh.chip(1, r) for r in mesh.group(place, mesh.axes("tp"))] == [8, 9, 10, 11]
    assert [mesh.chip(0, r) for r in mesh.group(place, mesh.axes("dp"))] == [0, 4]


def test_an_axis_is_named_by_its_prime_factors_the_largest_first() -> None:
    assert parse_parallel("tp=12").factors["tp"] == (("tp.0", 3), ("tp.1", 2), ("tp.2", 2))
    assert parse_parallel("tp=5").factors["tp"] == (("tp", 5),)


def test_a_chip_has_every_so_and_so_many_th_stage() -> None:
    mesh = parse_parallel("pp=2,vp=3,tp=2")
    assert (mesh.chips, mesh.stages, mesh.each, str(mesh)) == (4, 6, 2, "pp=2,tp=2,vp=3")
    assert [mesh.chip(stage, 1) for stage in range(mesh.stages)] == [1, 3, 1, 3, 1, 3]
