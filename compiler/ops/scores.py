"""Attributes of classic models (`ai.onnx.ml`), and their scores as probabilities and labels."""

from __future__ import annotations

import numpy as np

from mtia_emu.errors import UserError

from .spelling import Call, Unsupported

TRANSFORMS = ("NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO", "PROBIT")


def floats(c: Call, name: str) -> np.ndarray:
    """Return a list attribute, or the tensor in its place, as fp32[n]; empty where neither is there."""
    tensor = c.attrs.get(f"{name}_as_tensor")
    given = c.attrs.get(name, ()) if tensor is None else np.asarray(tensor)
    try:
        return np.asarray(given, np.float32).reshape(-1)
    except (TypeError, ValueError):
        raise UserError(f"{c.op}: attribute '{name}' must be a list of numbers, not {given!r:.60}") from None


def whole(c: Call, name: str) -> np.ndarray:
    """Return a list attribute as int64[n]; empty where it is not there."""
    given = c.attrs.get(name, ())
    if not isinstance(given, tuple) or not all(isinstance(v, int) for v in given):
        raise UserError(f"{c.op}: attribute '{name}' must be a list of integers, not {given!r:.60}")
    return np.asarray(given, np.int64)


def class_labels(c: Call) -> np.ndarray:
    """Return the labels of the classes, int64[n]; strings are no tensor of ours."""
    labels = whole(c, "classlabels_int64s")
    labels = labels if len(labels) else whole(c, "classlabels_ints")
    if not len(labels):
        raise Unsupported("its labels are strings (right: integers)")
    return labels


def transformed(c: Call, scores: str) -> str:
    """Return scores [n, c] under the node's `post_transform`."""
    how = c.attr("post_transform", "NONE")
    if how not in TRANSFORMS:
        raise UserError(f"{c.op}: post_transform {how!r} is none of {', '.join(TRANSFORMS)}")
    if how in ("PROBIT", "SOFTMAX_ZERO"):
        raise Unsupported(f"its post_transform is {how} (right: NONE, LOGISTIC or SOFTMAX)")
    if how == "LOGISTIC":
        return c.add("sigmoid", scores)
    return c.add("softmax", scores, axis=1) if how == "SOFTMAX" else scores


def one_transformed(c: Call, score: str) -> str:
    """Return the second of two classes' scores [n, 1] under `post_transform`: SOFTMAX of one leaves it alone.

    So does onnxruntime; ONNX says nothing of it.
    """
    shown = transformed(c, score)
    return score if c.attr("post_transform", "NONE") == "SOFTMAX" else shown


def targets_transformed(c: Call, scores: str) -> str:
    """Return a regressor's scores [n, targets] under `post_transform`, which leaves a single target alone.

    So does onnxruntime, in which such models are served; ONNX does not say it.
    """
    shown = transformed(c, scores)
    return scores if c.type(scores).shape[1] == 1 else shown


def two_sides(c: Call, score: str, share: bool) -> str:
    """Return scores [n, 2] of the second class's score [n, 1]: the first has 1 - s of a share, else -s."""
    other = c.add("sub", c.scalar(1, score), score) if share else c.add("neg", score)
    return c.add("concat", other, score, axis=1)


def label_of_largest(c: Call, scores: str, labels: np.ndarray) -> str:
    """Return the label, int64[n], of the largest of scores [n, c], the first of equals."""
    best = c.builder.adds("topk", scores, hint=c.hint, axis=1, k=1, largest=True, nan_least=False)[1]
    return c.add("gather", c.constant(labels), c.reshape(best, (c.type(scores).shape[0],)), axis=0)


def label_of_sign(c: Call, score: str, above: float, labels: np.ndarray) -> str:
    """Return the label, int64[n], of scores [n, 1]: the second where it is over `above`, else the first."""
    over = c.reshape(c.add("greater", score, c.scalar(above, score)), (c.type(score).shape[0],))
    return c.add("where", over, c.constant(labels[1]), c.constant(labels[0]))
