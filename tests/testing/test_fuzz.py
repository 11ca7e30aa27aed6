"""Random graphs through import, every format's pipeline and programs, held to onnxruntime."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from mtia_emu.compiler import text
from mtia_emu.compiler.build import NodeBuilder
from mtia_emu.compiler.graph import Graph, Match, Node, Rewrite
from mtia_emu.compiler.graph_file import read_graph
from mtia_emu.compiler.inputs.samples import KINDS
from mtia_emu.compiler.passes.base import Rules, become, building
from mtia_emu.compiler.pipeline import passes
from mtia_emu.compiler.to_onnx import SAME, Unwritten, to_onnx
from mtia_emu.kernels.matmul.packed import PackedEmitter

from mtia_emu import UserError, testing
from mtia_emu.cli.fuzz import STAGES
from mtia_emu.machine.units.simd import FUNCTIONS
from mtia_emu.testing import fuzz
from mtia_emu.testing.campaign import CHUNK, Campaign, run, smallest
from mtia_emu.types import TensorType, dtype

Cli = Callable[..., Result]
Refused = Callable[..., str]
GRAPHS, SHARES = 2000, 20
QUICK = 2  # shares that `make test` takes
SEED = 1


@pytest.mark.parametrize(
    "share", [*range(QUICK), *(pytest.param(i, marks=pytest.mark.deep) for i in range(QUICK, SHARES))]
)
def test_random_graphs_compute_what_onnxruntime_says(share: int) -> None:
    numbers = range(share * GRAPHS // SHARES, (share + 1) * GRAPHS // SHARES)
    assert [found for found in fuzz.first_wrong(SEED, numbers) if found is not None] == []


@dataclass(frozen=True)
class Swapped(Rules):
    """Turn subtractions around."""

    @property
    def rules(self):  # type: ignore[no-untyped-def]
        return (_swap,)


def _swap(node: Node, match: Match) -> Rewrite | None:
    if node.op != "sub" or node.inputs[0] == node.inputs[1] or node.attrs:
        return None
    new = building(node, match)
    return become(node, new, new.add("neg", new.add("sub", node.inputs[0], new.add("abs", node.inputs[1]))))


def test_a_wrong_pass_is_found_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    right = passes
    monkeypatch.setattr(fuzz, "passes", lambda *a, **k: (*right(*a, **k)[:2], Swapped(), *right(*a, **k)[2:]))
    found = next(f for f in fuzz.first_wrong(SEED, range(200)) if f is not None)
    assert found.stage == "pipeline fp32"
    small, blamed = smallest(found, SEED, None)
    assert blamed == "swapped" and [n.op for n in small.nodes].count("sub") == 1 and len(small.nodes) <= 3


def test_a_wrong_expansion_of_codes_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = PackedEmitter._simd

    def wrong(self: PackedEmitter, name: str, *rest: Any, **named: Any) -> None:
        right(self, "bit_low4" if name == "bit_high4" else name, *rest, **named)

    monkeypatch.setattr(PackedEmitter, "_simd", wrong)
    seen = [
        found.stage
        for number in range(
            0, 400, fuzz.COARSELY * len(fuzz.COARSE)
        )  # those that run in the first coarse format
        if (found := fuzz.mismatch_of(fuzz.numbered_graph(SEED, number), SEED, number)) is not None
    ]
    assert seen and set(seen) == {f"program {fuzz.COARSE[0]}"}


def test_every_coarse_format_is_tried() -> None:
    stages = {
        stage
        for number in range(0, fuzz.COARSELY * len(fuzz.COARSE), fuzz.COARSELY)
        for stage, _ in fuzz._stages(fuzz.numbered_graph(SEED, number), SEED, number, {}, None)
    }
    assert {f"{kind} {wanted}" for kind in ("pipeline", "program") for wanted in fuzz.COARSE} <= stages


def test_a_pass_that_raises_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "lower", lambda graph, steps: 1 / 0)
    found = fuzz.mismatch_of(fuzz.numbered_graph(SEED, 0), SEED, 0)
    assert found is not None and found.what == "raises ZeroDivisionError: division by zero"


def test_the_same_seed_gives_the_same_graph_and_chip() -> None:
    for number in range(20):
        one, two = (fuzz.numbered_graph(7, number) for _ in range(2))
        assert text.dump(one) == text.dump(two)
        assert fuzz.random_chip(7, number) == fuzz.random_chip(7, number)
    assert text.dump(fuzz.numbered_graph(7, 0)) != text.dump(fuzz.numbered_graph(8, 0))


def test_graphs_of_a_seed_cover_what_there_is() -> None:
    graphs = [fuzz.numbered_graph(SEED, number) for number in range(1200)]
    ops = {node.op for graph in graphs for node in graph.nodes}
    assert {"matmul", "embedding_bag", "softmax", "cumsum", "pad", "where", "gather"} <= ops
    assert any(0 in kind.shape for graph in graphs for kind in graph.inputs.values())
    assert {k.dtype.name for g in graphs for k in g.inputs.values()} >= {
        "fp32",
        "fp16",
        "int64",
        "int8",
        "uint8",
    }


def test_a_mean_of_nothing_is_not_compared() -> None:
    mean = "%y : fp16[2,1] = reduce_mean(%x) {axes=[1], keepdims=true}"
    graph = text.parse("graph g {\n  in %x : fp16[2,0]\n  " + mean + "\n  out %y\n}\n")
    assert fuzz.mismatch_of(graph, SEED, 0) is None


def test_sums_of_integers_past_their_range_are_ours_to_say() -> None:
    total = "%y : int32[3] = reduce_sum(%x) {axes=[0], keepdims=false}"
    graph = text.parse("graph g {\n  in %x : int32[8,3]\n  " + total + "\n  out %y\n}\n")
    large = 2 + KINDS.index("large")  # a number whose second sample is of that kind
    for number in range(large, large + 20 * (len(KINDS) - 1), len(KINDS) - 1):
        assert fuzz.mismatch_of(graph, SEED, number, only="reference") is None


@pytest.mark.parametrize("only", STAGES)
def test_one_stage_is_tried_alone(only: str, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each word is one that stages begin with, and no other stage is made."""
    made = list[str]()
    right = fuzz._stages

    def watched(*given: Any) -> Any:
        for name, make in right(*given):
            yield name, lambda name=name, make=make: (made.append(name), make())[1]

    monkeypatch.setattr(fuzz, "_stages", watched)
    assert fuzz.mismatch_of(fuzz.numbered_graph(SEED, 0), SEED, 0, only=only) is None
    assert {name.partition(" ")[0] for name in made} == {only}


