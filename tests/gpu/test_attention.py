"""Fused attention on a GPU: it grows with what it reads and computes, and never beats its bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtia_emu.gpu import Gpu, gpu_names, load_gpu
from mtia_emu.gpu.attention import HeadShape, attention, seconds
from mtia_emu.gpu.kernel import Board
from mtia_emu.types import BF16, AttentionWork

gpus = st.sampled_from(gpu_names()).map(load_gpu)
heads = st.tuples(
    st.integers(1, 64), st.sampled_from([1, 2, 8]), st.sampled_from([1, 4, 8]), st.integers(1, 2048)
)


def call(batch: int, kv: int, group: int, keys: int, queries: int = 1) -> HeadShape:
    """Return attention of head size 128, causal where there is more than one query."""
    return HeadShape(batch, kv, group, min(queries, keys), keys, 128, 128, 2.0, queries > 1)


@given(gpus, heads, st.sampled_from([1, 16, 4096]))
def test_never_below_what_it_reads(gpu: Gpu, h: tuple[int, int, int, int], queries: int) -> None:
    one = call(*h, queries)
    time = attention(Board(gpu), gpu.rate("bf16")[1], one)
    assert time.seconds >= float(one.kv_bytes) / gpu.dram_bytes_per_s
    assert time.seconds >= 2 * float(one.macs) / gpu.rate("bf16")[1].flops_per_s * (1 - 1e-9)
    assert 0 <= time.joules <= gpu.tdp_w * time.seconds * (1 + 1e-9)


@given(gpus, heads, st.integers(1, 64), st.sampled_from([1, 16]))
def test_more_sequences_take_longer(gpu: Gpu, h: tuple[int, int, int, int], more: int, queries: int) -> None:
    rate, (batch, *rest) = gpu.rate("bf16")[1], h
    few, many = (float(seconds(gpu, rate, call(b, *rest, queries))) for b in (batch, batch + more))
    # beyond a block for each SM the cache is no longer split, which saves the combining of its parts
    assert many >= few - gpu.attention.split_s * (1 + 1e-9)


def test_a_causal_mask_halves_long_prefill() -> None:
    gpu = load_gpu("h100-sxm")
    whole = HeadShape(1, 8, 4, 8192, 8192, 128, 128, 2.0, False)
    half = HeadShape(1, 8, 4, 8192, 8192, 128, 128, 2.0, True)
    ratio = float(seconds(gpu, gpu.rate("bf16")[1], half) / seconds(gpu, gpu.rate("bf16")[1], whole))
    assert 0.5 < ratio < 0.6


def test_grouped_heads_read_their_keys_once() -> None:
    shared, own = (
        HeadShape(8, 8, 4, 1, 4096, 128, 128, 2.0, False),
        HeadShape(8, 32, 1, 1, 4096, 128, 128, 2.0, False),
    )
    assert own.kv_bytes == 4 * shared.kv_bytes and own.macs == shared.macs


def test_scattered_heads_are_copied_where_a_kernel_does_not_pack_them() -> None:
    together, scattered, own = (
        HeadShape(8, 8, group, 1, 1024, 128, 128, 2.0, False, scattered=apart)
        for group, apart in ((4, False), (4, True), (1, True))
    )
    for name, copies in (("a100-sxm-80gb", 2), ("h100-sxm", 0)):
        gpu = load_gpu(name)
        times = [float(seconds(gpu, gpu.rate("bf16")[1], h)) for h in (together, scattered)]
        wanted = copies * (gpu.launch_graph_s + gpu.dram_latency_s)
        assert abs(times[1] - times[0] - wanted) < 1e-12
    gpu = load_gpu("a100-sxm-80gb")
    alone = HeadShape(8, 8, 1, 1, 1024, 128, 128, 2.0, False)
    rate = gpu.rate("bf16")[1]
    assert seconds(gpu, rate, own) == seconds(gpu, rate, alone)  # heads with keys of their own need none


def test_more_heads_than_a_block_shares_read_their_keys_each() -> None:
    gpu = load_gpu("b200")
    rate, most = gpu.rate("bf16")[1], gpu.attention.shared_heads
    few, many = (HeadShape(64, 1, group, 1, 4096, 128, 128, 2.0, False) for group in (most, 2 * most))
    assert many.kv_bytes == few.kv_bytes
    assert seconds(gpu, rate, many) > 3 * seconds(gpu, rate, few)
    together = load_gpu("b200", {"attention.shared_heads": str(2 * most)})
    assert seconds(together, rate, many) < 1.2 * seconds(gpu, rate, few)


def work(batch: int, queries: int, keys: int, diagonal: int | None = None) -> AttentionWork:
    """Return the work of 8 key heads with 4 query heads each, of size 128."""
    sizes = {"kv_heads": 8, "group": 4, "key_size": 128, "value_size": 128}
    shape = {"batch": batch, "queries": queries, "keys": keys, "diagonal": diagonal}
    return AttentionWork("", "attention", BF16, **sizes, **shape)


@pytest.mark.parametrize("name", gpu_names())
@pytest.mark.parametrize("batch", [1, 8])
def test_grouped_decode_of_a_model_is_decode_on_every_gpu(name: str, batch: int) -> None:
    gpu = load_gpu(name)
    whole = HeadShape(batch, 8, 4, 1, 2048, 128, 128, 2.0, False, scattered=batch > 1)
    want = attention(Board(gpu), gpu.rate("bf16")[1], whole)
    assert gpu.kernel(work(batch, 1, 2048)).seconds == want.seconds


@pytest.mark.parametrize(
    ("diagonal", "shown", "causal"),
    [
        (None, 4096, False),
        (0, 1024, True),  # keys behind the last query are not read
        (3072, 4096, True),  # the last query sees the last key
        (3073, 4096, False),  # so do the last two: nothing is left out
        (5000, 4096, False),
    ],
)
def test_what_a_mask_hides_is_left_out(diagonal: int | None, shown: int, causal: bool) -> None:
    gpu = load_gpu("h100-sxm")
    whole = HeadShape(2, 8, 4, 1024, shown, 128, 128, 2.0, causal, scattered=True)
    want = attention(Board(gpu, steady=True), gpu.rate("bf16")[1], whole)
    assert gpu.kernel(work(2, 1024, 4096, diagonal)) == want
