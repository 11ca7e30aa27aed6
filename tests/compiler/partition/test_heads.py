"""Products whose results are cut, normed or chosen among: whether they are split."""

from __future__ import annotations

import pytest
from mtia_emu.compiler.partition.heads import units
from mtia_emu.compiler.partition.mesh import parse_parallel
from mtia_emu.compiler.partition.prepare import prepared
from mtia_emu.compiler.partition.propagate import propagate

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
