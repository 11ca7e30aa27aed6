"""Fusion: what a serving runtime launches as one kernel, and that nothing is lost by it."""

from __future__ import annotations

import pytest

import mtia_emu
from mtia_emu.gpu import Mode, load_gpu
from mtia_emu.gpu.fusion import fuse
from mtia_emu.types import FP16, Work

GPU = load_gpu("h100-sxm")


def vector(name: str, size: int, inputs: tuple[str, ...]) -> Work:
    """Return an elementwise work that reads values of one size."""
    return Work(
        name, "map", "vector", FP16, (size,), 0, size, 2 * size * len(inputs), 2 * size, 0, inputs, (name,)
    )


def product(name: str, shape: tuple[int, ...], inputs: tuple[str, ...], beside: int = 0) -> Work:
    """Return a batched matmul that reads `beside` more bytes than its operands."""
    b, m, k, n = shape
    read = 2 * b * (m * k + k * n) + beside
    return Work(
        name, "matmul", "matmul", FP16, shape, b * m * k * n, 0, read, 2 * b * m * n, 0, inputs, (name,)
    )


def softmax(name: str, size: int, row: int, inputs: tuple[str, ...]) -> Work:
    return Work(name, "softmax", "vector", FP16, (size,), 0, size, 2 * size, 2 * size, row, inputs, (name,))


def attention(beside: int = 0) -> list[Work]:
    """Return the works of attention: 8 heads of 64 rows, 128 keys, head size 32."""
    return [
        product("scores", (8, 64, 32, 128), ("q", "kt"), beside),
        softmax("weights", 8 * 64 * 128, 128, ("scores",)),
        product("mixed", (8, 64, 128, 32), ("weights", "v")),
    ]


def test_attention_becomes_one_kernel() -> None:
    (kernel,) = fuse(attention())
    assert kernel.work.kind == "attention" and kernel.parts == ("scores", "weights", "mixed")
    assert kernel.work.shape == (8, 64, 0, 128, 32, 32)
    assert kernel.work.macs == 2 * 8 * 64 * 128 * 32


def test_a_mask_over_all_pairs_makes_it_causal() -> None:
    (kernel,) = fuse(attention(beside=2 * 64 * 128))
    assert kernel.work.shape[2] == 64


def test_scores_that_someone_else_reads_stay() -> None:
    works = [*attention(), vector("other", 8 * 64 * 128, ("scores",))]
    assert [f.work.op for f in fuse(works)] == ["matmul", "softmax", "matmul", "map"]


def test_projections_of_one_input_become_one_matmul() -> None:
    works = [product(n, (1, 16, 64, size), ("x", f"w{n}")) for n, size in (("q", 64), ("k", 32), ("v", 32))]
    (kernel,) = fuse(works)
    assert kernel.work.shape == (1, 16, 64, 128) and kernel.parts == ("q", "k", "v")
    assert kernel.work.macs == sum(w.macs for w in works)
    assert kernel.work.read_bytes == 2 * (16 * 64 + 64 * 128)


def test_matmuls_one_after_another_stay_two() -> None:
    works = [product("a", (1, 16, 64, 64), ("x", "wa")), product("b", (1, 16, 64, 64), ("a", "wb"))]
    assert len(fuse(works)) == 2


def test_a_chain_moves_each_outer_byte_once() -> None:
    works = [vector("a", 1000, ("x",)), vector("b", 1000, ("a", "y")), vector("c", 1000, ("b",))]
    (kernel,) = fuse(works)
    assert (kernel.work.read_bytes, kernel.work.write_bytes, kernel.work.flops) == (4000, 2000, 3000)
    assert kernel.parts == ("a", "b", "c")


def test_work_without_names_stays_as_it_is() -> None:
    works = [Work(str(i), "map", "vector", FP16, (8,), 0, 8, 16, 16) for i in range(3)]
    assert [f.work for f in fuse(works)] == works


@pytest.mark.parametrize("dims", [{"seq": 16, "past": 0}, {"seq": 1, "past": 31}], ids=str)
def test_a_decoder_keeps_its_multiply_adds_and_gets_faster(dims: dict[str, int]) -> None:
    works = mtia_emu.compile_model("zoo:llama-tiny", dims=dims).works
    fused = fuse(works)
    assert sum(f.work.macs for f in fused) == sum(w.macs for w in works)
    assert sum(f.work.kind == "attention" for f in fused) == sum(w.op == "softmax" for w in works)
    assert sorted(p for f in fused for p in f.parts) == sorted(w.name for w in works)
    both = [GPU.run(works, model="", dtype="fp16", dims={}, mode=Mode(fused=f)) for f in (True, False)]
    assert both[0].seconds < both[1].seconds and both[0].macs == both[1].macs
