"""Linear models, support vectors and scalers of `ai.onnx.ml`, as products and elementwise work."""

from __future__ import annotations

import numpy as np

from mtia_emu.errors import UserError

from .scores import (
    class_labels,
    floats,
    label_of_largest,
    label_of_sign,
    one_transformed,
    targets_transformed,
    transformed,
    two_sides,
    whole,
)
from .spelling import Call, Unsupported, bounded, onnx

DOMAIN = "ai.onnx.ml"
KERNELS = ("LINEAR", "POLY", "RBF", "SIGMOID")


def _rows(c: Call) -> str:
    """Return the operand as fp32 rows [n, features]."""
    shape = c.type(0).shape
    x = c[0] if c.type(0).dtype.is_float else c.cast(c[0], "fp32")
    if len(shape) > 2:
        raise UserError(f"{c.op}: needs rows [n, features], not {c.type(0)}")
    return x if len(shape) == 2 else c.reshape(x, (1, *shape) if shape else (1, 1))


def _shaped(c: Call, name: str, rows: int, cols: int) -> np.ndarray:
    """Return a list attribute as fp32[rows, cols]."""
    given = floats(c, name)
    if len(given) != rows * cols:
        raise UserError(f"{c.op}: '{name}' has {len(given)} numbers (right: {rows} x {cols})")
    return given.reshape(rows, cols)


def _affine(c: Call, x: str, count: int) -> str:
    """Return the scores [n, count] of rows x under the node's coefficients and intercepts."""
    weights = _shaped(c, "coefficients", count, c.type(x).shape[1])
    product = c.add("matmul", x, c.constant(np.ascontiguousarray(weights.T)))
    shift = floats(c, "intercepts")
    return c.add("add", product, c.constant(shift.reshape(1, count))) if len(shift) else product


@onnx(f"{DOMAIN}::Scaler")
def _scaler(c: Call) -> str:
    x = c[0] if c.type(0).dtype.is_float else c.cast(c[0], "fp32")
    offset, scale = floats(c, "offset"), floats(c, "scale")
    if len(offset):
        x = c.add("sub", x, c.constant(offset))
    return c.add("mul", x, c.constant(scale)) if len(scale) else x


@onnx(f"{DOMAIN}::Normalizer")
def _normalizer(c: Call) -> str:
    x, norm = _rows(c), c.attr("norm", "MAX")
    if norm not in ("MAX", "L1", "L2"):
        raise UserError(f"{c.op}: norm {norm!r} is none of MAX, L1, L2")
    if norm == "MAX":
        size = c.add("reduce_max", x, axes=(1,), keepdims=1)
    elif norm == "L1":
        size = c.add("reduce_sum", c.add("abs", x), axes=(1,), keepdims=1)
    else:
        size = c.add("sqrt", c.add("reduce_sum", c.add("mul", x, x), axes=(1,), keepdims=1))
    empty = c.add("equal", size, c.scalar(0, size))
    return c.add("div", x, c.add("where", empty, c.scalar(1, size), size))


@onnx(f"{DOMAIN}::LinearRegressor")
def _linear_regressor(c: Call) -> str:
    return targets_transformed(c, _affine(c, _rows(c), c.attr("targets", 1)))


@onnx(f"{DOMAIN}::LinearClassifier")
def _linear_classifier(c: Call) -> tuple[str, str]:
    x, labels = _rows(c), class_labels(c)
    count = len(floats(c, "coefficients")) // max(1, c.type(x).shape[1])
    scores = _affine(c, x, count)
    if count == 1 and len(labels) == 2:
        label = label_of_sign(c, scores, 0.0, labels)
        return label, two_sides(c, one_transformed(c, scores), True)
    if count != len(labels):
        raise UserError(f"{c.op}: coefficients of {count} classes for {len(labels)} labels")
    return label_of_largest(c, scores, labels), transformed(c, scores)


@onnx(f"{DOMAIN}::ZipMap")
def _zip_map(c: Call) -> str:
    """Return the scores [n, class] themselves: a list of maps is no tensor, its columns are its keys."""
    return c[0]


