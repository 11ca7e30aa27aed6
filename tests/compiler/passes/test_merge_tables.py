"""Embedding bags of several tables as one op."""

from __future__ import annotations

import numpy as np
import pytest
from before_after import cases, hold, lowered, outcomes, results, with_weights
from hypothesis import given, settings
from hypothesis import strategies as st
from mtia_emu.compiler import text
from mtia_emu.compiler.passes import MergeTables
from mtia_emu.compiler.pipeline import compile_lowered

from mtia_emu.engine.function import execute
from mtia_emu.engine.lookups import from_inputs, through_cache
from mtia_emu.engine.run import report
from mtia_emu.machine.chip import load_chip

CHIP = load_chip("mtia-2i")


@pytest.mark.parametrize("case", cases("merge-tables"))
def test_before_and_after(case: str) -> None:
    hold(case)


def looked_up(rows: list[int], width: int = 4, bags: int = 3, tail: str = "") -> str:
    """Return a graph of a bag of two rows each from tables of these rows, beside each other."""
    lines = [f"  in %i{t} : int64[{2 * bags}]" for t in range(len(rows))]
    lines += [f"  const %o : int64[{bags + 1}] = {[2 * b for b in range(bags + 1)]}"]
    lines += [f"  const %t{t} : fp16[{n},{width}] = absent" for t, n in enumerate(rows)]
    kind = f"fp16[{bags},{width}]"
    lines += [f'  %b{t} : {kind} = embedding_bag(%t{t}, %i{t}, %o) {{mode="sum"}}' for t in range(len(rows))]
    names = ", ".join(f"%b{t}" for t in range(len(rows)))
    lines += [f"  %y : fp16[{bags},{width * len(rows)}] = concat({names}) {{axis=1}}", "  out %y"]
    return "\n".join(["graph g {", *lines, tail, "}"])


@settings(max_examples=30)
@given(st.lists(st.integers(1, 9), min_size=2, max_size=6), st.integers(1, 5))
def test_one_look_up_of_equal_results_is_left(rows: list[int], bags: int) -> None:
    graph = with_weights(text.parse(looked_up(rows, bags=bags)))
    made = lowered(graph, (MergeTables(),))
    assert [n.op for n in made.nodes] == ["embedding_bags", "concat"]
    assert all((results(graph)[name] == results(made, graph)[name]).all() for name in graph.outputs)


def test_a_table_alone_stays() -> None:
    assert outcomes("merge-tables", looked_up([5])) == ["no other table is like it"]
    assert outcomes("merge-tables{max-tables=1}", looked_up([5, 5])) == ["no other table is like it"] * 2


def test_bags_that_need_each_other_stay_apart() -> None:
    tail = """  %near : int64[3,4] = cast(%b0) {to="int64"}
  %ids : int64[12] = reshape(%near) {shape=[12]}
  const %all : int64[2] = [0, 12]
  const %last : fp16[5,4] = absent
  %z : fp16[1,4] = embedding_bag(%last, %ids, %all) {mode="sum"}
  out %z
"""
    reasons = outcomes("merge-tables", looked_up([5], tail=tail))
    assert reasons == ["no other table is like it", "it needs the rows that %b0 looks up"]
    graph = with_weights(text.parse(looked_up([5, 5], tail=tail)))
    assert [n.op for n in lowered(graph, (MergeTables(),)).nodes].count("embedding_bag") == 1


def test_what_is_looked_up_is_known_and_cached_as_before() -> None:
    rows = [500, 300, 7]
    inputs = {f"i{t}": np.random.default_rng(t).integers(0, n, 32) for t, n in enumerate(rows)}
    graph = with_weights(text.parse(looked_up(rows, 64, 16)))
    both = []
    for made in (graph, lowered(graph, (MergeTables(),))):
        program = compile_lowered(made, CHIP, dtype="fp16")
        known = from_inputs(program, inputs)
        seen = through_cache(program, CHIP, known)
        executed = execute(program, CHIP, inputs).lookups
        for number, found in executed.items():
            assert (found.rows == known[number].rows).all() and (found.counts == known[number].counts).all()
        missed = sum(int(x.missed.sum()) for x in seen.values() if x.missed is not None)
        both.append((sorted(np.concatenate([x.rows for x in known.values()]).tolist()), missed))
    assert both[0] == both[1] and both[0][1] > 0


def test_one_launch_takes_fewer_cycles() -> None:
    graph = text.parse(looked_up([1000] * 8, 64, 64))
    before, after = (
        report(compile_lowered(g, CHIP, dtype="fp16"), CHIP)
        for g in (graph, lowered(graph, (MergeTables(),)))
    )
    assert after.cycles < 0.7 * before.cycles
    assert after.traffic.dram_read_bytes == pytest.approx(before.traffic.dram_read_bytes, rel=1e-3)
