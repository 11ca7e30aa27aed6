"""Samples drawn to break, and what counts as wrong on them: planted faults are named, right passes pass."""

from __future__ import annotations

import numpy as np
import pytest
from mtia_emu.compiler import text
from mtia_emu.compiler.graph import Graph
from mtia_emu.compiler.inputs.samples import KINDS

from mtia_emu.testing.judge import TOLERANCES, Judge, Sample, coarse, samples_for
from mtia_emu.testing.verify import first_fault, with_weights
from mtia_emu.types import INT8, NARROW_FLOATS

from .planted import RIGHT, WRONG, Planted


def _graph(*lines: str) -> Graph:
    return text.parse("\n".join(["graph g {", *lines, "}"]) + "\n")


@pytest.mark.parametrize("name", WRONG)
def test_a_planted_fault_is_named(name: str) -> None:
    written, rule = WRONG[name]
    graph = text.parse(written)
    for seed in range(3):
        fault = first_fault(graph, [Planted(rule)], samples_for(graph, seed))
        assert fault is not None and fault.what.startswith("output %r[") and "(sample: " in fault.what


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_pass_is_verified(name: str) -> None:
    written, rule = RIGHT[name]
    graph = text.parse(written)
    for seed in range(20):
        assert first_fault(graph, [Planted(rule)], samples_for(graph, seed)) is None
    assert text.dump(Planted(rule)(graph)) != text.dump(graph)


def test_a_fault_says_where_and_how_far() -> None:
    graph = _graph("  in %x : fp32[2,3]", "  %r : fp32[2,3] = neg(%x)", "  out %r")
    other = _graph(
        "  in %x : fp32[2,3]",
        "  const %c : fp32[3] = [-1.0, -1.0, -1.5]",
        "  %r : fp32[2,3] = mul(%x, %c)",
        "  out %r",
    )
    x = np.array([[1, 2, 4], [0, 1, 0]], np.float32)
    assert Judge(graph, [Sample("usual", 7, {"x": x})]).fault(graph, other) == (
        "output %r[0, 2] is -6, expected -4: 2.0e+00 off, 3.8e-06 is allowed (sample: usual, seed 7)"
    )


def test_what_is_no_number_is_told_from_what_is() -> None:
    graph = _graph("  in %x : fp32[3]", "  %r : fp32[3] = copy(%x)", "  out %r")
    makes = "  %r : fp32[3] = {}(%x)"
    given = {
        "abs": ([1.0, np.nan, -np.inf], "output %r[2] is inf, expected -inf: which no rounding explains"),
        "log": ([-1.0, 1.0, 2.0], "output %r[0] is nan, expected -1: which no rounding explains"),
        "relu": ([1.0, np.nan, np.inf], ""),
    }
    for op, (values, said) in given.items():
        other = _graph("  in %x : fp32[3]", makes.format(op), "  out %r")
        assert Judge(graph, [{"x": np.array(values, np.float32)}]).fault(graph, other) == said


def test_cancellation_is_allowed_where_it_is() -> None:
    """(x + c) - c loses what x has beyond the digits of c; x + 0 loses nothing."""
    head, tail = "  in %x : fp32[4]", "  out %r"
    const = "  const %c : fp32[] = [{}]"
    lossy, plain = (
        _graph(head, const.format(c), "  %s : fp32[4] = add(%x, %c)", "  %r : fp32[4] = sub(%s, %c)", tail)
        for c in ("1000.0", "0.0")
    )
    short = _graph(head, "  %r : fp32[4] = copy(%x)", tail)
    samples = [{"x": np.array([0.1, 0.2, 0.3, 0.4], np.float32)}]
    off = np.abs((samples[0]["x"] + np.float32(1000)) - np.float32(1000) - samples[0]["x"]).max()
    assert off > 1e-5 and Judge(lossy, samples).fault(lossy, short) == ""
    assert "off" in Judge(plain, samples).fault(short, lossy)


def test_codes_may_fall_on_another_side() -> None:
    plain = _graph("  in %x : fp32[4,4]", "  %y : fp32[4,4] = neg(%x)", "  out %y")
    codes = _graph(
        "  in %x : fp32[4,4]", '  %q : int8[4,4], %s : fp32[4,1] = quantise_rows(%x) {to="int8"}', "  out %q"
    )
    assert (coarse(plain), coarse(codes)) == (0.0, 5e-2)


def test_a_sample_that_indexes_what_is_not_there_is_tamed() -> None:
    graph = with_weights(
        _graph(
            "  in %i : int64[4]",
            "  const %two : int64[] = [2]",
            "  const %t : fp32[5,2] = absent",
            "  %j : int64[4] = mul(%i, %two)",
            "  %r : fp32[4,2] = gather(%t, %j) {axis=0}",
            "  out %r",
        )
    )
    samples = samples_for(graph, 0)
    assert [s.kind for s in samples] == list(KINDS)
    assert all(s["i"].min() >= -2 and s["i"].max() <= 2 for s in samples)
    assert {i for s in samples for i in s["i"].tolist()} - {0, 1}


def test_every_type_of_codes_has_a_tolerance() -> None:
    assert set(TOLERANCES) == {kind.name for kind in (INT8, *NARROW_FLOATS)}
