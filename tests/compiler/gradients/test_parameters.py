"""Which stored floats are trained: weights, tables, norms and biases; not masks, frequencies, statistics."""

from __future__ import annotations

import numpy as np
import pytest
from mtia_emu.compiler import text
from mtia_emu.compiler.gradients.parameters import (
    as_constants,
    chosen,
    frozen_note,
    looked_up_of,
    parameters_of,
)
from mtia_emu.compiler.graph import Const

from mtia_emu.errors import UserError

MODEL = text.parse("""graph model {
  in %ids : int64[3]
  in %places : fp32[3,1]
  in %table : fp32[9,4]
  in %w : fp32[6,4]
  in %bias : fp32[6]
  in %mask : fp32[3,6]
  in %frequencies : fp32[1,6]
  in %unused : fp32[2,2]
  %rows : fp32[3,4] = gather(%table, %ids) {axis=0}
  %turned : fp32[4,6] = transpose(%w) {perm=[1, 0]}
  %product : fp32[3,6] = matmul(%rows, %turned)
  %biased : fp32[3,6] = add(%product, %bias)
  %masked : fp32[3,6] = add(%biased, %mask)
  %angles : fp32[3,6] = mul(%times, %frequencies)
  %times : fp32[3,1] = cast(%count) {to="fp32"}
  %count : int64[3,1] = reshape(%ids) {shape=[3, 1]}
  %y : fp32[3,6] = mul(%masked, %angles)
  out %y
}
""")
STORED = ["table", "w", "bias", "mask", "frequencies", "unused"]


def test_weights_tables_and_biases_are_trained() -> None:
    assert parameters_of(MODEL, STORED) == ["table", "w", "bias"]


def test_a_table_and_what_is_tied_to_it_are_looked_up() -> None:
    assert {"w", "table"} & looked_up_of(MODEL, {}) == {"table"}
    assert {"w", "table", "head"} & looked_up_of(MODEL, {"head": "table"}) == {"table", "head"}
    assert {"w", "table", "first"} & looked_up_of(MODEL, {"table": "first"}) == {"table", "first"}


def test_patterns_add_and_take_away() -> None:
    assert chosen(MODEL, STORED, train=["mask"], freeze=["ta*"]) == ["w", "bias", "mask"]
    with pytest.raises(UserError, match="--train 'masks' names no stored float; did you mean 'mask'"):
        chosen(MODEL, STORED, train=["masks"])
    with pytest.raises(UserError, match="has no parameters to train"):
        chosen(MODEL, STORED, freeze=["*"])


def test_the_others_are_constants_again() -> None:
    consts = {
        "mask": Const.of(np.zeros((3, 6), np.float32)),
        "frequencies": Const.of(np.ones((1, 6), np.float32)),
    }
    graph = as_constants(MODEL, consts)
    assert "mask" not in graph.inputs and "frequencies" not in graph.inputs
    assert frozen_note(["a", "b", "c", "d"])[0].startswith("not trained: %a, %b, %c, ...")
    assert frozen_note([]) == ()
