"""The number format of a run: what `--dtype` and `--calibrate` ask for, and what a chip multiplies."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from mtia_emu.errors import UserError
from mtia_emu.machine.chip import Chip
from mtia_emu.options import Options
from mtia_emu.types import FP8_E4M3, DType, dtype

from . import codes
from .pass_text import parse_passes
from .passes import Quantise


@dataclass(frozen=True)
class Format:
    """The number format of a run: the model's floats, and how weights of products are quantised."""

    floats: DType
    quantise: Quantise | None = None
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def name(self) -> str:
        """Return the dtype that reports show and measure utilization by: the one that is multiplied."""
        if self.quantise is not None and self.quantise.mode != "none":
            return self.quantise.weights
        return self.floats.name


FORMATS = {
    **{name: Quantise(weights=name) for name in codes.FORMATS},
    "fp8": Quantise(weights=FP8_E4M3.name),
}
"""What `--dtype` may name beside the floats; the text of a `quantise` pass says it in full."""


def quantised(spelling: str | None) -> Quantise | None:
    """Return how a format quantises weights: one of FORMATS, or the text of a `quantise` pass; else None."""
    if spelling is None or not spelling.startswith("quantise"):
        return FORMATS.get(spelling or "")
    steps = parse_passes(spelling)
    if len(steps) != 1 or not isinstance(steps[0], Quantise):
        raise UserError(
            f"--dtype {spelling}: not one quantise pass (right: quantise{{weights=int4,group=64}})"
        )
    return steps[0]


def format_text(options: Options) -> str | None:
    """Return the number format that options ask for, with activations scaled by samples where they say so."""
    if options.calibrate is None:
        return options.dtype
    few, samples = quantised(options.dtype), options.calibrate
    if few is None or few.mode == "none":
        raise UserError(f"--calibrate {samples}: needs activations in few bits (right: --dtype int8 or fp8)")
    if set(samples) & set(",{}"):
        raise UserError(f"--calibrate {samples!r}: a path with none of , {{ }}")
    return replace(few, activations="static", calibrate=samples).spelling


def choose_format(own: DType, chip: Chip | None, spelling: str | None) -> Format:
    """Return the format for a model whose own arithmetic is in `own`, with notes where it is another.

    Without a chip it is what is asked for, whatever multiplies it.
    """
    if not own.is_float:  # a model of integers runs as it is
        return Format(own)
    few = quantised(spelling) if spelling != own.name else None
    near = own if chip is None else chip.nearest_matrix_dtype(own)
    kind = dtype(spelling) if spelling is not None and few is None else near
    if not kind.is_float or (kind.bits < 16 and kind != own):
        right = f"fp16, bf16, fp32, or {', '.join(FORMATS)}"
        raise UserError(f"--dtype {spelling}: a model runs in {right} (weights quantised)")
    notes = [f"the model's {own} runs as {kind}"] if kind != own else []
    notes += [_said(few)] if few is not None else []
    notes += _unmultiplied(kind, few, chip, spelling) if chip is not None else []
    return Format(kind, few, tuple(notes))


def _unmultiplied(kind: DType, few: Quantise | None, chip: Chip, spelling: str | None) -> list[str]:
    """Return what to say of a format that the chip's matrix unit has no rate for.

    Raises `UserError` where activations would be in few bits.
    """
    matrix = chip.pe.matrix
    if few is None or few.mode == "none":
        said = f"the matrix unit of {chip.name} has no rate for {kind}: products run on the SIMD engine"
        return [] if matrix.supports(kind.name) else [said]
    if not matrix.supports(few.weights):
        raise UserError(
            f"--dtype {spelling}: the matrix unit of {chip.name} has no rate for {few.weights} "
            f"(right: {', '.join(matrix.rates)}; weights alone: "
            f"--dtype 'quantise{{weights={few.weights},activations=none}}')"
        )
    return []


def _said(few: Quantise) -> str:
    """Return the note of a run with quantised weights."""
    if few.mode == "none":
        return f"weights of products are {few.weights}, expanded on their way to the matrix unit"
    rows = {
        "dynamic": "a scale a row of activations, found at run time,",
        "static": f"a scale a tensor of activations, calibrated on {few.calibrate},",
    }[few.mode]
    return f"products with weights run in {few.weights}: {rows} and a scale a column of weights"
