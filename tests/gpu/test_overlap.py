"""Bags beside other kernels: what both take, and that no resource gives more than it has."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mtia_emu
from mtia_emu.gpu import load_gpu
from mtia_emu.gpu.overlap import stretches
from mtia_emu.options import Mode
from mtia_emu.types import FP16, BagWork, ModelWork, ProductWork, Work

GPU = load_gpu("h100-sxm")


def bag(lookups: int, before: int = 0, behind: int = 0) -> BagWork:
    sizes = {"lookups": lookups, "bags": 1024, "dim": 128, "rows": 10**8}
    moved = {"read_bytes": 256 * lookups, "write_bytes": 256 * 1024}
    return BagWork("bag", "bag", FP16, flops=0, before=before, behind=behind, **sizes, **moved)


def layer(m: int, n: int) -> ProductWork:
    moved = {"read_bytes": 2 * (m + n) * 512, "write_bytes": 2 * m * n}
    return ProductWork("mm", "matmul", FP16, batch=1, m=m, k=512, n=n, flops=0, **moved)


def both(bag_lookups: int, layers: list[Work]) -> tuple[object, object]:
    one, beside = (GPU.report(ModelWork((*layers, bag(bag_lookups, before)))) for before in (0, len(layers)))
    return one, beside


def test_a_bag_hides_behind_layers_that_it_does_not_need() -> None:
    apart, beside = both(20_000, [layer(512, 512), layer(512, 256), layer(512, 1024)])
    *dense, looked_up = apart.layers
    assert looked_up.span_s < sum(x.span_s for x in dense)
    assert beside.seconds == pytest.approx(sum(x.span_s for x in dense), rel=1e-3)
    assert [x.start_cycle for x in beside.layers if x.op == "bag"] == [0]
    assert sum(x.seconds for x in beside.layers) == pytest.approx(beside.seconds, rel=1e-3)
    assert beside.joules < apart.joules and beside.traffic == apart.traffic


@given(
    st.integers(1, 10**6), st.lists(st.builds(layer, st.integers(1, 4096), st.integers(1, 4096)), max_size=4)
)
def test_no_resource_gives_more_than_it_has(lookups: int, layers: list[Work]) -> None:
    apart, beside = both(lookups, layers)
    assert max(x.span_s for x in apart.layers) * 0.999 <= beside.seconds <= apart.seconds + 1e-9
    moved = beside.traffic.dram_read_bytes + beside.traffic.dram_write_bytes
    assert moved <= GPU.dram_bytes_per_s * beside.seconds * 1.001
    assert beside.joules <= GPU.tdp_w * beside.seconds * 1.001
    assert beside.joules >= GPU.idle_w * beside.seconds * 0.999


def test_one_stream_where_the_host_launches_or_nothing_is_fused() -> None:
    works = ModelWork((layer(512, 512), bag(20_000, 1)))
    for mode in (Mode("stream"), Mode(fused=False)):
        done = GPU.report(works, mode)
        assert done.layers[1].start_cycle == done.layers[0].end_cycle


def test_only_neighbours_run_beside_one_another() -> None:
    a, b = layer(8, 8), layer(16, 16)
    places = [(0, a), (1, b), (2, bag(9, 1)), (3, bag(9)), (4, a)]
    assert stretches([((i,), w) for i, w in places]) == [(1, 3)]
    places[2] = (2, bag(9, 2, 1))
    assert stretches([((i,), w) for i, w in places]) == [(0, 4)]
    assert stretches([((0,), bag(9)), ((1,), bag(9))]) == []
    assert stretches([((0, 1), a), ((2,), bag(9, 1))]) == []  # a group that goes beyond what is beside


def test_a_recommenders_bags_run_beside_its_dense_layers() -> None:
    program = mtia_emu.compile_model("zoo:dlrm-small", dims={"batch": 64})
    (found,) = [w for w in program.works if isinstance(w, BagWork)]
    assert (found.before, found.behind) == (2, 0)
    alone = [replace(w, before=0, behind=0) if isinstance(w, BagWork) else w for w in program.works]
    apart = GPU.report(ModelWork(tuple(alone), program.groups))
    assert GPU.report(program).seconds < 0.97 * apart.seconds
