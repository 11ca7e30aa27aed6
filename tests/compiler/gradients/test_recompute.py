"""Recomputation: the same gradients bit for bit, within a budget, from what all later layers depend on."""

from __future__ import annotations

import numpy as np
import pytest
from mtia_emu.compiler import text
from mtia_emu.compiler.check import check
from mtia_emu.compiler.gradients.differentiate import differentiate
from mtia_emu.compiler.gradients.marks import BACKWARD
from mtia_emu.compiler.gradients.recompute import AGAIN, Throughput, recompute
from mtia_emu.compiler.graph import Graph
from mtia_emu.compiler.passes import Fold
from mtia_emu.compiler.reference import evaluate

PACE = Throughput(1e12, 1e11)
LAYER = """  %n{i} : fp32[8,6] = rmsnorm(%{x}, %s) {{epsilon=1e-05}}
  %p{i} : fp32[8,6] = matmul(%n{i}, %w{i})
  %t{i} : fp32[8,6] = gelu(%p{i})
  %x{i} : fp32[8,6] = add(%{x}, %t{i})
"""


def residual(layers: int) -> Graph:
    """Return the gradients of a chain of residual layers."""
    body = "graph g {\n  in %x : fp32[8,6]\n  in %s : fp32[6]\n"
    body += "".join(f"  in %w{i} : fp32[6,6]\n" for i in range(layers))
    body += "".join(LAYER.format(i=i, x=f"x{i - 1}" if i else "x") for i in range(layers))
    body += f"  %square : fp32[8,6] = mul(%x{layers - 1}, %x{layers - 1})\n"
    body += "  %loss : fp32[] = reduce_mean(%square) {axes=[0, 1]}\n  out %loss\n}\n"
    weights = ["s", *(f"w{i}" for i in range(layers))]
    return differentiate(text.parse(body), "loss", weights).with_states({f"grad.{n}": n for n in weights})


GRAPH = residual(4)
RNG = np.random.default_rng(1)
GIVEN = {n: RNG.standard_normal(k.shape).astype(np.float32) for n, k in GRAPH.inputs.items()}
VALUE = 8 * 6 * 4  # bytes


def test_nothing_is_made_again_where_all_fits() -> None:
    graph, kept = recompute(GRAPH, float("inf"), PACE)
    assert graph is GRAPH and not kept.again and kept.bytes == kept.whole and not kept.notes


@pytest.mark.parametrize("share", [0.8, 0.5, 0.0])
def test_the_same_bits_with_less_kept(share: float) -> None:
    whole = recompute(GRAPH, float("inf"), PACE)[1].whole
    graph, kept = recompute(GRAPH, share * whole, PACE)
    assert kept.again and kept.bytes < whole and (share == 0.0 or kept.bytes <= share * whole)
    folded = Fold()(check(graph))
    assert sum(node.name.endswith(AGAIN) for node in folded.nodes) > 0, "equal nodes are not made one again"
    one, other = evaluate(GRAPH, GIVEN), evaluate(folded, GIVEN)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


def test_residual_streams_are_kept() -> None:
    _, kept = recompute(GRAPH, 0, PACE)
    assert not {f"x{i}" for i in range(4)} & set(kept.again)
    assert {f"n{i}" for i in range(4)} <= set(kept.again)
    assert kept.bytes <= 4 * VALUE
    assert "are computed again" in kept.notes[0]


def test_what_takes_least_time_a_byte_goes_first() -> None:
    whole = recompute(GRAPH, float("inf"), PACE)[1].whole
    _, kept = recompute(GRAPH, whole - VALUE, Throughput(1e6, 1e11))
    assert kept.again[0].startswith("n"), "a norm, before a product"


def test_copies_are_made_where_they_are_read_and_are_of_the_way_back() -> None:
    graph, _ = recompute(GRAPH, 0, PACE)
    places = {node.name: i for i, node in enumerate(graph.nodes)}
    again = [node for node in graph.nodes if node.name.endswith(AGAIN)]
    assert all(node.origin.endswith(BACKWARD) for node in again)
    assert places["p3.again"] < places["p0.again"], "the last layer's first"
    back = [places[n.name] for n in graph.nodes if n.origin == f"t3{BACKWARD}"]
    assert places["p0.again"] > min(back), "not before the way back has come to it"
