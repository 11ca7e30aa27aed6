"""Arrays for a model's inputs: by name, and in the types that the model takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import UserError, refuse_unknown
from ..files.npz import read_npz
from ..types import DTYPES
from .isa import Binding

Array = np.ndarray[Any, Any]
_NUMBERS = {t.numpy for t in DTYPES.values()}


def input_arrays(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return arrays by input name, from keys `name` or `in:name`; outputs stored beside them are left out."""
    out: dict[str, Array] = {}
    for key, array in arrays.items():
        if key.startswith("out:"):
            continue
        name = key.removeprefix("in:")
        if name in out:
            raise UserError(f"input '{name}' is given twice, as '{name}' and as 'in:{name}' (right: once)")
        out[name] = np.asarray(array)
    return out


def read_inputs(path: str | None) -> dict[str, Array] | None:
    """Return the arrays of an .npz file by input name; None where no file is named."""
    return input_arrays(read_npz(path)) if path else None


def typed_inputs(arrays: Mapping[str, Array], inputs: Sequence[Binding]) -> dict[str, Array]:
    """Return an array for each input, in the model's own type.

    Raises `UserError` for inputs that are missing, unknown or of another shape, and for values that the
    input's type cannot hold: fractions for an integer, 300 for an int8.
    """
    names = [b.name for b in inputs]
    for name in arrays:
        if name not in names:
            raise refuse_unknown("input", name, names)
    missing = [name for name in names if name not in arrays]
    if missing:
        raise UserError(
            f"no array for input {', '.join(map(repr, missing))} (given: {', '.join(arrays) or 'none'})"
        )
    return {b.name: _typed(b, np.asarray(arrays[b.name])) for b in inputs}


def _typed(binding: Binding, array: Array) -> Array:
    want = binding.model_type
    given = f"input '{binding.name}' is given as {array.dtype}{list(array.shape)}"
    if array.shape != want.shape:
        raise UserError(f"{given}; the model takes {want}")
    to = want.dtype.numpy
    if array.dtype == to:
        return array
    if array.dtype.kind == "V" and array.dtype.itemsize == to.itemsize and to.isbuiltin != 1:
        return array.view(to)  # NumPy's own files forget the name of types such as bfloat16
    if array.dtype not in _NUMBERS:
        raise UserError(f"{given}; the model takes {want}")
    with np.errstate(all="ignore"):
        out = array.astype(to)
        kept = want.dtype.is_float or bool((out.astype(np.float64) == array.astype(np.float64)).all())
    if not kept:
        raise UserError(f"{given}, with values that {want.dtype} cannot hold")
    return out
