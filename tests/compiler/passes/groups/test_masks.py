"""What a mask hides for certain: bounds hold whatever the inputs are, and say as much as they can."""

from __future__ import annotations

import numpy as np
import pytest
from mtia_emu.compiler import text
from mtia_emu.compiler.check import check
from mtia_emu.compiler.graph import Graph, Match
from mtia_emu.compiler.passes import FuseMaps
from mtia_emu.compiler.passes.fuse_attention import HIDDEN
from mtia_emu.compiler.passes.groups.masks import RULES, Bounds, MaskBounds
from mtia_emu.compiler.reference import evaluate
from mtia_emu.compiler.rewrite import Draft

SHOWN = ", ".join("true" if j <= i + 2 else "false" for i in range(3) for j in range(5))
CAUSAL = f"const %c : bool[3,5] = [{SHOWN}]"
HEAD = f"""{CAUSAL}
const %zero : fp32[] = [0.0]
const %one : fp32[] = [1.0]
const %low : fp32[] = [-1e9]
in %pad : bool[2,1,1,5]
in %bias : fp32[2,1,3,5]
"""


def graph(lines: str) -> Graph:
    """Return the graph of a mask %m, [2,1,3,5], of a causal one, of padding and a bias."""
    return check(text.parse(f"graph g {{\n{HEAD}{lines}\nout %m\n}}"))


def wide(name: str, op: str, kind: str = "bool") -> str:
    return f"%{name} : {kind}[2,1,3,5] = {op}"


BOTH = wide("both", "and(%c, %pad)")
PYTORCH = f"{BOTH}\n{wide('m', 'where(%both, %zero, %low)', 'fp32')}"
TRANSFORMERS = "\n".join(
    (
        BOTH,
        wide("away", "not(%both)"),
        wide("number", 'cast(%away) {to="fp32"}', "fp32"),
        wide("m", "mul(%number, %low)", "fp32"),
    )
)
SUBTRACTED = "\n".join(
    (
        wide("number", 'cast(%both) {to="fp32"}', "fp32"),
        wide("rest", "sub(%one, %number)", "fp32"),
        wide("m", "mul(%rest, %low)", "fp32"),
    )
)
BERT = f"{BOTH}\n{SUBTRACTED}"
BIASED = f"{BOTH}\n{wide('m', 'where(%both, %bias, %low)', 'fp32')}"
EITHER = f"{wide('both', 'or(%c, %pad)')}\n{wide('m', 'where(%both, %zero, %low)', 'fp32')}"
SUMMED = f"%a : fp32[3,5] = where(%c, %zero, %low)\n{wide('m', 'add(%a, %bias)', 'fp32')}"
MASKS = {
    "pytorch": (PYTORCH, 2),
    "transformers": (TRANSFORMERS, 2),
    "bert": (BERT, 2),
    "biased": (BIASED, 2),
    "either": (EITHER, None),  # padding may show what is not causal
    "summed": (SUMMED, None),  # the bias may be anything
}


def hidden(bounds: Bounds) -> np.ndarray:
    return bounds.high <= HIDDEN


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("name", MASKS)
def test_a_causal_mask_is_seen_behind_padding(name: str, fused: bool) -> None:
    lines, diagonal = MASKS[name]
    made = FuseMaps()(graph(lines)) if fused else graph(lines)
    assert MaskBounds(Match(Draft(made))).diagonal("m", (3, 5), hidden) == diagonal


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("name", MASKS)
def test_no_input_leaves_the_bounds(name: str, fused: bool) -> None:
    made = FuseMaps()(graph(MASKS[name][0])) if fused else graph(MASKS[name][0])
    low, high = MaskBounds(Match(Draft(made))).of("m").seen_as(made.type_of("m"))
    rng = np.random.default_rng(0)
    for _ in range(50):
        pad, bias = rng.random((2, 1, 1, 5)) < 0.5, rng.normal(0, 1e5, (2, 1, 3, 5)).astype(np.float32)
        (value,) = evaluate(made, {"pad": pad, "bias": bias}).values()
        assert (low <= value).all() and (value <= high).all()


@pytest.mark.parametrize(
    ("op", "operands", "low", "high"),
    [
        ("and", ([0, 1], [1, 1]), 0, 1),
        ("or", ([0, 1], [1, 1]), 1, 1),
        ("not", ([0, 1],), 0, 1),
        ("add", ([1, 2], [-5, 3]), -4, 5),
        ("sub", ([1, 2], [-5, 3]), -2, 7),
        ("mul", ([-1, 2], [-5, 3]), -10, 6),
        ("mul", ([0, 0], [-np.inf, np.inf]), -np.inf, np.inf),  # 0 times an infinity is no number
        ("where", ([0, 1], [1, 2], [-7, -6]), -7, 2),
        ("where", ([1, 1], [1, 2], [-7, -6]), 1, 2),
        ("where", ([0, 0], [1, 2], [-7, -6]), -7, -6),
    ],
)
def test_bounds_of_functions(op: str, operands: tuple[list[float], ...], low: float, high: float) -> None:
    with np.errstate(invalid="ignore"):
        found = RULES[op](*(Bounds(np.asarray(float(a)), np.asarray(float(b))) for a, b in operands))
    assert (float(found.low), float(found.high)) == (low, high)


def test_integers_that_may_wrap_around_are_anything() -> None:
    lines = (
        'const %big : fp32[] = [300.0]\n%n : uint8[] = cast(%big) {to="uint8"}\n'
        '%f : fp32[] = cast(%n) {to="fp32"}\n%m : fp32[2,1,3,5] = add(%f, %bias)'
    )
    found = MaskBounds(Match(Draft(graph(lines)))).of("n")
    assert (found.low, found.high) == (-np.inf, np.inf)
