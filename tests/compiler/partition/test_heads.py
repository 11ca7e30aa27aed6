"""Products whose results are cut, normed or chosen among: whether they are split."""

from __future__ import annotations

import pytest
from mtia_emu.compiler.graph import Const, Graph, Node
from mtia_emu.compiler.partition.heads import units
from mtia_emu.compiler.partition.mesh import parse_parallel
from mtia_emu.compiler.partition.prepare import prepared
from mtia_emu.compiler.partition.propagate import propagate
from mtia_emu.compiler.partition.unpack import unpacked

from mtia_emu import api
from mtia_emu.types import FP32, TensorType

from .cases import exchanges, model


def found(name: str) -> dict[str, int]:
    """Return, by product, the pieces that its last dimension is cut into."""
    graph = prepared(model(name, batch=8)[0])
    return {n.output.removeprefix("model."): units(graph, n) for n in graph.nodes if n.op == "matmul"}


def test_heads_are_the_pieces_of_what_attention_reads() -> None:
    pieces = found("llama-tiny")
    kinds = {name.rpartition(".")[2]: count for name, count in pieces.items()}
    assert (kinds["q_proj"], kinds["k_proj"], kinds["down_proj"]) == (8, 2, 0)


@pytest.mark.parametrize(
    ("name", "product"),
    [("deepseek-tiny", "layers.0.self_attn.q_a_proj"), ("deepseek-tiny", "layers.1.mlp.router.gate")],
)
def test_latents_and_choices_are_whole(name: str, product: str) -> None:
    assert found(name)[product] == 1


@pytest.mark.parametrize(
    ("parallel", "right"),
    [
        ("tp=2", {"all_reduce": 5, "all_gather": 1}),  # table, two a layer; logits
        ("tp=4", {"all_reduce": 5, "all_gather": 1}),
        ("tp=2,ep=2", {"all_reduce": 6, "all_gather": 1}),  # and what experts made
    ],
)
def test_latent_attention_takes_the_exchanges_of_any_decoder(parallel: str, right: dict[str, int]) -> None:
    made = propagate(prepared(model("deepseek-tiny", batch=8)[0]), parse_parallel(parallel))
    assert exchanges(made) == right
    stacks = [s.layout for s in made.shards.values() if s.source and len(s.layout.dims) == 3]
    assert any(set(x.dims[0]) & {"tp", "tp.0"} for x in stacks), "absorbed weights go by head"


def test_one_head_of_keys_is_whole() -> None:
    """As of multi-query attention: 8 columns become one head, which changes places with the sequence."""
    kinds = [TensorType(FP32, s) for s in ((2, 4, 8), (2, 4, 1, 8), (2, 1, 4, 8))]
    nodes = [
        Node("k", "matmul", ("x", "w"), ("k",), (kinds[0],)),
        Node("heads", "reshape", ("k",), ("heads",), (kinds[1],), {"shape": (2, 4, 1, 8)}),
        Node("turned", "transpose", ("heads",), ("turned",), (kinds[2],), {"perm": (0, 2, 1, 3)}),
    ]
    weights = {"w": Const(TensorType(FP32, (8, 8)), None)}
    graph = Graph("one", nodes, {"x": kinds[0]}, ["turned"], weights)
    assert units(graph, nodes[0]) == 1
    assert units(Graph("k", nodes[:1], {"x": kinds[0]}, ["k"], weights), nodes[0]) == 0


@pytest.mark.deep
def test_a_large_mixture_takes_three_sums_a_layer() -> None:
    """DeepSeek-V3's shape over `tp` and `ep`: attention, experts, and both networks of a layer together."""
    with api.open_model("zoo:deepseek-v3", {"batch": 8, "seq": 1, "past": 64}) as source:
        graph = prepared(source.graph())
    made = propagate(unpacked(graph), parse_parallel("tp=8,ep=4"))
    assert exchanges(made) == {"all_reduce": 1 + 2 * 61 + 58, "all_gather": 1}
