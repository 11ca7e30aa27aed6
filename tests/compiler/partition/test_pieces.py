"""What each piece of a step runs, gets and gives."""

from __future__ import annotations

from collections import Counter
from math import prod

import pytest
from mtia_emu.compiler.ops.collectives import COLLECTIVES
from mtia_emu.compiler.partition.pieces import BACK, FORWARD, KINDS, LAST, UPDATE, Piece

from .stepped import MODELS, pieces, step


@pytest.mark.parametrize("parallel", ["pp=2", "pp=2,vp=2", "dp=2,pp=2"])
@pytest.mark.parametrize("model", ["llama-tiny", "gpt-tiny"])
def test_a_piece_knows_what_is_its_own_or_given_by_one_before_it(model: str, parallel: str) -> None:
    cut = pieces(model, parallel, accumulate=2, clip=1.0)
    for piece, nodes in cut.nodes.items():
        graph = cut.graph(piece, 0)
        for name in graph.inputs:
            assert name in cut.split.inputs or name in cut.received[piece]
        for value, maker in cut.received[piece].items():
            assert value in cut.graph(maker, 0).outputs
            assert KINDS.index(maker.kind) <= KINDS.index(piece.kind)
            if piece.kind == FORWARD:
                assert maker.stage < piece.stage
            if maker.kind == piece.kind == BACK:
                assert maker.stage > piece.stage
            if piece.kind == BACK:
                assert maker.kind in (FORWARD, BACK)
        assert nodes


def test_every_weight_changes_once_at_its_home() -> None:
    cut = pieces("gpt-tiny", "pp=2", accumulate=2)
    changed = Counter[str]()
    for piece in cut.nodes:
        if piece.kind in (LAST, UPDATE):
            for old in cut.graph(piece, 0).states.values():
                changed[old] += 1
                if old in cut.staged.homes:
                    assert cut.staged.homes[old] == piece.stage
    whole = {*cut.staged.step.parameters, *cut.staged.step.states}
    assert changed == Counter(whole)


def test_gradients_are_summed_in_place_and_exchanged_behind_the_last_micro_batch() -> None:
    cut = pieces("gpt-tiny", "dp=2,pp=2", accumulate=3)
    for stage in range(2):
        back = cut.graph(Piece(BACK, stage), 0)
        assert set(back.states.values()) == {
            f"{n}.sum_of_gradients" for n, s in cut.staged.homes.items() if s == stage
        }
        assert not any(node.op in COLLECTIVES for node in cut.nodes[Piece(BACK, stage)])
        last = Counter(n.op for n in cut.nodes[Piece(LAST, stage)] if n.op in COLLECTIVES)
        assert last == {"all_reduce": sum(s == stage for s in cut.staged.homes.values())}


def test_the_update_is_apart_only_where_stages_need_one_another() -> None:
    alone = pieces("llama-tiny", "pp=2", accumulate=2)
    assert not any(piece.kind == UPDATE for piece in alone.nodes) and not alone.exchanged()
    clipped = pieces("llama-tiny", "pp=2", accumulate=2, clip=1.0)
    assert {piece for piece in clipped.nodes if piece.kind == UPDATE} == {Piece(UPDATE, 0), Piece(UPDATE, 1)}
    assert all(clipped.split.types[v].bytes == 4 for values in clipped.exchanged().values() for v in values)


def test_a_tied_weights_gradient_goes_both_ways_once() -> None:
    cut = pieces("gpt-tiny", "pp=2", accumulate=2)
    (name,) = cut.staged.ties.values()
    size = 4 * step("gpt-tiny").parameters[name].type.size
    assert {ends: cut.bytes_of(v) for ends, v in cut.exchanged().items()} == {(0, 1): size, (1, 0): size}
    moved = [n for n in cut.nodes if n.kind == UPDATE for node in cut.nodes[n] if node.op == "matmul"]
    assert not moved


def test_a_cut_between_layers_sends_the_stream_there_and_its_gradient_back() -> None:
    cut, dims = pieces("gpt-tiny", "pp=2"), MODELS["gpt-tiny"][1]
    hidden = step("gpt-tiny").parameters["model.embed_tokens.weight"].type.shape[1]
    size = 4 * prod(dims.values()) * hidden
    sent = [cut.bytes_of(cut.sent(stage, back=back)) for stage, back in ((0, False), (1, True))]
    assert sent[1] == size and sent[0] in (size, 2 * size), "a cut within a layer sends its branch as well"
    assert not cut.sent(1, back=False) and not cut.sent(0, back=True)


def test_one_stage_has_no_pass_forward_of_its_own() -> None:
    cut = pieces("llama-tiny", "dp=2", accumulate=2)
    assert list(cut.nodes) == [Piece(BACK, 0), Piece(LAST, 0)]
    assert "loss" in cut.graph(Piece(BACK, 0), 0).outputs
    assert not cut.held(0)


def test_what_a_stage_holds_is_what_its_way_back_reads() -> None:
    cut = pieces("llama-tiny", "pp=2")
    for stage in range(2):
        read = {v for n in cut.nodes[Piece(LAST, stage)] for v in n.inputs}
        assert set(cut.held(stage)) <= read