def _kernel(c: Call, x: str, vectors: np.ndarray) -> str:
    """Return k[n, v], the kernel function of rows x and support vectors [v, features]."""
    kind = c.attr("kernel_type", "LINEAR")
    if kind not in KERNELS:
        raise UserError(f"{c.op}: kernel_type {kind!r} is none of {', '.join(KERNELS)}")
    product = c.add("matmul", x, c.constant(np.ascontiguousarray(vectors.T)))
    gamma, coef, degree = (*floats(c, "kernel_params").tolist(), 0.0, 0.0, 0.0)[:3]
    if kind == "LINEAR":
        return product
    if kind == "RBF":
        own = c.add("reduce_sum", c.add("mul", x, x), axes=(1,), keepdims=1)
        theirs = c.constant((vectors.astype(np.float64) ** 2).sum(axis=1).astype(np.float32)[None])
        cross = c.add("mul", product, c.scalar(2, product))
        distance = c.add("sub", c.add("add", own, theirs), cross)
        return c.add("exp", c.add("mul", distance, c.scalar(-gamma, distance)))
    line = c.add("add", c.add("mul", product, c.scalar(gamma, product)), c.scalar(coef, product))
    return c.add("tanh", line) if kind == "SIGMOID" else c.add("pow", line, c.scalar(degree, line))


@onnx(f"{DOMAIN}::SVMRegressor")
def _svm_regressor(c: Call) -> str:
    x, count, rho = _rows(c), c.attr("n_supports", 0), floats(c, "rho")
    if c.attr("one_class", 0):
        raise Unsupported("it is of one class")
    if count:
        similar = _kernel(c, x, _shaped(c, "support_vectors", count, c.type(x).shape[1]))
        weights = _shaped(c, "coefficients", count, 1)
    else:
        similar, weights = x, _shaped(c, "coefficients", c.type(x).shape[1], 1)
    score = c.add("matmul", similar, c.constant(weights))
    return transformed(c, c.add("add", score, c.constant(rho[:1])) if len(rho) else score)


@onnx(f"{DOMAIN}::SVMClassifier")
def _svm_classifier(c: Call) -> tuple[str, str]:
    """Return labels by vote of the pairs of classes, and the pairs' scores."""
    x, labels, each = _rows(c), class_labels(c), whole(c, "vectors_per_class")
    if len(floats(c, "prob_a")):
        raise Unsupported("its probabilities are fitted to the scores of pairs (prob_a)")
    if len(each) != len(labels) or (each < 0).any():
        raise Unsupported(f"it has {len(each)} counts of vectors for {len(labels)} classes")
    vectors = _shaped(c, "support_vectors", int(each.sum()), c.type(x).shape[1])
    pairs = c.add("matmul", _kernel(c, x, vectors), c.constant(_pair_weights(c, each)))
    scores = c.add("add", pairs, c.constant(floats(c, "rho")[None]))
    if len(labels) == 2:
        label = label_of_sign(c, c.add("neg", scores), 0.0, labels)
        share = c.attr("post_transform", "NONE") != "NONE"
        return label, two_sides(c, one_transformed(c, scores), share)
    return label_of_largest(c, _votes(c, scores, len(labels)), labels), transformed(c, scores)


def _pairs(classes: int) -> list[tuple[int, int]]:
    """Return the pairs of classes, in the order of their scores."""
    return [(i, j) for i in range(classes) for j in range(i + 1, classes)]


def _pair_weights(c: Call, each: np.ndarray) -> np.ndarray:
    """Return w[vector, pair]: what each support vector adds to the score of each pair of classes."""
    total, pairs, first = int(each.sum()), _pairs(len(each)), np.cumsum([0, *each])
    if len(floats(c, "rho")) != len(pairs):
        raise UserError(f"{c.op}: {len(floats(c, 'rho'))} shifts for {len(pairs)} pairs of classes")
    coefficients = _shaped(c, "coefficients", len(each) - 1, total)
    bounded(total * len(pairs))
    weights = np.zeros((total, len(pairs)), np.float32)
    for at, (i, j) in enumerate(pairs):
        own, other = slice(first[i], first[i + 1]), slice(first[j], first[j + 1])
        weights[own, at], weights[other, at] = coefficients[j - 1, own], coefficients[i, other]
    return weights


def _votes(c: Call, scores: str, classes: int) -> str:
    """Return how many pairs [n, class] each class wins: the first of a pair has positive scores."""
    won = c.cast(c.add("greater", scores, c.scalar(0, scores)), c.type(scores).dtype.name)
    first = np.zeros((len(_pairs(classes)), classes), np.float32)
    second = np.zeros_like(first)
    for at, (i, j) in enumerate(_pairs(classes)):
        first[at, i] = second[at, j] = 1
    lost = c.add("sub", c.scalar(1, won), won)
    return c.add("add", c.add("matmul", won, c.constant(first)), c.add("matmul", lost, c.constant(second)))
