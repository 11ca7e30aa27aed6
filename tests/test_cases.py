"""Cases from the field, beside the checkout: each gives its right value, or is refused where it may be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtia_emu import api
from mtia_emu.errors import UserError
from mtia_emu.files.npz import read_npz
from mtia_emu.oracle import compare_outputs
from mtia_emu.program.isa import Program

Array = np.ndarray[Any, Any]
CASES = Path(__file__).parents[2] / "shared" / "cases"
NAMES = sorted(path.parent.name for path in CASES.glob("*/model.onnx"))
COMMANDS = sorted(path.parent.name for path in CASES.glob("*/cmd.sh"))
LONG = {"mamba_scan_256", "rnn_sequence_lens"}  # seconds each
EXACT, NARROW = 2e-5, 2e-2  # of an output's largest magnitude: as computed in fp32; in 16 bits


def _about(name: str) -> dict[str, Any]:
    return dict(json.loads((CASES / name / "meta.json").read_text()))


def _tolerance(about: dict[str, Any], program: Program) -> float:
    """Return what a case may be off, of an output's largest magnitude; a model run in fewer bits may more."""
    fewer = any("runs as" in note for note in program.notes)
    return float(max(about.get("tol", EXACT), NARROW if fewer else 0))


def _forms() -> list[Any]:
    """Return each case with the formats that it is held to: its own, fp32, or both."""
    forms = []
    for name in NAMES:
        only = _about(name).get("only")
        for dtype in (None, "fp32"):
            if only in (None, dtype or "default"):
                marks = [pytest.mark.deep] if name in LONG else []
                forms.append(pytest.param(name, dtype, id=f"{name}-{dtype or 'own'}", marks=marks))
    return forms


def _programs() -> list[Any]:
    """Return the cases that are held to their program files: all of them, most only where time allows."""
    quick = {name for name in NAMES if _about(name).get("program")}
    return [pytest.param(n, marks=[] if n in quick else [pytest.mark.deep]) for n in NAMES]


@pytest.mark.skipif(bool(NAMES), reason="the cases are there")
def test_there_are_cases() -> None:
    pytest.skip("the collection of cases is not beside the checkout")


def _expected(given: dict[str, Array]) -> dict[str, Array]:
    return {key.removeprefix("out:"): x for key, x in given.items() if key.startswith("out:")}


@pytest.mark.parametrize(("name", "dtype"), _forms())
def test_it_is_right_or_refused(name: str, dtype: str | None) -> None:
    about, given = _about(name), read_npz(str(CASES / name / "io.npz"))
    try:
        outcome = api.run(CASES / name / "model.onnx", inputs=given, dtype=dtype, gpu=None)
    except UserError:
        if about.get("may_refuse") or about.get("must_refuse"):
            return
        raise
    assert not about.get("must_refuse"), "it must be refused"
    tolerance = _tolerance(about, outcome.program)
    check = compare_outputs(outcome.outputs, _expected(given), tolerance)
    assert check.passed, check.outputs
    for output, right in _expected(given).items():
        if right.dtype.kind in "iub" and tolerance == 0:  # beyond what fp64 tells apart
            np.testing.assert_array_equal(outcome.outputs[output], right)


@pytest.mark.parametrize("name", _programs())
def test_a_program_file_gives_what_the_model_gives(name: str, tmp_path: Path) -> None:
    given = read_npz(str(CASES / name / "io.npz"))
    try:
        outcome = api.run(CASES / name / "model.onnx", inputs=given, gpu=None)
    except UserError as error:
        pytest.skip(f"it is refused: {error}")
    api.save_program(outcome.program, tmp_path / "p.mtia")
    again = api.run(tmp_path / "p.mtia", inputs=given, gpu=None)
    assert again.outputs.keys() == outcome.outputs.keys()
    for output, value in outcome.outputs.items():
        assert again.outputs[output].dtype == value.dtype
        np.testing.assert_array_equal(again.outputs[output], value)


@pytest.mark.parametrize("name", [n for n in NAMES if _about(n).get("check")])
def test_a_check_ends_with_a_word(name: str) -> None:
    given = read_npz(str(CASES / name / "io.npz"))
    try:
        outcome = api.run(CASES / name / "model.onnx", inputs=given, check=True, gpu=None)
    except UserError:
        return
    assert outcome.check is not None and outcome.check.passed


@pytest.mark.deep
@pytest.mark.parametrize("name", COMMANDS)
def test_its_commands_succeed(name: str) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = ["bash", "-e", "cmd.sh"]
    done = subprocess.run(
        command, cwd=CASES / name, env=os.environ | {"PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
