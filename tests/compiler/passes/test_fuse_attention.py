"""Attention as one op."""

from __future__ import annotations

from pathlib import Path

import pytest
from before_after import cases, hold, lowered, outcomes, results, with_weights
from mtia_emu.compiler import pipeline, text
from mtia_emu.compiler.check import check
from mtia_emu.compiler.frontend.load import InputBindings, import_model
from mtia_emu.compiler.graph import Graph
from mtia_emu.compiler.passes import FuseAttention, FuseMaps, FuseTails
from onnx import TensorProto, helper

from mtia_emu import testing
from mtia_emu.machine.chip import load_chip
from mtia_emu.types import FP32


@pytest.mark.parametrize("case", cases("fuse-attention"))
def test_before_and_after(case: str) -> None:
    hold(case)


ATTENTION = """graph g {{
  in %q : fp32[{b},{h},3,4]
  in %k : fp32[{b},{h},4,5]
  in %v : fp32[{b},{vh},5,4]
  %scores : fp32[{b},{h},3,5] = matmul(%q, %k)
  %p : fp32[{b},{h},3,5] = {between}(%scores){attrs}
  %y : fp32[{b},{h},3,4] = matmul(%p, %v)
  out %y
  out %{other}
}}"""


def skipped(**changed: object) -> list[str]:
    whole = {"b": 1, "h": 2, "vh": 2, "between": "softmax", "attrs": " {axis=3}", "other": "y"}
    return outcomes("fuse-attention", ATTENTION.format(**(whole | changed)))


@pytest.mark.parametrize(
    ("changed", "reasons"),
    [
        ({"attrs": " {axis=1}"}, ["the softmax is not over the keys of [batch, heads, queries, keys]"]),
        ({"between": "exp", "attrs": ""}, []),
        ({"other": "scores"}, ["%scores has other users"]),
        ({"other": "p"}, []),
        ({"vh": 1}, ["keys are fp32[1,2,4,5] and values fp32[1,1,5,4]: groups of heads differ"]),
    ],
)
def test_what_is_no_attention_is_left_alone(changed: dict[str, object], reasons: list[str]) -> None:
    assert skipped(**changed) == reasons


MASKED = """graph g {{
  in %q : fp32[1,1,3,2]
  in %k : fp32[1,1,2,3]
  in %v : fp32[1,1,3,2]
  {mask}
  %scores : fp32[1,1,3,3] = matmul(%q, %k)
  %masked : fp32[1,1,3,3] = {op}
  %p : fp32[1,1,3,3] = softmax(%masked) {{axis=3}}
  %y : fp32[1,1,3,2] = matmul(%p, %v)
  out %y
}}"""
HIDES = "const %m : fp32[3,3] = [0.0, -1e9, -1e9, 0.0, 0.0, -1e9, 0.0, 0.0, 0.0]"


def fused(mask: str, op: str) -> Graph:
    """Return the graph of a mask after the pass, its results unchanged."""
    graph = with_weights(check(text.parse(MASKED.format(mask=mask, op=op))))
    made = check(FuseAttention()(FuseTails()(FuseMaps()(graph))))
    testing.assert_close(results(made, graph), results(graph), 1e-5)
    assert [n.op for n in made.nodes if n.op in ("attention", "softmax")] == ["attention"]
    return made


def diagonal(mask: str, op: str = "add(%scores, %m)") -> int | None:
    """Return the diagonal that the pass finds in a mask, None where it finds none."""
    node = next(n for n in fused(mask, op).nodes if n.op == "attention")
    return node.attrs.get("diagonal")


def test_a_causal_mask_gives_its_diagonal() -> None:
    assert diagonal(HIDES) == 0
    assert (
        diagonal(
            HIDES.replace("-1e9, 0.0, 0.0, -1e9", "0.0, 0.0, 0.0, 0.0").replace("[0.0, -1e9", "[0.0, 0.0")
        )
        == 2
    )


@pytest.mark.parametrize(
    "mask",
    [
        HIDES.replace("-1e9", "-9.0"),  # what it hides still counts a little
        HIDES.replace("0.0, -1e9, -1e9", "-1e9, 0.0, -1e9"),  # no diagonal
        HIDES.replace("[0.0", "[1.0"),  # it changes what it does not hide
        "in %m : fp32[3,3]",  # it is not known
        "const %m : fp32[3,3] = absent",
    ],
)
def test_other_masks_are_added_everywhere(mask: str) -> None:
    assert diagonal(mask) is None


