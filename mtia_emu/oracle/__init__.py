"""The independent executors that outputs are held to, and how far outputs are from theirs.

onnxruntime, products of integers in exact arithmetic, and onnx's own evaluator.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import settings
from ..errors import UserError
from ..files.scratch import scratch
from ..files.writing import valid
from ..results.check import Check, Distance
from .child import Died, Refused, ask
from .exact import EXACT, Array, Own
from .pieces import attributes, bodies, key_of, multiplies_integers, outputs_of, walk

INFINITE = float("inf")
ONNXRUNTIME = "onnxruntime"
NO_MEMORY = "Failed to allocate memory"  # in what onnxruntime says when its limit is met
REFERENCE = "onnx.reference"
EXACTLY = "onnxruntime, products of integers exactly"


@dataclass(frozen=True)
class Expected:
    """What a model's outputs should be, by name, and which executor says so."""

    outputs: dict[str, Array]
    oracle: str


def expected_outputs(
    model: Path | Any, inputs: Mapping[str, Array], ops: Mapping[str, Own] | None = None
) -> Expected:
    """Return what a model, on disk or a `ModelProto`, should give on these inputs.

    By onnxruntime, in a process of its own and without its optimisations; products of integers in exact
    arithmetic; by onnx's own evaluator where the model ends that process, or has operators of the user's:
    `ops` gives their results ("domain::Name": a function of operands and attributes).
    Raises `UserError` where nothing runs the model.
    """
    model = _spelt(model)
    if ops:
        return Expected(reference_outputs(model, inputs, ops), REFERENCE)
    proto = _loaded(model)
    try:
        if proto is None:
            return Expected(_by_onnxruntime(model, inputs), ONNXRUNTIME)
        if multiplies_integers(proto):
            return Expected(_in_pieces(model, inputs), EXACTLY)
        return Expected(_by_onnxruntime(_unhurried(model, proto), inputs), ONNXRUNTIME)
    except (Died, _Scattered) as error:
        return _instead(model, inputs, str(error))


def _instead(model: Path | Any, inputs: Mapping[str, Array], why: str) -> Expected:
    """Return what onnx's evaluator gives for a model that onnxruntime cannot be asked for."""
    try:
        return Expected(reference_outputs(model, inputs, {}), REFERENCE)
    except UserError as error:
        raise UserError(
            f"onnxruntime gives nothing to check {_name(model)} against: {why}; {error}"
        ) from None


