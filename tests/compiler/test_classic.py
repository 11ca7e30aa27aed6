"""Classic models (`ai.onnx.ml`), against onnxruntime's own kernels, over random configurations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mtia_emu.compiler.frontend import load
from node_cases import Array, Case, Maker, Rng, f32, hold, pick

from mtia_emu.errors import UserError

pytest.importorskip("onnxruntime")
SEEDS = range(12)
ML = "ai.onnx.ml"
TRANSFORMS = ("NONE", "LOGISTIC", "SOFTMAX")


def numbers(rng: Rng, *shape: int) -> list[float]:
    return f32(rng, *shape).ravel().tolist()


def scaler(rng: Rng) -> Case:
    count = pick(rng, 1, 5)
    case = Case("Scaler", domain=ML, offset=numbers(rng, count), scale=numbers(rng, count))
    return case.give(f32(rng, 4, 5))


def normalizer(rng: Rng) -> Case:
    x = f32(rng, 4, 5)
    x[1] = 0
    return Case("Normalizer", domain=ML, norm=pick(rng, "L1", "L2")).give(x)


def normalizer_of_positive_rows(rng: Rng) -> Case:
    return Case("Normalizer", domain=ML, norm="MAX").give(np.abs(f32(rng, 4, 5)))


def linear_regressor(rng: Rng) -> Case:
    targets = int(rng.integers(1, 4))
    attrs: dict[str, Any] = {"intercepts": numbers(rng, targets)} if rng.integers(2) else {}
    attrs["post_transform"] = pick(rng, *TRANSFORMS)
    case = Case("LinearRegressor", domain=ML, targets=targets, coefficients=numbers(rng, targets, 5), **attrs)
    return case.give(f32(rng, 4, 5))


def linear_classifier(rng: Rng) -> Case:
    classes = int(rng.integers(2, 5))
    rows = 1 if classes == 2 and rng.integers(2) else classes
    case = Case(
        "LinearClassifier",
        2,
        domain=ML,
        classlabels_ints=rng.permutation(9)[:classes].tolist(),
        coefficients=numbers(rng, rows, 5),
        intercepts=numbers(rng, rows),
        multi_class=int(rng.integers(2)),
        post_transform=pick(rng, *TRANSFORMS),
    )
    return case.give(f32(rng, 6, 5))


def linear_classifier_by_one_score(rng: Rng) -> Case:
    attrs: dict[str, Any] = {"coefficients": numbers(rng, 5), "intercepts": numbers(rng, 1)}
    attrs["post_transform"] = pick(rng, *TRANSFORMS)
    return Case("LinearClassifier", 2, domain=ML, classlabels_ints=[0, 1], **attrs).give(f32(rng, 6, 5))


def svm_attributes(rng: Rng, vectors: int) -> dict[str, Any]:
    return {
        "kernel_type": pick(rng, "LINEAR", "POLY", "RBF", "SIGMOID"),
        "kernel_params": [0.3, 0.5, 2.0],
        "support_vectors": numbers(rng, vectors, 5),
    }


def svm_regressor(rng: Rng) -> Case:
    vectors = int(rng.integers(1, 6))
    attrs = svm_attributes(rng, vectors)
    coefficients = numbers(rng, vectors)
    case = Case("SVMRegressor", domain=ML, n_supports=vectors, coefficients=coefficients, rho=[0.2], **attrs)
    return case.give(f32(rng, 4, 5))


def svm_classifier(rng: Rng) -> Case:
    classes = int(rng.integers(2, 5))
    each = rng.integers(1, 5, classes)
    pairs = classes * (classes - 1) // 2
    case = Case(
        "SVMClassifier",
        2,
        domain=ML,
        classlabels_ints=list(range(classes)),
        coefficients=numbers(rng, classes - 1, int(each.sum())),
        vectors_per_class=each.tolist(),
        rho=numbers(rng, pairs),
        post_transform=pick(rng, *TRANSFORMS),
        **svm_attributes(rng, int(each.sum())),
    )
    return case.give(f32(rng, 6, 5))


def random_tree(rng: Rng, tree: int, deep: int, modes: list[str]) -> dict[str, list[Any]]:
    """Return the columns of one random tree, in the order of a walk."""
    columns: dict[str, list[Any]] = {
        k: [] for k in ("tree", "node", "feature", "mode", "value", "true", "false")
    }

    def grow(depth: int) -> int:
        node = len(columns["tree"])
        leaf = depth == deep or (depth > 0 and rng.random() < 0.2)
        row = (tree, node, int(rng.integers(5)), "LEAF" if leaf else pick(rng, *modes), float(f32(rng)), 0, 0)
        for name, value in zip(columns, row, strict=True):
            columns[name].append(value)
        if not leaf:
            columns["true"][node], columns["false"][node] = grow(depth + 1), grow(depth + 1)
        return node

    grow(0)
    return columns


def ensemble(rng: Rng, prefix: str, targets: list[int], positive: bool) -> dict[str, Any]:
    """Return the attributes of random trees whose leaves add to each of the targets."""
    every = ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"]
    modes = pick(rng, every[:1], every[1:2], every)
    trees = [random_tree(rng, t, int(rng.integers(0, 5)), modes) for t in range(int(rng.integers(1, 6)))]
    whole = {k: [v for t in trees for v in t[k]] for k in trees[0]}
    leaves = [i for i, mode in enumerate(whole["mode"]) if mode == "LEAF"]
    each = [leaf for leaf in leaves for _ in targets]
    weights = f32(rng, len(each))
    return {
        "nodes_treeids": whole["tree"],
        "nodes_nodeids": whole["node"],
        "nodes_featureids": whole["feature"],
        "nodes_modes": whole["mode"],
        "nodes_values": whole["value"],
        "nodes_truenodeids": whole["true"],
        "nodes_falsenodeids": whole["false"],
        "nodes_missing_value_tracks_true": rng.integers(0, 2, len(whole["tree"])).tolist(),
        f"{prefix}_treeids": [whole["tree"][i] for i in each],
        f"{prefix}_nodeids": [whole["node"][i] for i in each],
        f"{prefix}_ids": targets * len(leaves),
        f"{prefix}_weights": (np.abs(weights) if positive else weights).tolist(),
    }


def rows_with_gaps(rng: Rng) -> Array:
    x = f32(rng, 9, 5)
    if rng.integers(2):
        x[2, 1:3] = np.nan
    return x


def tree_ensemble_regressor(rng: Rng) -> Case:
    targets = int(rng.integers(1, 4))
    attrs = ensemble(rng, "target", list(range(targets)), False)
    base = pick(rng, [], numbers(rng, targets))
    if base:
        attrs["base_values"] = base
    how = pick(rng, "SUM", "AVERAGE")
    case = Case("TreeEnsembleRegressor", domain=ML, n_targets=targets, aggregate_function=how, **attrs)
    case.attrs["post_transform"] = pick(rng, *TRANSFORMS)
    return case.give(rows_with_gaps(rng))


def tree_ensemble_classifier(rng: Rng) -> Case:
    classes = int(rng.integers(2, 5))
    positive = bool(rng.integers(2))
    used = [0] if classes == 2 else list(range(classes))  # both of two: onnxruntime forgets the labels
    attrs = ensemble(rng, "class", used, positive)
    transform = pick(rng, "NONE", "SOFTMAX") if positive else pick(rng, "NONE", "SOFTMAX", "LOGISTIC")
    labels = list(range(3, 3 + classes))
    case = Case(
        "TreeEnsembleClassifier", 2, domain=ML, classlabels_int64s=labels, post_transform=transform, **attrs
    )
    return case.give(rows_with_gaps(rng))


def imputer(rng: Rng) -> Case:
    count = pick(rng, 1, 5)
    if rng.integers(2):
        x = rng.integers(-2, 3, (4, 5))
        case = Case(
            "Imputer", domain=ML, imputed_value_int64s=list(range(7, 7 + count)), replaced_value_int64=1
        )
        return case.give(x)
    gap = pick(rng, float("nan"), 2.0)
    x = np.where(rng.integers(2, size=(4, 5)), f32(rng, 4, 5), np.float32(gap))
    case = Case("Imputer", domain=ML, imputed_value_floats=numbers(rng, count), replaced_value_float=gap)
    return case.give(x.astype(np.float32))


def feature_vectorizer(rng: Rng) -> Case:
    case = Case("FeatureVectorizer", domain=ML, inputdimensions=[2, 3])
    return case.give(f32(rng, 4, 2)).give(f32(rng, 4, 3))


def one_hot_encoder(rng: Rng) -> Case:
    kinds = rng.permutation(9)[:4].tolist()
    x = rng.integers(0, 9, (4, 3))
    return Case("OneHotEncoder", domain=ML, cats_int64s=kinds).give(
        x if rng.integers(2) else x.astype(np.float32)
    )


def label_encoder(rng: Rng) -> Case:
    keys, x = rng.permutation(9)[:4], rng.integers(0, 9, (4, 3))
    attrs: dict[str, Any] = {"keys_int64s": keys.tolist()}
    if rng.integers(2):
        attrs, x = {"keys_floats": [k + 0.5 for k in keys.tolist()]}, (x + 0.5).astype(np.float32)
    if rng.integers(2):
        attrs |= {"values_floats": numbers(rng, 4), "default_float": 2.5}
    else:
        attrs |= {"values_int64s": [5, 1 << 40, 7, 8]}
    return Case("LabelEncoder", domain=ML, **attrs).give(x)


MAKERS: list[Maker] = [
    imputer,
    feature_vectorizer,
    one_hot_encoder,
    label_encoder,
    scaler,
    normalizer,
    normalizer_of_positive_rows,
    linear_regressor,
    linear_classifier,
    linear_classifier_by_one_score,
    svm_regressor,
    svm_classifier,
    tree_ensemble_regressor,
    tree_ensemble_classifier,
]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_it_computes_what_onnxruntime_does(make: Maker, seed: int, tmp_path: Path) -> None:
    hold(make, seed, tmp_path / "m.onnx")


def test_a_list_of_maps_is_a_row_of_each_maps_values(tmp_path: Path) -> None:
    """ZipMap gives dictionaries by class; ours are the columns, and the oracle's are compared as such."""
    from onnx import TensorProto, helper, save

    from mtia_emu import run

    info = helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, 2])
    node = helper.make_node("ZipMap", ["x"], ["maps"], domain=ML, classlabels_int64s=[4, 7])
    graph = helper.make_graph([node], "g", [info], [helper.make_empty_tensor_value_info("maps")])
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(ML, 3)]
    save(helper.make_model(graph, opset_imports=opsets, ir_version=10), tmp_path / "m.onnx")
    x = f32(np.random.default_rng(0), 3, 2)
    result = run(tmp_path / "m.onnx", inputs={"x": x}, check=True, gpu=None, dtype="fp32")
    assert result.check is not None and result.check.passed
    np.testing.assert_array_equal(result.outputs["maps"], x)


