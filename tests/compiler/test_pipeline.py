"""The list of passes as text, the choice of a number format, and what compilation says of memories."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from mtia_emu.compiler import check, pipeline, text
from mtia_emu.compiler.check import Known
from mtia_emu.compiler.graph import Graph
from mtia_emu.compiler.pass_text import parse_passes
from mtia_emu.compiler.passes import (
    PASSES,
    FuseMaps,
    Legalise,
    Pass,
    Prune,
    SetPrecision,
    SplitIntoStrips,
)
from mtia_emu.compiler.passes.quantise import Quantise
from mtia_emu.compiler.pipeline import compile_graph, mapping_passes, passes
from mtia_emu.compiler.stages import STAGES

from mtia_emu.errors import UserError
from mtia_emu.machine.chip import load_chip
from mtia_emu.types import FP16, FP32, TensorType

TINY = load_chip("tiny")
HALVES = TINY.pe.matrix.model_copy(update={"rates": {"fp16": 1.0}})


def test_passes_are_read_with_their_options() -> None:
    spelling = (
        " legalise, fuse-maps{max-inputs=4,max-steps=9} ,set-precision{ to = bf16 },"
        "split-into-strips{max-bytes=64}"
    )
    found = parse_passes(spelling)
    assert found == (Legalise(), FuseMaps(4, 9), SetPrecision(to="bf16"), SplitIntoStrips(64))
    assert parse_passes("") == () and parse_passes("fuse-maps{}") == (FuseMaps(),)


def test_every_pass_is_spelt_by_its_name_and_options() -> None:
    assert all(PASSES[name]().spelling == name for name in PASSES)
    whole = (*passes(FP32, FP16, quantise=Quantise()), *mapping_passes(TINY))
    spelling = ",".join(step.spelling for step in whole)
    assert spelling.endswith(
        "quantise,fold,fuse-tails,keep-packed,prune,lower-indexing,fuse-maps,fuse-states,fuse-attention,"
        "fold,split-into-strips{max-bytes=32768},merge-siblings,append-caches,set-weight-layout,prune"
    )
    assert parse_passes(spelling) == whole


@pytest.mark.parametrize(
    ("spelling", "message"),
    [
        ("legalize", "unknown pass 'legalize'; did you mean 'legalise'?"),
        (
            "fuse-maps{max-input=4}",
            "unknown option of pass fuse-maps 'max-input'; did you mean 'max-inputs'?",
        ),
        ("fold{x=1}", r"unknown option of pass fold 'x' \(there is none\)"),
        (
            "fuse-maps{max-inputs=four}",
            r"pass fuse-maps: option 'max-inputs=four' is not max-inputs=int \(right: max-inp",
        ),
        ("fuse-maps{max-inputs}", "pass fuse-maps: option 'max-inputs' is not max-inputs=int"),
        ("fuse-maps{max-inputs=4", "not a pass: 'fuse-maps{max-inputs=4' in"),
        ("fold,,prune", "not a pass: ',prune' in|not a pass: 'fold,,prune' in"),
        ("fold prune", "not a pass: 'fold prune'"),
        ("fold,", "not a pass: 'fold,'"),
    ],
)
def test_what_is_not_a_pass_is_refused(spelling: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_passes(spelling)


def model(columns: int) -> Graph:
    """Return x @ w of that many columns, with an activation in between."""
    return text.parse(f"""graph g {{
  in %x : fp16[64,64]
  const %w : fp16[64,{columns}] = absent
  %p : fp16[64,{columns}] = matmul(%x, %w)
  %s : fp16[64,{columns}] = softmax(%p) {{axis=0}}
  %y : fp16[64,{columns}] = softmax(%s) {{axis=0}}
  out %y
}}""")


def test_notes_say_which_memories_are_too_small() -> None:
    assert compile_graph(model(64), TINY, state="cold").program.notes == ()
    notes = compile_graph(model(4096), TINY, place="sram").program.notes
    assert notes[0] == "2 inputs, outputs or weights found no room in SRAM and are in DRAM"
    assert notes[1].endswith("activations found no room in SRAM and are in DRAM")
    small = load_chip("tiny", {"dram.bytes": 1000})
    assert "read it as one of several chips' share" in compile_graph(model(64), small).program.notes[0]


def test_a_stage_at_a_time_is_reported() -> None:
    seen: list[tuple[str, int, int]] = []
    compile_graph(model(64), TINY, progress=lambda *at: seen.append(at))
    assert list(dict.fromkeys(s[0] for s in seen)) == [stage.name for stage in STAGES[1:]]
    ticks = [(done, total) for stage, done, total in seen if stage == "emit"]
    assert ticks[0] == (0, 1) and ticks[-1][0] == ticks[-1][1] >= 1


def test_debug_prints_each_pass(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("MTIA_EMU_DEBUG", "3")
    compile_graph(model(64), TINY)
    shown = capsys.readouterr().err
    assert "legalise: 3 nodes" in shown and "graph g {" in shown


@dataclass(frozen=True)
class _Wrong(Pass):
    """Leaves its graph, and makes another one unlawful."""

    def __call__(self, graph: Graph) -> Graph:
        wrong = replace(graph.nodes[0], types=(TensorType(FP32, (7,)),))
        return graph.with_nodes([wrong, *graph.nodes[1:]]) if graph.notes else graph


def test_what_a_pass_leaves_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[str] = []
    whole = check.check

    def noting(graph: Graph, after: str, known: Known) -> Graph:
        checked.append(after)
        return whole(graph, after, known)

    monkeypatch.setattr(check, "check", noting)
    graph = model(64)
    assert pipeline.lower(graph, (Prune(), Prune(), _Wrong(), Prune())) is graph
    assert checked == ["prune"]
    with pytest.raises(UserError, match="after"):
        pipeline.lower(graph.with_notes(["x"]), (Prune(), _Wrong()))


def test_a_constant_model_has_a_program() -> None:
    graph = text.parse("graph g {\n  const %c : fp32[2] = [1.0, 2.0]\n  out %c\n}")
    made = compile_graph(graph, TINY)
    assert [b.name for b in made.program.outputs] == ["c"] and np.prod(
        made.program.outputs[0].type.shape
    ) == 2


def test_a_tuning_of_other_options_is_no_tuning_for_these() -> None:
    with pytest.raises(ValueError, match="tune='full' needs its tuning"):
        compile_graph(model(64), TINY, tune="full")