def test_a_stage_alone_does_not_go_with_passes(refused: Refused) -> None:
    assert "--only is of what a graph goes through without --passes" in refused(
        "fuzz", "--only", "split", "--passes", "fold"
    )


@pytest.mark.parametrize(
    "share", [*range(QUICK), *(pytest.param(i, marks=pytest.mark.deep) for i in range(QUICK, SHARES))]
)
def test_random_graphs_split_at_random_compute_what_onnxruntime_says(share: int) -> None:
    numbers = range(share * GRAPHS // SHARES, (share + 1) * GRAPHS // SHARES)
    tried = fuzz.first_wrong(SEED + 1, numbers, only="split")
    assert [found for found in tried if found is not None] == []


@pytest.mark.parametrize(
    ("name", "op"),
    list(zip(testing.JOINT, ("concat", "embedding_bags", "append", "expert_matmul"), strict=True)),
)
def test_joint_motifs_are_joined_now_and_then(name: str, op: str) -> None:
    graphs = [testing.random_graph(SEED, number, motifs=[name], most=1) for number in range(60)]
    after = [fuzz.lower(g, fuzz.pipeline_of(g, fuzz.random_chip(SEED, 0), None)) for g in graphs]
    joined = [op in {node.op for node in graph.nodes} for graph in after]
    if name == "siblings":
        products = [
            [sum(n.op in ("matmul", "matmul_map") for n in g.nodes) for g in some] for some in (graphs, after)
        ]
        joined = [new < old for old, new in zip(*products, strict=True)]
    assert any(joined) and not all(joined)


@pytest.mark.parametrize("name", SAME)
def test_every_function_that_onnx_shares_means_the_same_there(name: str) -> None:
    function = FUNCTIONS[name]
    rng = np.random.default_rng(0)
    kind = "bool" if name in ("and", "or", "xor", "not") else "fp32"
    arrays = [np.abs(rng.standard_normal(16)).astype(np.float32) + 0.5 for _ in range(function.arity)]
    arrays = [x > 1 for x in arrays] if kind == "bool" else arrays
    kinds = ["bool" if name == "where" and i == 0 else kind for i in range(function.arity)]
    arrays[0] = arrays[0] > 1 if name == "where" else arrays[0]
    if name == "mod":
        kinds, arrays = ["int32", "int32"], [(x * 8).astype(np.int32) for x in arrays]
    build = NodeBuilder()
    types = {f"x{i}": TensorType(dtype(k), (16,)) for i, k in enumerate(kinds)}
    for value, declared in types.items():
        build.declare(value, declared)
    result = build.add(name, *types)
    graph = Graph("g", build.nodes, types, [result], {})
    inputs = dict(zip(types, arrays, strict=True))
    expected = fuzz.oracle(to_onnx(graph), inputs, [result])
    testing.assert_close(fuzz.evaluate(graph, inputs), expected, 1e-6)


def test_an_op_without_a_spelling_is_said() -> None:
    graph = text.parse(
        "graph g {\n  in %x : fp32[4]\n  %y : fp32[4] = map(%x) "
        '{tape="1 -> t0 | t0 = neg(x0) : fp32", to="fp32"}\n  out %y\n}\n'
    )
    with pytest.raises(Unwritten, match="map"):
        to_onnx(graph)


def test_a_campaign_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    file = tmp_path / "fuzz.json"
    seen: list[int] = []
    campaign = Campaign.read(file, 3, "legalise")
    for _ in run(campaign, 2 * CHUNK, 1, file.write_text, lambda _, done, total: seen.append(done)):
        pass
    again = Campaign.read(file, 3, "legalise")
    assert sorted(again.chunks) == [0, 1] and seen == [CHUNK, 2 * CHUNK]
    assert list(run(again, 3 * CHUNK, 2, file.write_text)) == []
    assert json.loads(file.read_text())["done"] == [0, 1, 2]
    with pytest.raises(UserError, match="is of seed 3"):
        Campaign.read(file, 4, "legalise")
    file.write_text("{}")
    with pytest.raises(UserError, match="no fuzzing that can go on"):
        Campaign.read(file, 3, "legalise")


def test_the_command_tries_passes_and_keeps_what_is_wrong(
    cli: Cli, refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mtia_emu.compiler import plugins

    words = ("fuzz", "--count", 50, "--seed", SEED, "--workers", 1, "--passes", "legalise,swapped")
    assert "unknown pass 'swapped'" in refused(*words)
    monkeypatch.setitem(plugins.PASSES, "swapped", Swapped)
    done = cli(*words, "-o", tmp_path / "f")
    assert done.exit_code == 1 and "wrong after pass swapped" in done.stderr
    (file, *_) = sorted((tmp_path / "f").glob("*.ir"))
    assert "sub" in {node.op for node in read_graph(file).nodes}
    assert cli("fuzz", "--count", 50, "--workers", 1, "--passes", "legalise,fold").exit_code == 0


@pytest.mark.parametrize("number", [8927, 27300])
def test_what_leaves_the_range_is_held_to_our_references(number: int) -> None:
    """Halves, which onnxruntime computes in floats; products of a mask's -3.4e38: found by 50,000 splits."""
    assert fuzz.mismatch_of(fuzz.numbered_graph(11, number), 11, number, only="split") is None
