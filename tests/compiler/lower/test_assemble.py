"""A program's bindings and what it says of the model."""

from __future__ import annotations

from mtia_emu.compiler import text
from mtia_emu.compiler.lower.assemble import About
from mtia_emu.compiler.pipeline import compile_graph

from mtia_emu.machine.chip import load_chip
from mtia_emu.program.isa import Program

GRAPH = """graph g {
  in %x : fp32[16,16]
  const %w0 : fp32[16,16] = absent
  const %scale : fp32[16] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]
  %p0 : fp32[16,16] = matmul(%x, %w0)
  %s2 : fp32[16,16] = mul(%p0, %scale)
  out %s2
}"""


NOTHING = About()


def program(about: About = NOTHING) -> Program:
    return compile_graph(text.parse(GRAPH), load_chip("tiny"), about=about).program


def test_bindings_keep_the_types_that_the_user_sees() -> None:
    made = program()
    assert str(made.inputs[0].type) == "fp16[16,16]" and str(made.inputs[0].model_type) == "fp32[16,16]"
    assert made.outputs[0].name == "s2" and str(made.outputs[0].model_type) == "fp32[16,16]"


def test_the_data_of_constants_is_kept_where_there_is_any() -> None:
    made = program()
    assert len(made.consts) == 2 and len(made.data) == 1


def test_a_program_says_what_it_is_told_of_its_model() -> None:
    assert program().model == "g"
    made = program(About("mine", "a.onnx", {"batch": 16}))
    assert (made.model, made.source, made.dims, made.dtype) == ("mine", "a.onnx", {"batch": 16}, "fp16")
    assert made.notes[0] == "the model's fp32 runs as fp16"
    assert made.chip["name"] == "tiny" and [work.op for work in made.works] == ["matmul_map"]
