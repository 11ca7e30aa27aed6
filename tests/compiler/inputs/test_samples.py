"""Random inputs: lawful for the graph, and of the characters that they are said to be."""

from __future__ import annotations

import numpy as np
import pytest
from mtia_emu.compiler import text
from mtia_emu.compiler.inputs.landmarks import landmarks, solved
from mtia_emu.compiler.inputs.roles import Role, role_of
from mtia_emu.compiler.inputs.samples import KINDS, random_inputs
from mtia_emu.compiler.reference import evaluate

from mtia_emu.errors import UserError

GRAPH = text.parse(
    """graph g {
  in %x : fp32[8,8]
  in %ids : int64[64]
  in %n : int32[64]
  in %d : int32[64]
  in %attention_mask : int64[8,8]
  const %six : fp32[] = [6.0]
  const %table : fp32[10,2] = absent
  %y : fp32[8,8] = min(%x, %six)
  %z : fp32[8,8] = map(%y) {tape="1 -> t0 | t0 = max(x0, -4.0) : fp32", to="fp32"}
  %rows : fp32[64,2] = gather(%table, %ids) {axis=0}
  %q : int32[64] = div(%n, %d)
  %m : fp32[8,8] = cast(%attention_mask) {to="fp32"}
  out %z
  out %rows
  out %q
  out %m
}
"""
)


def test_roles_and_numbers_are_read_off_the_graph() -> None:
    assert role_of(GRAPH, "ids") == Role("rows", 10, True)
    assert role_of(GRAPH, "d") == Role("divisor") and role_of(GRAPH, "n") is None
    assert landmarks(GRAPH, "x") == (6.0, -4.0) and landmarks(GRAPH, "ids") == ()


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_the_kind_inputs_are_lawful_and_the_same_again(kind: str) -> None:
    for seed in range(5):
        given, again = (random_inputs(GRAPH, seed, kind) for _ in range(2))
        assert all(np.array_equal(given[k], again[k], equal_nan=k == "x") for k in GRAPH.inputs)
        assert all(
            (given[k].shape, given[k].dtype) == (t.shape, t.dtype.numpy) for k, t in GRAPH.inputs.items()
        )
        assert given["ids"].min() >= -10 and given["ids"].max() <= 9
        assert not {0, -1} & set(given["d"].tolist()) and set(given["attention_mask"].flat) <= {0, 1}


def test_kinds_are_what_they_say() -> None:
    of = {kind: random_inputs(GRAPH, 0, kind) for kind in KINDS}
    assert {6.0, -4.0, 7.5} <= set(of["constants"]["x"].flat) and of["usual"]["x"].max() > 6
    assert {float(np.float32(x)) for x in (3.4028234663852886e38, 1.1754943508222875e-38)} <= set(
        of["extremes"]["x"].flat
    )
    assert np.isnan(of["special"]["x"]).any() and np.isinf(of["special"]["x"]).any()
    assert np.abs(of["small"]["x"]).max(axis=1).min() < 1e-5 and np.abs(of["large"]["x"]).max() > 100
    assert of["extremes"]["ids"].min() < 0 <= of["usual"]["ids"].min()
    assert {-(2**31), 2**31 - 1} <= set(of["extremes"]["n"].tolist())
    assert len(set(of["special"]["ids"].tolist())) == 1
    masks = of["constants"]["attention_mask"].any(axis=1)
    assert masks.any() and not masks.all()
    usual = of["usual"]["attention_mask"]
    assert usual[:, 0].all() and not usual.all() and (np.diff(usual, axis=1) <= 0).all()


def _drawn(name: str, *lines: str, seeds: int = 3) -> list[np.ndarray]:
    """Return an input of a small graph, of each kind but the usual one."""
    graph = text.parse("\n".join(["graph g {", *lines, "  out %r", "}"]) + "\n")
    return [random_inputs(graph, seed, kind)[name] for seed in range(seeds) for kind in KINDS[1:]]


INDEX = {  # what an index is made of, the least and the most that a table of 9 rows allows
    "mod": ("const %k : int64[] = [9]", "%j : int64[6] = mod(%i, %k)", -(2**63), 2**63 - 1),
    "mul": ("const %k : int64[] = [2]", "%j : int64[6] = mul(%i, %k)", -4, 4),
    "min": ("const %k : int64[] = [8]", "%j : int64[6] = min(%i, %k)", -9, 2**63 - 1),
    "add": ("const %k : int64[] = [3]", "%j : int64[6] = add(%i, %k)", -12, 5),
}


