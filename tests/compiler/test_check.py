"""The law of the graph."""

from __future__ import annotations

import pytest
from mtia_emu.compiler import text
from mtia_emu.compiler.check import check, check_made

from mtia_emu.errors import UserError

GOOD = """graph g {
  in %x : fp32[4,8]
  in %sizes : int64[2]
  in %ids : int64[6]
  const %w : fp32[8,2] = absent
  const %t : fp32[10,3] = absent
  const %o : int64[3] = [0, 1, 2]
  %a : fp32[4,8] = exp(%x)
  %h : fp32[4,2] = matmul(%a, %w)   # fc1
  %r0 : int64[6], %r1 : int64[6] = ragged_split(%ids, %sizes)
  %e : fp32[2,3] = embedding_bag(%t, %r0, %o) {mode="sum"}
  %f : fp32[2,3] = embedding_bag(%t, %r1, %o) {mode="max"}
  out %h
  out %e
  out %f
}
"""


def test_a_lawful_graph_is_returned() -> None:
    graph = text.parse(GOOD)
    assert check(graph) is graph


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("%h : fp32[4,2]", "%h : fp32[4,3]", r"stated as fp32\[4,3\], but its operands give fp32\[4,2\]"),
        ("const %w : fp32[8,2]", "const %w : fp32[9,2]", r"inner sizes differ: fp32\[4,8\] and fp32\[9,2\]"),
        ("exp(%x)", "exq(%x)", "unknown op 'exq'; did you mean 'exp'"),
        ("exp(%x)", "exp(%x, %x)", "exp takes 1 operands, got 2"),
        ('mode="sum"', 'mod="sum"', "unknown attribute of embedding_bag 'mod'; did you mean 'mode'"),
        ('mode="sum"', 'mode="avg"', "unknown mode 'avg'"),
        (' {mode="sum"}', "", "embedding_bag needs the attribute 'mode'"),
        ("exp(%x)", "exp(%x) {axis=1}", "unknown attribute of exp 'axis'"),
        ("out %h", "out %h\n  out %r0", "%r0, a run of ragged_split, is an output"),
        ("  out %h\n", "  %n : int64[6] = neg(%r0)\n  out %n\n", "only embedding_bag may"),
    ],
)
def test_faults_are_named(old: str, new: str, words: str) -> None:
    assert old in GOOD
    with pytest.raises(UserError, match=words) as caught:
        check(text.parse(GOOD.replace(old, new)), after="fuse")
    assert "after fuse: " in str(caught.value)


def test_the_lines_around_the_fault_are_shown() -> None:
    with pytest.raises(UserError) as caught:
        check(text.parse(GOOD.replace("%h : fp32[4,2]", "%h : fp32[4,3]")))
    lines = str(caught.value).splitlines()
    assert "(h, from fc1)" in lines[0]
    assert lines[1] == "  %a : fp32[4,8] = exp(%x)"
    assert lines[2] == "> %h : fp32[4,3] = matmul(%a, %w)   # fc1"
    assert len(lines) == 5


INPUTS = "  in %x : fp32[4]\n  in %n : int32[4]\n"
SMALL = """graph s {
  in %x : fp32[4]
  in %n : int32[4]
  %y : fp32[4] = neg(%x)
  %m : int32[4] = neg(%n)
  out %y
  out %m
}
"""


@pytest.mark.parametrize(
    ("old", "new", "floats", "words"),
    [
        ("fp32", "int32", "", r"input %x is int32\[4\], not fp32\[4\] \(right: as it was\)"),
        ("fp32", "int32", "int32", r"input %x is int32\[4\], not fp32\[4\]"),
        ("fp32", "bf16", "", r"input %x is bf16\[4\], .* `floats` of the pass is 'bf16'"),
        ("fp32", "bf16", "fp16", r"input %x is bf16\[4\], not fp32\[4\]"),
        ("fp32[4]", "fp32[5]", "fp32", r"input %x is fp32\[5\], not fp32\[4\]"),
        ("int32", "fp32", "fp32", r"input %n is fp32\[4\], not int32\[4\]"),
        (INPUTS, "".join(reversed(INPUTS.splitlines(keepends=True))), "", "inputs are %n, %x, not %x, %n"),
        ("  in %x", "  in %z : bool[1]\n  in %x", "", "inputs are %z, %x, %n, not %x, %n"),
        ("  out %y\n  out %m", "  out %m\n  out %y", "", "outputs are %m, %y, not %y, %m"),
        ("out %m", "out %m\n  out %x", "", "outputs are %y, %m, %x, not %y, %m"),
        ("  out %m\n", "", "", "outputs are %y, not %y, %m"),
    ],
)
def test_a_pass_keeps_inputs_and_outputs(old: str, new: str, floats: str, words: str) -> None:
    assert old in SMALL
    after = text.parse(SMALL.replace(old, new))
    with pytest.raises(UserError, match=f"graph s: after mine: .*{words}"):
        check_made(text.parse(SMALL), after, "mine", floats)


def test_a_pass_that_names_its_floats_may_change_them() -> None:
    after = text.parse(SMALL.replace("fp32", "bf16"))
    assert check_made(text.parse(SMALL), after, "mine", "bf16") is after


def test_a_pass_that_loses_a_state_is_named() -> None:
    source = "graph g {\n  in %w : fp32[4]\n  %n : fp32[4] = neg(%w)\n  out %n at %w\n}\n"
    graph = text.parse(source)
    assert check_made(graph, graph, "mine") is graph
    with pytest.raises(UserError, match="after mine: it loses that %n at %w lives in place"):
        check_made(graph, text.parse(source.replace(" at %w", "")), "mine")
