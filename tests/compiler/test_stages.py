"""The stages of compilation: the list says what each takes, gives and depends on, and that is so."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from functools import cache

import pytest
from mtia_emu.compiler import pipeline
from mtia_emu.compiler.lower.choice import Tuning
from mtia_emu.compiler.stages import STAGES, Stage

from mtia_emu import api
from mtia_emu.machine.chip import Chip, load_chip
from mtia_emu.options import Options, declared
from mtia_emu.reuse.memo import Memo, Notes, noted
from mtia_emu.study.tuning import tuning

CASES = [
    ("zoo:llama-tiny", {"seq": 1, "past": 31}, "tiny", None),
    ("zoo:llama-tiny", {"seq": 8}, "mtia-2i", "fp32"),
    ("zoo:dlrm-small", {"batch": 64}, "mtia-2i", "int8"),
]


def by_name(stage: Stage) -> str:
    return stage.name


@cache
def read_tables() -> dict[str, set[str]]:
    """Return the tables of a chip that each stage reads, over some models, chips and formats."""
    tables: dict[str, set[str]] = defaultdict(set)
    for model, dims, chip, dtype in CASES:
        with api.open_model(model, dims) as source:
            results = {"onnx": source.graph()}
        options = Options(dtype=dtype)
        for stage in STAGES[1:]:
            notes = Notes()
            task = pipeline.Compilation(noted(load_chip(chip), notes), options, tuning(options))
            results |= pipeline.run_stages([stage], results, task)
            tables[stage.name] |= {path.partition(".")[0] for path in notes}
    return tables


@pytest.mark.parametrize("stage", STAGES[1:], ids=by_name)
def test_a_stage_reads_the_parts_of_a_chip_that_it_says(stage: Stage) -> None:
    told = set(Chip.model_fields) if stage.chip == ("*",) else set(stage.chip)
    assert read_tables()[stage.name] == told


@pytest.mark.parametrize("index", range(len(STAGES)), ids=lambda i: STAGES[i].name)
def test_a_stage_takes_what_stages_before_it_give(index: int) -> None:
    assert set(STAGES[index].takes) <= {stage.gives for stage in STAGES[:index]}
    assert [stage.gives for stage in STAGES].count(STAGES[index].gives) == 1


def test_options_decide_stages_that_there_are() -> None:
    decided = {word for _, flag in declared() for word in flag.decides}
    assert decided - {"choice"} <= {stage.name for stage in STAGES}  # choices of mappings are kept on disk


def test_a_result_that_is_given_is_not_made_again() -> None:
    with api.open_model("zoo:dlrm-small", {"batch": 4}) as source:
        graph = source.graph()
    chip = load_chip("tiny")
    first = pipeline.compile_graph(graph, chip)
    given = pipeline.compile_graph(graph, chip, fused=first.fused)
    assert given.fused is first.fused and given.graph is not first.graph
    assert given.program.launches == first.program.launches and given.program.works == first.program.works


def test_one_line_a_stage_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MTIA_EMU_DEBUG", "1")
    with api.open_model("zoo:dlrm-small", {"batch": 4}) as source:
        pipeline.compile_graph(source.graph(), load_chip("tiny"))
    lines = [line.partition(":")[0] for line in capsys.readouterr().err.splitlines() if line.endswith(" ms")]
    assert lines == [stage.name for stage in STAGES[1:]]


def test_a_stage_is_done_again_only_where_what_it_depends_on_is_another() -> None:
    """DRAM's size is read by no stage up to placement; SRAM's by the passes that suit a graph to a chip."""
    with api.open_model("zoo:dlrm-small", {"batch": 4}) as source:
        graph = source.graph()
    memoise = Memo()
    how = Tuning(memoise=memoise)
    memoised = {stage.name for stage in STAGES if stage.memoised}

    def again(changes: dict[str, object], **options: object) -> set[str]:
        memoise.done.clear()
        chosen = replace(Options(), **options)  # type: ignore[arg-type]
        task = pipeline.Compilation(load_chip("tiny", changes), chosen, how)
        pipeline.run_stages(STAGES, {"onnx": graph}, task)
        return {kind for kind in memoise.done if kind in memoised}

    assert again({}) == memoised
    assert again({"dram.bytes": 1 << 34}) == set()
    assert again({"sram.bytes": 1 << 22}) == {"suit", "schedule", "beside", "place"}
    assert again({}, place="sram") == {"place"}
    assert again({}, passes="-fuse-tails") == memoised - {"own"}
