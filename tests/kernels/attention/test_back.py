"""The way back of attention in one op: its gradients are those of ops one by one, on every chip."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import pytest
from mtia_emu.compiler import pipeline
from mtia_emu.compiler.gradients.differentiate import differentiate
from mtia_emu.compiler.graph import Graph
from mtia_emu.compiler.ops import fused_attention
from mtia_emu.compiler.text import parse

from mtia_emu.engine.function import execute
from mtia_emu.engine.timing import timeline
from mtia_emu.machine.chip import Chip, load_chip
from mtia_emu.program.isa import Opcode

Array = np.ndarray[Any, Any]
TEXT = """graph att {{
  in %q : fp32[{b},{h},{m},{d}]
  in %k : fp32[{b},{g},{n},{d}]
  in %v : fp32[{b},{g},{n},{e}]
  in %do : fp32[{b},{h},{m},{e}]
  in %x : {extra}
  %o : fp32[{b},{h},{m},{e}] = attention(%q, %k, %v, %x) {{tape="{tape}"{more}}}
  %w : fp32[{b},{h},{m},{e}] = mul(%o, %do)
  %l : fp32[] = reduce_sum(%w) {{axes=[0, 1, 2, 3], keepdims=false}}
  out %l
}}
"""
ADDED = "2 -> t1 | t0 = mul(x0, 0.25); t1 = add(t0, x1)"
CHOSEN = "2 -> t1 | t0 = mul(x0, 0.25); t1 = where(x1, t0, -65504.0)"
SIZES = {
    "grouped and ragged": {"b": 2, "h": 4, "g": 2, "m": 19, "n": 23, "d": 8, "e": 8},
    "values of another size": {"b": 1, "h": 2, "g": 2, "m": 33, "n": 40, "d": 8, "e": 12},
    "heads of 80": {"b": 1, "h": 2, "g": 1, "m": 40, "n": 40, "d": 80, "e": 80},
    "many tiles": {"b": 1, "h": 4, "g": 2, "m": 200, "n": 310, "d": 16, "e": 16},
    "one query": {"b": 1, "h": 3, "g": 1, "m": 1, "n": 9, "d": 4, "e": 4},
}


def graph(sizes: dict[str, int], mask: str) -> Graph:
    """Return attention of sizes under a mask, and a loss of it."""
    m, n = sizes["m"], sizes["n"]
    extra = f"fp32[{m},{n}]" if mask in ("causal", "bias") else f"bool[{m},{n}]"
    tape = ADDED if mask in ("causal", "bias") else CHOSEN
    more = f", mask=1, diagonal={max(n - m, 0)}" if mask in ("causal", "chosen") else ""
    return parse(TEXT.format(**sizes, extra=extra, tape=tape, more=more))


def inputs(sizes: dict[str, int], mask: str) -> dict[str, Array]:
    """Return arrays for a graph's inputs, by name."""
    rng, m, n = np.random.default_rng(len(mask)), sizes["m"], sizes["n"]
    b, h, g, d, e = (sizes[x] for x in "bhgde")
    shapes = {"q": (b, h, m, d), "k": (b, g, n, d), "v": (b, g, n, e), "do": (b, h, m, e)}
    arrays = {name: rng.standard_normal(s).astype(np.float32) for name, s in shapes.items()}
    seen = np.arange(n)[None, :] <= np.arange(m)[:, None] + max(n - m, 0)
    if mask == "whole":  # some keys of each query, in no order
        seen = rng.random((m, n)) < 0.7
        seen[:, 0] = True
    bias = rng.standard_normal((m, n)).astype(np.float32)
    extra = {"causal": np.where(seen, np.float32(0), np.float32(-np.inf)), "bias": bias}
    return arrays | {"x": extra.get(mask, seen)}


def backward(sizes: dict[str, int], mask: str) -> Graph:
    """Return the graph with gradients, attention's by one op."""
    with mock.patch.object(fused_attention, "SCORES", 0):
        return differentiate(fused_attention.with_totals(graph(sizes, mask)), "l", ("q", "k", "v"))