def onnxruntime_outputs(model: Path | Any, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Return what onnxruntime alone gives for a model, by output name.

    Raises `UserError` where it does not run the model, and for one with products of integers: on some
    processors its kernels for bytes saturate.
    """
    model = _spelt(model)
    proto = _loaded(model)
    if proto is not None and multiplies_integers(proto):
        raise UserError(f"{_name(model)} multiplies integers: onnxruntime's results depend on the processor")
    try:
        return _by_onnxruntime(model, inputs)
    except Died as error:
        raise UserError(f"onnxruntime cannot run {_name(model)}: {error}") from None


def _by_onnxruntime(model: Path | Any, inputs: Mapping[str, Array]) -> dict[str, Array]:
    try:
        return ask(model if isinstance(model, Path) else model.SerializeToString(), inputs)
    except Refused as error:
        if NO_MEMORY in str(error):
            raise UserError(
                f"onnxruntime needs more memory for {_name(model)} than {settings.MEMORY.name} "
                f"allows, {settings.integer(settings.MEMORY)} bytes: it keeps fp16 weights as fp32 too "
                "(right: set it higher, or leave out --check)"
            ) from None
        raise UserError(
            f"onnxruntime cannot run {_name(model)}, so there is nothing to check against: {error} "
            "(right: leave out --check; a bf16 model can be checked as its fp32 one with --dtype bf16)"
        ) from None


class _Scattered(Exception):
    """A model's products of integers stand where they cannot be taken out."""


def _in_pieces(model: Path | Any, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Return a model's outputs: products of integers exactly, the rest by onnxruntime."""
    import onnx
    from onnx.inliner import inline_local_functions

    whole = onnx.load(str(model)) if isinstance(model, Path) else model
    whole = inline_local_functions(whole) if whole.functions else whole
    if any(key_of(n) in EXACT for node in whole.graph.node for body in bodies(node) for n in walk(body.node)):
        raise _Scattered("it multiplies integers in a branch or loop")
    known = {i.name for i in whole.graph.input}
    given = {k: v for k, v in inputs.items() if k in known}
    try:
        return outputs_of(whole, given, ask)
    except UserError:
        raise
    except Exception as error:  # what is taken out may be anything: too large to write, of odd shapes
        raise _Scattered(str(error) or type(error).__name__) from None


def _loaded(model: Path | Any) -> Any:
    """Return a model without its weights' files; None where it cannot be read: onnxruntime says so."""
    if not isinstance(model, Path):
        return model
    import onnx
    from google.protobuf.message import Error  # type: ignore[import-untyped]

    try:
        return onnx.load(str(model), load_external_data=False)
    except (OSError, Error):
        return None


def _spelt(model: Path | Any) -> Path | Any:
    """Return a model that onnx and onnxruntime can read: in memory where its path is not UTF-8.

    Their own code takes no other paths, so files of weights are read by way of a link to their folder.
    """
    if not isinstance(model, Path) or valid(str(model.resolve())) == str(model.resolve()):
        return model
    import onnx

    try:
        proto = _loaded(model)
        with scratch() as folder:
            (folder / "model").symlink_to(model.resolve().parent, target_is_directory=True)
            if proto is not None:
                onnx.load_external_data_for_model(proto, str(folder / "model"))
    except Exception as error:  # onnx raises errors of many kinds
        raise UserError(f"the weights of {_name(model)}, whose path is not UTF-8: {error}") from None
    return model if proto is None else proto


def _unhurried(model: Path | Any, proto: Any) -> Path | Any:
    """Return a model that leaves no product of floats to be computed in bytes (`accuracy_level`)."""
    import onnx
    from google.protobuf.message import Error

    if not any(a.name == "accuracy_level" for n in walk(proto.graph.node) for a in n.attribute):
        return model
    whole = onnx.load(str(model)) if isinstance(model, Path) else copy.deepcopy(model)
    for node in walk(whole.graph.node):
        kept = [a for a in node.attribute if a.name != "accuracy_level"]
        del node.attribute[:]
        node.attribute.extend(kept)
    try:
        whole.SerializeToString()
    except (ValueError, Error):  # beyond 2 GiB: it stays on disk, as it is
        return model
    return whole


def _name(model: Path | Any) -> str:
    return valid(model.name) if isinstance(model, Path) else "the model"


def reference_outputs(
    model: Path | Any, inputs: Mapping[str, Array], ops: Mapping[str, Own]
) -> dict[str, Array]:
    """Return what onnx's own evaluator gives for a model, by output name; products of integers exactly.

    `ops` gives the results of operators "domain::Name" that no evaluator knows, of operands and attributes.
    Raises `UserError` where the evaluator does not run the model.
    """
    from onnx.reference import ReferenceEvaluator

    try:
        own = [_own_op(*item) for item in (EXACT | dict(ops)).items()]
        run = ReferenceEvaluator(str(model) if isinstance(model, Path) else model, new_ops=own)
        known = set(run.input_names)
        with np.errstate(all="ignore"):
            values = run.run(None, {k: v for k, v in inputs.items() if k in known})
    except Exception as error:  # the evaluator's errors have no common base
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"onnx's evaluator cannot run {_name(model)}, so there is nothing to check against: {first} "
            "(right: leave out --check)"
        ) from None
    return dict(zip(run.output_names, map(np.asarray, values), strict=True))


def _own_op(key: str, function: Own) -> type[Any]:
    """Return an operator as onnx's evaluator takes it."""
    from onnx.reference.op_run import OpRun

    def run(self: Any, *arrays: Array, **_: Any) -> tuple[Array, ...]:
        return tuple(function(arrays, attributes(self.onnx_node)))

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
    """Return the largest difference of two arrays of any shape, and it over the largest finite magnitude."""
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
