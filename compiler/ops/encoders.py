"""Columns of a table made ready for a model (`ai.onnx.ml`): gaps filled, categories as numbers or vectors."""

from __future__ import annotations

import math

import numpy as np

from mtia_emu.errors import UserError

from .scores import floats, whole
from .spelling import Call, Unsupported, bounded, onnx

DOMAIN = "ai.onnx.ml"


@onnx(f"{DOMAIN}::Imputer")
def _imputer(c: Call) -> str:
    """Return x with other numbers, one or one a column, where it is the number that stands for a gap."""
    kind, is_float = c.type(0), c.type(0).dtype.is_float
    filled = floats(c, "imputed_value_floats") if is_float else whole(c, "imputed_value_int64s")
    if not kind.shape or len(filled) not in (1, kind.shape[-1]):
        raise UserError(
            f"{c.op}: {len(filled)} numbers are given for the columns of {kind} (right: 1, or one each)"
        )
    gap = c.attr("replaced_value_float", 0.0) if is_float else c.attr("replaced_value_int64", 0)
    missing = c.add("isnan", c[0]) if math.isnan(gap) else c.add("equal", c[0], c.scalar(gap, c[0]))
    return c.add("where", missing, c.constant(filled.astype(kind.dtype.numpy)), c[0])


@onnx(f"{DOMAIN}::FeatureVectorizer")
def _feature_vectorizer(c: Call) -> str:
    """Return the columns of all operands beside one another, in fp32."""
    widths, kinds = whole(c, "inputdimensions"), [c.type(i) for i in range(len(c.inputs))]
    if any(kind.rank != 2 for kind in kinds) or [kind.shape[-1] for kind in kinds] != widths.tolist():
        raise Unsupported(f"its operands are not rows of {widths.tolist()} columns")
    return c.add("concat", *(c.cast(c[i], "fp32") for i in range(len(kinds))), axis=1)


@onnx(f"{DOMAIN}::OneHotEncoder")
def _one_hot_encoder(c: Call) -> str:
    """Return 1 at the place of each category, 0 at all others; what is none of them has zeros only."""
    kinds, shape = whole(c, "cats_int64s"), c.type(0).shape
    if not len(kinds):
        raise Unsupported("its categories are no whole numbers: strings are no tensor of ours")
    if not c.attr("zeros", 1):
        raise Unsupported("it fails where a category is not known (zeros = 0)")
    bounded(math.prod(shape) * len(kinds))
    each = c.reshape(c.cast(c[0], "int64"), (*shape, 1))
    return c.cast(c.add("equal", each, c.constant(kinds)), "fp32")


@onnx(f"{DOMAIN}::LabelEncoder")
def _label_encoder(c: Call) -> str:
    """Return the value that each element is the key of, or the default: a row of a table for each."""
    keys, whole_keys = _listed(c, "keys")
    values, whole_values = _listed(c, "values")
    if len(keys) != len(values) or len(np.unique(keys)) != len(keys) or not np.isfinite(keys).all():
        raise Unsupported(
            f"its {len(keys)} keys are not different numbers, one for each of {len(values)} values"
        )
    if whole_keys == c.type(0).dtype.is_float:
        raise UserError(
            f"{c.op}: keys are {'whole numbers' if whole_keys else 'floats'}, the operand is {c.type(0)}"
        )
    other = c.attr("default_int64", -1) if whole_values else c.attr("default_float", -0.0)
    table = c.constant(np.asarray([other, *values], values.dtype))
    shape = c.type(0).shape
    bounded(math.prod(shape) * len(keys))
    same = c.add("equal", c.reshape(c[0], (*shape, 1)), c.constant(keys.astype(c.type(0).dtype.numpy)))
    numbers = c.constant(np.arange(1, len(keys) + 1, dtype=np.float32))
    place = c.add("where", same, numbers, c.constant(np.asarray(0, np.float32)))
    first = c.add("reduce_max", place, axes=(len(shape),), keepdims=False)
    return c.add("gather", table, c.cast(first, "int64"), axis=0)


def _listed(c: Call, name: str) -> tuple[np.ndarray, bool]:
    """Return the numbers of a list attribute, and whether they are whole."""
    if f"{name}_int64s" in c.attrs:
        return whole(c, f"{name}_int64s"), True
    if f"{name}_floats" in c.attrs:
        return floats(c, f"{name}_floats"), False
    raise Unsupported(f"its {name} are neither int64s nor floats: strings are no tensor of ours")