def expected(sizes: dict[str, int], mask: str, given: dict[str, Array]) -> list[Array]:
    """Return the gradients in fp64, by their formulas."""
    b, g, m = sizes["b"], sizes["g"], sizes["m"]
    split = (b, g, sizes["h"] // g, m, -1)
    q, k, v, do = (given[x].astype(np.float64) for x in ("q", "k", "v", "do"))
    q, do = q.reshape(split), do.reshape(split)
    raw = np.einsum("bghmd,bgnd->bghmn", q, k) * 0.25
    x = given["x"]
    raw = np.where(x, raw, -np.inf) if x.dtype == bool else raw + x
    powers = np.exp(raw - raw.max(axis=-1, keepdims=True))
    p = powers / powers.sum(axis=-1, keepdims=True)
    shares = np.einsum("bghme,bgne->bghmn", do, v)
    ds = p * (shares - (p * shares).sum(axis=-1, keepdims=True)) * 0.25
    dq = np.einsum("bghmn,bgnd->bghmd", ds, k).reshape(given["q"].shape)
    return [dq, np.einsum("bghmn,bghmd->bgnd", ds, q), np.einsum("bghmn,bghme->bgne", p, do)]


@pytest.mark.parametrize("mask", ["causal", "bias", "chosen", "whole"])
@pytest.mark.parametrize("name", SIZES)
def test_gradients_are_those_of_the_formula(name: str, mask: str) -> None:
    sizes, given = SIZES[name], inputs(SIZES[name], mask)
    made = backward(sizes, mask)
    assert [node.op for node in made.nodes].count("attention_back") == 1
    chip = load_chip("mtia-2i")
    found = _executed(made, chip, given)
    for one, right in zip(found, expected(sizes, mask, given), strict=True):
        assert np.abs(one - right).max() <= 3e-5 * np.abs(right).max()


def _executed(made: Graph, chip: Chip, given: dict[str, Array], dtype: str = "fp32") -> list[Array]:
    program = pipeline.compile_graph(made, chip, dtype=dtype).program
    assert any(block.kernel == "attention_back" for block in program.blocks)
    outputs = execute(program, chip, given).outputs
    return [outputs[f"grad.{x}"] for x in "qkv"]


@pytest.mark.parametrize(("dtype", "band"), [("fp16", 4e-3), ("bf16", 3e-2)])
def test_narrow_gradients_are_near_the_formula(dtype: str, band: float) -> None:
    sizes, given = SIZES["heads of 80"], inputs(SIZES["heads of 80"], "causal")
    found = _executed(backward(sizes, "causal"), load_chip("mtia-300"), given, dtype)
    for one, right in zip(found, expected(sizes, "causal", given), strict=True):
        assert np.abs(one - right).max() <= band * np.abs(right).max()


def test_the_bits_do_not_depend_on_the_grid() -> None:
    sizes, given = SIZES["grouped and ragged"], inputs(SIZES["grouped and ragged"], "causal")
    made = backward(sizes, "causal")
    grids = [{"grid.rows": 1, "grid.cols": 1}, {"grid.rows": 2, "grid.cols": 3}, {}]
    all_found = [_executed(made, load_chip("mtia-2i", g), given) for g in grids]
    for found in all_found[1:]:
        assert all((a == b).all() for a, b in zip(found, all_found[0], strict=True))


def test_hidden_tiles_are_neither_loaded_nor_multiplied() -> None:
    sizes = {"b": 1, "h": 2, "g": 1, "m": 256, "n": 256, "d": 16, "e": 16}
    chip = load_chip("mtia-2i")

    def products(mask: str) -> list[int]:
        blocks = pipeline.compile_graph(backward(sizes, mask), chip).program.blocks
        back = [b for b in blocks if b.kernel == "attention_back"]
        assert all(timeline(b, chip).cycles > 0 for b in back)
        return [int((b.commands["op"] == Opcode.MATMUL).sum()) for b in back]

    causal, whole = products("causal"), products("bias")
    assert len(causal) == 2
    assert all(0.5 * b < a < 0.75 * b for a, b in zip(causal, whole, strict=True))


def test_small_attention_goes_back_op_by_op() -> None:
    small = graph(SIZES["one query"], "causal")
    assert fused_attention.with_totals(small).nodes == small.nodes
