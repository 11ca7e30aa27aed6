"""Number formats: what a model runs in on a chip, what options ask for, and what is refused."""

from __future__ import annotations

import pytest
from mtia_emu.compiler.formats import FORMATS, Format, choose_format, format_text
from mtia_emu.compiler.passes import Quantise

from mtia_emu.errors import UserError
from mtia_emu.machine.chip import load_chip
from mtia_emu.options import Options
from mtia_emu.types import FP16, FP32, FP64, INT8, dtype

TINY = load_chip("tiny")
HALVES = TINY.pe.matrix.model_copy(update={"rates": {"fp16": 1.0}})


def test_the_format_is_the_nearest_that_the_chip_multiplies() -> None:
    assert choose_format(FP32, TINY, None).name == "fp16"
    assert choose_format(FP32, TINY, None).notes == ("the model's fp32 runs as fp16",)
    assert choose_format(FP16, TINY, None).notes == ()
    assert choose_format(FP64, TINY, None).floats == FP16
    assert choose_format(INT8, TINY, "fp32").name == "int8"
    assert "products run on the SIMD engine" in choose_format(FP32, TINY, "fp32").notes[0]
    assert choose_format(FP32, TINY, "int8").name == "int8"


@pytest.mark.parametrize("wanted", ["int64", "fp8_e4m3fnuz", "bool"])
def test_a_format_that_no_model_runs_in_is_refused(wanted: str) -> None:
    with pytest.raises(UserError, match=f"--dtype {wanted}: a model runs in fp16, bf16, fp32, or int8"):
        choose_format(FP32, TINY, wanted)


def test_int8_needs_a_matrix_unit_that_has_it() -> None:
    chip = TINY.model_copy(update={"pe": TINY.pe.model_copy(update={"matrix": HALVES})})
    with pytest.raises(UserError, match="the matrix unit of tiny has no rate for int8"):
        choose_format(dtype("fp16"), chip, "int8")


def test_options_ask_for_a_format_as_text() -> None:
    assert format_text(Options()) is None and format_text(Options(dtype="fp8")) == "fp8"
    text = format_text(Options(dtype="int8", calibrate="3"))
    assert text == "quantise{activations=static,calibrate=3}"
    with pytest.raises(UserError, match="--calibrate 3: needs activations in few bits"):
        format_text(Options(dtype="fp16", calibrate="3"))


def test_what_is_said_of_a_format_does_not_make_it_another() -> None:
    """Formats are parts of keys: of two chips that say different things of one format, the rest is shared."""
    assert Format(FP16, FORMATS["int8"], ("one",)) == Format(FP16, Quantise(), ("other",))
    assert Format(FP16) != Format(FP32)