@pytest.mark.parametrize(
    ("attrs", "message"),
    [
        ({"nodes_nodeids": [0, 1, 1]}, "listed twice"),
        ({"nodes_falsenodeids": [1, 0, 0]}, "right: one each"),
        ({"nodes_truenodeids": [9, 0, 0]}, "no node 9"),
        ({"nodes_featureids": [5, 0, 0]}, "feature 5 is not in"),
        ({"nodes_modes": ["BRANCH_MEMBER", "LEAF", "LEAF"]}, "BRANCH_MEMBER"),
        ({"nodes_values": [0.5]}, "entries"),
        ({"target_nodeids": [0, 2]}, "which is no leaf"),
        ({"target_ids": [0, 3]}, "right: 0 to 0"),
        ({"post_transform": "PROBIT"}, "PROBIT"),
        ({"aggregate_function": "MAX"}, "MAX"),
    ],
)
def test_trees_that_do_not_hold_together_are_refused(
    attrs: dict[str, Any], message: str, tmp_path: Path
) -> None:
    whole: dict[str, Any] = {
        "nodes_treeids": [0, 0, 0],
        "nodes_nodeids": [0, 1, 2],
        "nodes_featureids": [0, 0, 0],
        "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
        "nodes_values": [0.5, 0.0, 0.0],
        "nodes_truenodeids": [1, 0, 0],
        "nodes_falsenodeids": [2, 0, 0],
        "target_treeids": [0, 0],
        "target_nodeids": [1, 2],
        "target_ids": [0, 0],
        "target_weights": [1.0, 2.0],
    }
    case = Case("TreeEnsembleRegressor", domain=ML, **{**whole, **attrs}).give(np.zeros((2, 3), np.float32))
    case.build(tmp_path / "m.onnx")
    with pytest.raises(UserError, match=message):
        load(tmp_path / "m.onnx")
