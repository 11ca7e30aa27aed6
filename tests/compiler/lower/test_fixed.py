"""Mappings that the user fixes: found by layer, obeyed, computed right, refused where they cannot be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mtia_emu.compiler.lower.fixed import fixed_mappings
from mtia_emu.compiler.pipeline import compile_graph
from mtia_emu.compiler.text import parse

from mtia_emu import api
from mtia_emu.engine.function import execute
from mtia_emu.errors import UserError
from mtia_emu.machine.chip import load_chip
from mtia_emu.options import Options
from mtia_emu.program.isa import Program
from mtia_emu.study.tuning import tuning

CHIP = load_chip("tiny")
GRAPH = parse("""graph g {
  in %x : fp16[24,48]
  in %q : fp16[1,2,8,8]
  in %k : fp16[1,2,8,16]
  in %v : fp16[1,2,16,8]
  const %w : fp16[48,40] = absent
  %y : fp16[24,40] = matmul(%x, %w)   # fc
  %z : fp16[24,40] = gelu(%y)   # act
  %s : fp16[1,2,8,16] = matmul(%q, %k)   # scores
  %p : fp16[1,2,8,16] = softmax(%s) {axis=3}   # soft
  %o : fp16[1,2,8,8] = matmul(%p, %v)   # mixed
  out %z
  out %o
}
""")
FC = "rows=m cols=n tile=8x8x16 outer=m"


def program(mapping: str | None, **options: bool) -> Program:
    chosen = Options(mapping=mapping, prefetch=False, beside=False)
    return compile_graph(GRAPH, CHIP, options=chosen, tuning=tuning(chosen)).program


def mappings(p: Program) -> dict[str, str]:
    return {x.name: p.blocks[x.block].mapping for x in p.launches}


def test_a_layer_gets_the_mapping_that_is_fixed_and_the_others_theirs() -> None:
    free, fixed = mappings(program(None)), mappings(program(f"act: {FC}; mix*: lane=1 rows=4x1 keys=8x2"))
    changed = {name for name in free if free[name] != fixed[name]}
    assert {fixed[name] for name in changed} == {FC, "lane=1 rows=4x1 keys=8x2"} and len(changed) == 2


def test_a_file_says_the_same_and_its_exact_names_stand_before_patterns(tmp_path: Path) -> None:
    file = tmp_path / "m.toml"
    file.write_text(f'[mappings]\n"a*" = "rows=n cols=m tile=8x8x16 outer=m"\n"act" = "{FC}"\n')
    assert FC in mappings(program(str(file))).values()


@pytest.mark.parametrize("tile", ["8x8x8", "16x8x16", "3x8x48", "8x16x24"])
@pytest.mark.parametrize("more", ["outer=m", "outer=n hold=1x2", "outer=m hold=2x1 depth=3"])
@pytest.mark.parametrize("split", ["rows=m cols=n", "rows=n cols=k", "rows=m1n2 cols=m"])
def test_whatever_fits_computes_what_the_model_says(tile: str, more: str, split: str) -> None:
    graph = parse("graph g {\n in %a : fp16[20,48]\n in %b : fp16[48,40]\n"
                  " %y : fp16[20,40] = matmul(%a, %b)   # fc\n out %y\n}\n")  # fmt: skip
    options = Options(mapping=f"fc: {split} tile={tile} {more}")
    rng = np.random.default_rng(0)
    a, b = (rng.integers(-4, 5, shape).astype(np.float16) for shape in ((20, 48), (48, 40)))
    try:
        compiled = compile_graph(graph, CHIP, options=options, tuning=tuning(options)).program
    except UserError as error:
        assert "fits)" in str(error)
        return
    assert (execute(compiled, CHIP, {"a": a, "b": b}).outputs["y"] == a @ b).all()


@pytest.mark.parametrize(
    ("mapping", "error"),
    [
        (f"akt: {FC}", "no layer 'akt' that has a mapping; did you mean 'act'"),
        ("act", "'act' names no layer"),
        ("nothing.toml", "there is no file nothing.toml"),
        ("act: rows=m cols=n tile=8x8 outer=m", "'tile=8x8' is not right"),
        ("act: rows=m cols=n tile=64x64x16 outer=m", "of accumulators, a PE has .* fits"),
        ("act: rows=m cols=n4k2 tile=8x8x16 outer=m", "does not split an axis of 2 PEs"),
        ("act: rows=m cols=n tile=8x8x9 outer=m", "panels of 9 do not fill the array's 4 lanes"),
        (
            "act: rows=m cols=n tile=8x8x16 outer=m hold=9x1",
            r"more panels than there are \(right: up to hold=3x2",
        ),
        ("mixed: lane=3 rows=4x1 keys=8x2", r"lane=3 is not right \(right: 1, or 2\)"),
        ("mixed: lane=1 rows=999x1 keys=8x2", "more than there is"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(mapping: str, error: str) -> None:
    with pytest.raises(UserError, match=error):
        program(mapping)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("x = 1", r"has x \(right: a file with a table \[mappings\]"),
        ("[mappings]", "fixes 0 mappings"),
        ("[mappings]\nact = 5", "the mapping of 'act' is '5'"),
        ("[mappings]\nact = ", "not TOML"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, text: str, error: str) -> None:
    file = tmp_path / "m.toml"
    file.write_text(text)
    with pytest.raises(UserError, match=error):
        fixed_mappings(str(file))


def test_bags_are_fixed_by_how_many_a_command_takes() -> None:
    with api.open_model("zoo:dlrm-small", {"batch": 64}) as source:
        options = Options(mapping="embedding_bags.0: bags=3", beside=False)
        compiled = api.compile_stages(source, load_chip("mtia-2i"), options=options).program
    assert "bags=3" in {block.mapping for block in compiled.blocks}
