"""Many chips at once: each report is that of the chip alone, to the bit."""

from __future__ import annotations

from typing import Any

import pytest
from mtia_emu.compiler.frontend import load

from mtia_emu.errors import UserError
from mtia_emu.machine.chip import Chip, load_chip
from mtia_emu.options import Options
from mtia_emu.sources import open_model
from mtia_emu.study import what_if
from mtia_emu.study.accelerator import Accelerator, GraphModel
from mtia_emu.study.lookups import example_lookups
from mtia_emu.study.sensitivity import steps, varied
from mtia_emu.study.what_if import WhatIf

MODELS: dict[str, dict[str, int]] = {
    "zoo:llama-tiny": {"seq": 8},
    "zoo:dlrm-small": {"batch": 4},
}


def asked(name: str, chip: Chip) -> tuple[WhatIf, GraphModel]:
    """Return a model of the zoo as what is asked of it, and the model."""
    with open_model(name, MODELS[name]) as source:
        given = example_lookups
        model = GraphModel(load(source.path), Options(), lookups=lambda program: given(source, program))
        program = Accelerator(chip).program(model)
        return WhatIf(program, chip, model.lookups(program), model), model


@pytest.mark.parametrize("name", MODELS)
def test_reports_are_those_of_each_chip_alone(name: str) -> None:
    chip = load_chip("tiny")
    found, model = asked(name, chip)
    todo = steps(chip, ["fp16"])
    chips = [varied(chip)(step.key, step.new) for step in todo]
    kinds = [step.kind == "recompiled" for step in todo]
    questions = [found.anew(x) if new else found.same(x) for x, new in zip(chips, kinds, strict=True)]
    found.answer(questions)
    program = Accelerator(chip).run(model)
    for step, x, new, question in zip(todo, chips, kinds, questions, strict=True):
        alone = Accelerator(x).report(model if new else program)
        assert question.report == alone, step.key
        assert repr(question.report) == repr(alone), step.key


def test_slower_clocks_are_found_as_a_run_finds_them() -> None:
    chip = load_chip("mtia-2i", {"tdp_w": 24.0})
    found, model = asked("zoo:llama-tiny", chip)
    bigger = varied(chip)("grid.rows", 9)
    questions = [found.same(chip), found.anew(bigger)]
    found.answer(questions)
    for question, x in zip(questions, (chip, bigger), strict=True):
        assert question.report is not None and question.report.clock_hz < chip.clock_hz
        assert question.report == Accelerator(x).report(model)
        assert question.costs[question.report.clock_hz]


def test_blocks_that_a_new_program_has_too_are_timed_with_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    chip = load_chip("tiny")
    found, _ = asked("zoo:llama-tiny", chip)
    alone, whole = list[Any](), what_if.cost
    monkeypatch.setattr(what_if, "cost", lambda *x: alone.append(x) or whole(*x))
    same = found.anew(varied(chip)("pe.core.scalar_cycles_per_element", 1.0))
    assert not alone and len(same.shared) > 10
    other = found.anew(varied(chip)("grid.rows", chip.grid.rows + 1))
    assert alone and not other.shared


def test_a_program_without_its_model_is_not_compiled() -> None:
    chip = load_chip("tiny")
    _, model = asked("zoo:llama-tiny", chip)
    with pytest.raises(UserError, match="no model"):
        WhatIf(Accelerator(chip).program(model), chip, {}).anew(chip)
