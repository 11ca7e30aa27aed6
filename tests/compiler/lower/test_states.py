"""Values that live in place: an output in the memory of the input whose next value it is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mtia_emu.compiler import text
from mtia_emu.compiler.check import check
from mtia_emu.compiler.pipeline import compile_graph, compile_lowered

from mtia_emu.engine.function import execute
from mtia_emu.errors import UserError
from mtia_emu.machine.chip import load_chip
from mtia_emu.program.isa import Binding, Program

CHIP = load_chip("tiny")
TRAIN = """graph train {
  in %w : fp32[8,6]
  in %g : fp32[8,6]
  in %x : fp32[4,8]
  %new : fp32[8,6] = sub(%w, %g)
  %y : fp32[4,6] = matmul(%x, %w)
  %old : fp32[6,8] = transpose(%w) {perm=[1, 0]}
  out %new at %w
  out %y
  out %old
}
"""


def place(bindings: tuple[Binding, ...], name: str) -> tuple[str, int]:
    """Return where a tensor of the model lies."""
    (binding,) = (b for b in bindings if b.name == name)
    return binding.space, binding.address


def program_of(source: str) -> Program:
    return compile_lowered(text.parse(source), CHIP, dtype="fp32")


def test_a_state_is_written_as_text() -> None:
    assert text.dump(text.parse(TRAIN)) == TRAIN
    with pytest.raises(UserError, match="%y is no input of the graph: an output lies at one"):
        text.parse(TRAIN.replace("at %w", "at %y"))


def test_the_next_value_lies_where_the_one_before_lay() -> None:
    program = program_of(TRAIN)
    assert place(program.outputs, "new") == place(program.inputs, "w")
    apart = program_of(TRAIN.replace(" at %w", ""))
    assert place(apart.outputs, "new") != place(apart.inputs, "w")
    assert apart.dram_bytes == program.dram_bytes + 256  # 8 * 6 * 4 bytes, on a line of 256


def test_all_that_reads_a_state_reads_it_before_it_changes() -> None:
    rng = np.random.default_rng(0)
    w, g, x = (rng.standard_normal(shape).astype(np.float32) for shape in ((8, 6), (8, 6), (4, 8)))
    got = execute(program_of(TRAIN), CHIP, {"w": w, "g": g, "x": x}).outputs
    assert np.array_equal(got["new"], w - g) and np.array_equal(got["old"], w.T)
    assert np.allclose(got["y"], x @ w, rtol=1e-5)


@settings(max_examples=25)
@given(st.integers(0, 99), st.permutations(["a", "b", "c"]))
def test_states_that_depend_on_one_another_change_at_the_end(seed: int, order: list[str]) -> None:
    """Each next value is of values before: a' = a + b, b' = b + c, c' = c + a, in any order of outputs."""
    lines = {"a": "%na at %a", "b": "%nb at %b", "c": "%nc at %c"}
    source = "graph g {\n" + "".join(f"  in %{v} : fp32[5,7]\n" for v in "abc")
    source += "".join(f"  %n{v} : fp32[5,7] = add(%{v}, %{n})\n" for v, n in ("ab", "bc", "ca"))
    source += "".join(f"  out {lines[v]}\n" for v in order) + "}\n"
    rng = np.random.default_rng(seed)
    values = {v: rng.integers(-9, 9, (5, 7)).astype(np.float32) for v in "abc"}
    got = execute(compile_graph(text.parse(source), CHIP, dtype="fp32").program, CHIP, values).outputs
    for v, n in ("ab", "bc", "ca"):
        assert np.array_equal(got[f"n{v}"], values[v] + values[n])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("%g : fp32[8,6]", "%g : fp32[8,6]\n  in %v : fp16[8,6]"), ""),
        (("out %new at %w", "out %new at %x"), "output %new : fp32[8,6] cannot lie at %x : fp32[4,8]"),
        (("out %y\n", "out %y at %g\n"), "cannot lie at %g : fp32[8,6] (right: of its dtype, longer on one"),
        (("out %new at %w", "out %new at %w\n  out %more at %w"), "several outputs lie at %w (right: one)"),
    ],
)
def test_what_cannot_lie_in_place_is_refused(change: tuple[str, str], words: str) -> None:
    source = TRAIN.replace("  %new :", "  %more : fp32[8,6] = neg(%w)\n  %new :").replace(*change)
    graph = text.parse(source)
    if not words:
        check(graph)
        return
    with pytest.raises(UserError) as caught:
        check(graph)
    assert words in str(caught.value)


def test_a_state_without_its_output_is_gone() -> None:
    graph = text.parse(TRAIN)
    assert dict(graph.states) == {"new": "w"}
    assert not graph.with_nodes(graph.nodes, outputs=("y",)).prune().states
