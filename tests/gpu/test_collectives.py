"""Collectives: laws of rings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtia_emu.errors import UserError
from mtia_emu.gpu import PASSES, load_gpu

H100 = load_gpu("h100-sxm")


@given(st.sampled_from(sorted(PASSES)), st.integers(0, 1 << 32), st.integers(0, 1 << 30), st.integers(2, 8))
def test_more_bytes_take_longer(kind: str, size: int, more: int, gpus: int) -> None:
    assert H100.collective_seconds(kind, size + more, gpus) >= H100.collective_seconds(kind, size, gpus)


@given(st.integers(1, 1 << 32), st.integers(2, 8))
def test_an_all_reduce_is_never_above_its_two_halves(size: int, gpus: int) -> None:
    halves = [H100.collective_seconds(kind, size, gpus) for kind in ("reduce_scatter", "all_gather")]
    assert H100.collective_seconds("all_reduce", size, gpus) <= sum(halves) * (1 + 1e-9)


@given(st.sampled_from(sorted(PASSES)), st.integers(1, 1 << 34), st.integers(2, 8))
def test_never_faster_than_the_links(kind: str, size: int, gpus: int) -> None:
    moved = PASSES[kind] * size * (gpus - 1) / gpus
    assert H100.links is not None
    assert H100.collective_seconds(kind, size, gpus) >= moved / H100.links.bytes_per_s


def test_wrong_requests_are_named() -> None:
    with pytest.raises(UserError, match="did you mean 'all_reduce'"):
        H100.collective_seconds("allreduce", 1, 2)
    with pytest.raises(UserError, match="a collective of 1 GPUs; it takes 2 or more"):
        H100.collective_seconds("all_reduce", 1, 1)
    with pytest.raises(UserError, match="a message of -1 bytes"):
        H100.collective_seconds("all_reduce", -1, 2)
    with pytest.raises(UserError, match=r"l40s has no \[links\]"):
        load_gpu("l40s").collective_seconds("all_reduce", 1, 2)
