"""Random inputs: lawful for the graph, and of the characters that they are said to be."""

from __future__ import annotations

import numpy as np
import pytest
from mtia_emu.compiler import text
from mtia_emu.compiler.landmarks import landmarks
from mtia_emu.compiler.roles import Role, role_of
from mtia_emu.compiler.samples import KINDS, random_inputs

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
        assert not {0, -1} & set(given["d"].tolist())
        assert kind in ("small", "large", "extremes") or set(given["attention_mask"].flat) <= {0, 1}


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
