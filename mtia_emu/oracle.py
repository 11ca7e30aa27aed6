"""The independent executor that outputs are held to: onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .errors import UserError
from .report import Check, Distance

Array = np.ndarray[Any, Any]
INFINITE = float("inf")


def onnxruntime_outputs(path: Path, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Return what onnxruntime gives for the model on these inputs, by output name.

    Raises `UserError` where it is not installed and where it does not run the model.
    """
    try:
        import onnxruntime as ort
    except ImportError:
        raise UserError(
            "--check compares with onnxruntime, which is not installed: pip install 'mtia-emu[check]'"
        ) from None
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        known = {i.name for i in session.get_inputs()}
        names = [o.name for o in session.get_outputs()]
        values = session.run(names, {k: v for k, v in inputs.items() if k in known})
    except Exception as error:  # onnxruntime's own errors have no common base
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"onnxruntime cannot run {path.name}, so there is nothing to check against: {first} "
            "(right: leave out --check; a bf16 model can be checked as its fp32 one with --dtype bf16)"
        ) from None
    return dict(zip(names, values, strict=True))


def compare_outputs(got: Mapping[str, Array], expected: Mapping[str, Array], tolerance: float) -> Check:
    """Return how far outputs are from the expected ones; equal NaN and infinities count as equal.

    An expected output that is not there is infinitely far.
    """
    outputs = {name: _distance(got.get(name), value) for name, value in expected.items()}
    absolute = max((o.max_abs_error for o in outputs.values()), default=0.0)
    return Check(absolute, max((o.max_rel_error for o in outputs.values()), default=0.0), tolerance, outputs)


def _distance(got: Array | None, expected: Array) -> Distance:
    """Return the largest difference, and the same relative to the largest finite magnitude expected."""
    if got is None or got.shape != expected.shape:
        return Distance(INFINITE, INFINITE)
    a, b = got.astype(np.float64).ravel(), expected.astype(np.float64).ravel()
    with np.errstate(invalid="ignore"):
        difference = np.abs(a - b)
    difference[(np.isnan(a) & np.isnan(b)) | (a == b)] = 0.0
    difference[np.isnan(difference)] = np.inf
    scale = float(np.abs(b[np.isfinite(b)]).max(initial=0.0))
    worst = float(difference.max(initial=0.0))
    return Distance(worst, worst / scale if scale else worst)
