"""The independent executors that outputs are held to: onnxruntime, and onnx's for operators of the user's."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .errors import UserError
from .report import Check, Distance

Array = np.ndarray[Any, Any]
INFINITE = float("inf")
Own = Callable[[Sequence[Any], Mapping[str, Any]], Sequence[Any]]


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
    # products that it joins with the DequantizeLinear of 4-bit weights: as the model says, not in int8
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        known = {i.name for i in (*session.get_inputs(), *session.get_overridable_initializers())}
        names = [o.name for o in session.get_outputs()]
        values = session.run(names, {k: v for k, v in inputs.items() if k in known})
    except Exception as error:  # onnxruntime's own errors have no common base
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"onnxruntime cannot run {path.name}, so there is nothing to check against: {first} "
            "(right: leave out --check; a bf16 model can be checked as its fp32 one with --dtype bf16)"
        ) from None
    return dict(zip(names, values, strict=True))


def reference_outputs(path: Path, inputs: Mapping[str, Array], ops: Mapping[str, Own]) -> dict[str, Array]:
    """Return what onnx's own evaluator gives for the model, by output name, and `ops` for its operators.

    `ops` gives the results of operators "domain::Name" that no evaluator knows, of operands and attributes.
    Raises `UserError` where the evaluator does not run the model.
    """
    from onnx.reference import ReferenceEvaluator

    try:
        run = ReferenceEvaluator(str(path), new_ops=[_own_op(*item) for item in ops.items()])
        known = set(run.input_names)
        values = run.run(None, {k: v for k, v in inputs.items() if k in known})
    except Exception as error:  # the evaluator's errors have no common base
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"onnx's evaluator cannot run {path.name}, so there is nothing to check against: {first} "
            "(right: leave out --check)"
        ) from None
    return dict(zip(run.output_names, map(np.asarray, values), strict=True))


def _own_op(key: str, function: Own) -> type[Any]:
    """Return an operator as onnx's evaluator takes it."""
    import onnx
    from onnx.reference.op_run import OpRun

    def run(self: Any, *arrays: Array, **_: Any) -> tuple[Array, ...]:
        given = {a.name: onnx.helper.get_attribute_value(a) for a in self.onnx_node.attribute}
        plain = {k: v.decode() if isinstance(v, bytes) else v for k, v in given.items()}
        return tuple(function(arrays, plain))

    domain, _, name = key.rpartition("::")
    return type(name, (OpRun,), {"op_domain": domain, "_run": run})


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
    return Distance(worst, worst / scale if scale else worst, *_likeness(a, b))


def _likeness(a: Array, b: Array) -> tuple[float | None, float | None]:
    """Return the cosine between vectors and the signal-to-noise ratio in dB; None for what is not finite."""
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return None, None
    norms, noise = float(np.linalg.norm(a) * np.linalg.norm(b)), float(((a - b) ** 2).sum())
    signal = float((b**2).sum())
    cosine = float(a @ b) / norms if norms else None
    return cosine, 10 * math.log10(signal / noise) if signal and noise else None