@pytest.mark.parametrize("op", INDEX)
def test_what_becomes_an_index_is_any_that_is_lawful(op: str) -> None:
    const, node, least, most = INDEX[op]
    gather = "%r : fp32[6,2] = gather(%t, %j) {axis=0}"
    drawn = _drawn("i", "in %t : fp32[9,2]", "in %i : int64[6]", const, node, gather)
    assert all(least <= i.min() and i.max() <= most for i in drawn)
    found = {i for values in drawn for i in values.tolist()}
    assert min(found) < 0 and max(found) > 1


def test_offsets_by_arithmetic_rise() -> None:
    drawn = _drawn(
        "o",
        "in %t : fp32[5,4]",
        "in %i : int64[6]",
        "in %o : int64[4]",
        "const %one : int64[] = [1]",
        "%p : int64[4] = mul(%o, %one)",
        '%r : fp32[4,4] = embedding_bag(%t, %i, %p) {mode="sum"}',
    )
    assert all((np.diff(o) >= 0).all() and o.min() >= 0 and o.max() <= 6 for o in drawn)


@pytest.mark.parametrize("name", ["deposit", "mask_id", "length_m", "position_ids"])
def test_a_name_binds_the_usual_kind_alone(name: str) -> None:
    drawn = _drawn(name, f"in %{name} : int32[8]", f"%r : int32[8] = abs(%{name})")
    assert min(x.min() for x in drawn) < 0 and max(x.max() for x in drawn) > 8


def test_some_whole_rows_are_zero_or_equal_or_of_one_sign() -> None:
    drawn = _drawn("x", "in %x : fp32[4,16]", "%r : fp32[4,16] = neg(%x)")
    assert any((column < 0).all() for x in drawn for column in x.T)
    rows = [row for x in drawn for row in x if np.isfinite(row).all()]
    assert any((row == 0).all() for row in rows)
    assert any((row == row[0]).all() and row[0] for row in rows)
    assert any((row < 0).all() for row in rows) and any((row > 0).all() for row in rows)
    assert any((row == row.max()).sum() == 2 for row in rows)


def test_a_number_of_the_graph_is_met_behind_arithmetic_and_among_many() -> None:
    lines = [
        "in %x : fp32[]",
        "const %c : fp32[] = [4.0]",
        "const %t : fp32[] = [6.0]",
        "%y : fp32[] = mul(%x, %c)",
        "%z : fp32[] = sub(%t, %y)",
        "%r : bool[] = less(%z, %c)",
    ]
    graph = text.parse("\n".join(["graph g {", *lines, "  out %r", "}"]) + "\n")
    assert solved(graph, "x") == (0.5,)
    assert all(random_inputs(graph, seed, "constants")["x"] == 0.5 for seed in range(5))
    many = ", ".join(f"{n}.25" for n in range(100))
    drawn = _drawn(
        "x", "in %x : fp32[4,1]", f"const %t : fp32[100] = [{many}]", "%r : bool[4,100] = less(%x, %t)"
    )
    assert any((x % 1 == 0.25).any() for x in drawn)


@pytest.mark.parametrize("size", [1 << 30, 1 << 40])
def test_inputs_beyond_the_memory_allowed_are_refused_before_they_are_drawn(size: int) -> None:
    graph = text.parse(f"graph g {{\n  in %x : int8[{size}]\n  in %y : int8[1]\n  out %y\n}}")
    with pytest.raises(UserError, match=rf"inputs of g takes {8 * size + 8} bytes .*%x : int8\[{size}\]"):
        random_inputs(graph)


def test_an_empty_input_whose_other_dimensions_no_array_can_have_is_refused() -> None:
    graph = text.parse(f"graph g {{\n  in %x : int64[0,{1 << 31},{1 << 31}]\n  in %y : int8[1]\n  out %y\n}}")
    with pytest.raises(UserError, match="drawing inputs of g takes"):
        random_inputs(graph)


def test_experts_that_are_chosen_are_there() -> None:
    graph = text.parse(
        """graph g {
  in %x : fp32[4,8]
  in %chosen : int64[4,2]
  in %w : fp32[5,8,6]
  %y : fp32[8,6] = expert_matmul(%x, %w, %chosen)
  out %y
}"""
    )
    drawn = random_inputs(graph, 0)["chosen"]
    assert -5 <= drawn.min() <= drawn.max() < 5
    assert evaluate(graph, random_inputs(graph, 0))["y"].shape == (8, 6)