def test_a_mask_that_multiplies_hides_nothing() -> None:
    assert diagonal(HIDES, "mul(%scores, %m)") is None


GUARDED = """graph g {{
  in %q : fp32[1,2,3,2]
  in %k : fp32[1,2,2,3]
  in %v : fp32[1,2,3,2]
  const %m : fp32[1,1,3,3] = [-inf, -inf, -inf, 0.0, 0.0, -inf, 0.0, -inf, 0.0]
  const %zero : fp32[] = [{zero}]
  const %least : fp32[] = [{least}]
  %scores : fp32[1,2,3,3] = matmul(%q, %k)
  %masked : fp32[1,2,3,3] = add(%scores, %m)
  %p : fp32[1,2,3,3] = softmax(%masked) {{axis=3}}
  %most : fp32[1,1,3,1] = reduce_max(%m) {{axes=[3], keepdims=true}}
  %empty : bool[1,1,3,1] = equal(%most, %least)
  %safe : fp32[1,2,3,3] = where(%empty, %zero, %p)
  %y : fp32[1,2,3,2] = matmul(%safe, %v)
  out %y
}}"""


def test_a_guard_that_looks_at_the_mask_becomes_part_of_it() -> None:
    graph = check(text.parse(GUARDED.format(zero="0.0", least="-inf")))
    made = check(FuseAttention()(FuseTails()(graph)))
    assert [n.op for n in made.nodes] == ["transpose", "attention"]
    assert made.nodes[1].attrs["guarded"] is True
    testing.assert_close(results(made, graph), results(graph), 1e-5)


@pytest.mark.parametrize(("zero", "least"), [("1.0", "-inf"), ("0.0", "0.0")])
def test_what_only_looks_like_a_guard_is_left_alone(zero: str, least: str) -> None:
    reasons = outcomes("fuse-attention", GUARDED.format(zero=zero, least=least))
    assert reasons == ["what follows the softmax is no guard of rows that see nothing"]


Q, K = (2, 4, 6, 8), (2, 4, 6, 8)
PAST, ONE = (2, 4, 3, 8), (2, 4, 1, 8)
SPELLINGS: dict[str, tuple[dict[str, tuple[int, ...]], dict[str, object]]] = {
    "plain": ({"q": Q, "k": K, "v": K}, {}),
    "causal": ({"q": Q, "k": K, "v": K}, {"is_causal": 1}),
    "capped": ({"q": Q, "k": K, "v": K}, {"is_causal": 1, "softcap": 20.0, "scale": 0.1}),
    "shared": ({"q": Q, "k": (2, 2, 6, 8), "v": (2, 2, 6, 8)}, {"is_causal": 1}),
    "flat": ({"q": (2, 6, 32), "k": (2, 6, 16), "v": (2, 6, 16)}, {"q_num_heads": 4, "kv_num_heads": 2}),
    "biased": ({"q": Q, "k": K, "v": K, "bias": (6, 6)}, {}),
    "past": ({"q": Q, "k": K, "v": K, "": (), "pk": PAST, "pv": PAST}, {"is_causal": 1}),
    "one token": (
        {"q": (2, 4, 1, 8), "k": (2, 4, 1, 8), "v": (2, 4, 1, 8), "": (), "pk": PAST, "pv": PAST},
        {},
    ),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_operator_of_onnx_is_one_op_whatever_its_options(spelling: str) -> None:
    shapes, attrs = SPELLINGS[spelling]
    kinds = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items() if n]
    kept = ["y", "nk", "nv"] if "pk" in shapes else ["y"]
    node = helper.make_node("Attention", list(shapes), kept, **attrs)
    ends = [helper.make_empty_tensor_value_info(name) for name in kept]
    model = helper.make_model(
        helper.make_graph([node], "g", kinds, ends),
        opset_imports=[helper.make_opsetid("", 23)],
        ir_version=10,
    )
    graph = import_model(model, Path("m.onnx"), InputBindings())
    made = lowered(graph, (*pipeline.passes(FP32, FP32), *pipeline.mapping_passes(load_chip("mtia-2i"))))
    assert [n.op for n in made.nodes if n.op in ("attention", "softmax")] == ["attention"]
    before, after = results(graph), results(made, graph)
    testing.assert_close(after, before, 1e-5)
