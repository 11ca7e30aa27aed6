"""Ensembles of decision trees (`ai.onnx.ml`), as comparisons and two products.

Every node of every tree is compared at once. A product with the paths of a tree, 1 where a leaf lies on a
node's true side and -1 where on its false side, counts for each leaf how many of its conditions hold: the
leaf where all do is the one reached. A product with the leaves' weights adds up the trees. This is the
strategy for matrix hardware of Nakandala et al., "A Tensor Compiler for Unified Machine Learning Prediction
Serving", OSDI 2020, section 4.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mtia_emu.errors import UserError

from .scores import (
    class_labels,
    floats,
    label_of_largest,
    label_of_sign,
    targets_transformed,
    transformed,
    two_sides,
    whole,
)
from .spelling import Call, Unsupported, bounded, onnx

DOMAIN = "ai.onnx.ml"
MODES = {
    "BRANCH_LEQ": "less_equal",
    "BRANCH_LT": "less",
    "BRANCH_GTE": "greater_equal",
    "BRANCH_GT": "greater",
    "BRANCH_EQ": "equal",
    "BRANCH_NEQ": "equal",  # and then the other way round
}
LEAF = "LEAF"


@dataclass(frozen=True)
class _Nodes:
    """The nodes of all trees, each column [node]; `at` finds a node by its tree and number."""

    tree: np.ndarray
    mode: tuple[str, ...]
    feature: np.ndarray
    value: np.ndarray
    true: np.ndarray
    false: np.ndarray
    missing: np.ndarray
    at: dict[tuple[int, int], int]


@dataclass
class _Tree:
    """One tree: its inner nodes, and of each leaf the conditions on the way to it (inner node, side)."""

    inner: list[int]
    paths: list[list[tuple[int, int]]]


def _nodes(c: Call) -> _Nodes:
    """Return the nodes as the attributes list them; raise `UserError` where they do not fit together."""
    tree, number = whole(c, "nodes_treeids"), whole(c, "nodes_nodeids")
    columns = {n: whole(c, f"nodes_{n}ids") for n in ("feature", "truenode", "falsenode")}
    value, mode = floats(c, "nodes_values"), c.attrs.get("nodes_modes", ())
    missing = whole(c, "nodes_missing_value_tracks_true")
    missing = missing if len(missing) else np.zeros_like(tree)
    lengths = {len(x) for x in (tree, number, value, mode, missing, *columns.values())}
    if len(lengths) != 1 or not len(tree):
        raise UserError(f"{c.op}: its lists of nodes have {sorted(lengths)} entries (right: as many each)")
    unknown = set(mode) - {*MODES, LEAF}
    if unknown:
        raise Unsupported(f"nodes_modes has {sorted(unknown)[0]!r} (right: {', '.join([*MODES, LEAF])})")
    keys = list(zip(tree.tolist(), number.tolist(), strict=True))
    at = {key: i for i, key in enumerate(keys)}
    if len(at) != len(keys):
        raise UserError(f"{c.op}: a node's number is listed twice in one tree")
    true, false = columns["truenode"], columns["falsenode"]
    return _Nodes(tree, tuple(mode), columns["feature"], value, true, false, missing, at)


def _walked(c: Call, nodes: _Nodes) -> tuple[list[_Tree], dict[int, tuple[int, int]]]:
    """Return the trees, and of each leaf's node its tree and its place there."""
    children: set[int] = set()
    for i, mode in enumerate(nodes.mode):
        if mode != LEAF:
            children.update(_sides(c, nodes, i))
    trees: list[_Tree] = []
    leaves: dict[int, tuple[int, int]] = {}
    for root in _roots(c, nodes, children):
        tree, seen = _Tree([], []), 0
        for node, path in _leaves(c, nodes, root, tree):
            leaves[node] = (len(trees), len(tree.paths))
            tree.paths.append(path)
            seen += len(path)
            bounded(seen)
        trees.append(tree)
    return trees, leaves


def _roots(c: Call, nodes: _Nodes, children: set[int]) -> list[int]:
    """Return the nodes that are nobody's child; raise `UserError` unless each tree has one."""
    roots = [i for i in range(len(nodes.mode)) if i not in children]
    trees = nodes.tree[roots].tolist()
    if sorted(trees) != sorted(set(nodes.tree.tolist())):
        raise UserError(f"{c.op}: its trees have roots {trees} by number (right: one each)")
    return roots


def _sides(c: Call, nodes: _Nodes, node: int) -> tuple[int, int]:
    """Return where a node leads, if its condition holds and if not."""
    tree = int(nodes.tree[node])
    try:
        return nodes.at[tree, int(nodes.true[node])], nodes.at[tree, int(nodes.false[node])]
    except KeyError as error:
        raise UserError(f"{c.op}: tree {tree} has no node {error.args[0][1]}") from None


def _leaves(c: Call, nodes: _Nodes, root: int, tree: _Tree) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """Yield each leaf under a root with the conditions on the way; inner nodes are listed in `tree`."""
    pending: list[tuple[int, list[tuple[int, int]]]] = [(root, [])]
    while pending:
        node, path = pending.pop()
        if nodes.mode[node] == LEAF:
            yield node, path
            continue
        if len(path) > len(nodes.mode):
            raise UserError(f"{c.op}: tree {nodes.tree[node]} leads back to its node")
        here = len(tree.inner)
        tree.inner.append(node)
        true, false = _sides(c, nodes, node)
        pending += [(false, [*path, (here, -1)]), (true, [*path, (here, 1)])]


def _reached(c: Call, x: str, nodes: _Nodes, trees: list[_Tree]) -> str:
    """Return 1 for the leaf that each row reaches in each tree, [n, trees, leaves] in x's type."""
    count, inner = len(trees), max(1, max(len(t.inner) for t in trees))
    leaves, rows = max(len(t.paths) for t in trees), c.type(x).shape[0]
    bounded(count * inner * leaves)
    paths = np.zeros((count, inner, leaves), np.int8)
    holds = np.full((count, 1, leaves), -1, np.int32)  # a leaf that is not there is never reached
    picked = np.zeros((count, inner), np.int64)  # node 0 stands in where a tree has fewer: no path reads it
    for at, tree in enumerate(trees):
        picked[at, : len(tree.inner)] = tree.inner
        for leaf, path in enumerate(tree.paths):
            holds[at, 0, leaf] = sum(side > 0 for _, side in path)
            for node, side in path:
                paths[at, node, leaf] = side
    true = c.reshape(_compared(c, x, nodes, picked.reshape(-1)), (rows, count, inner))
    true = c.add("transpose", c.cast(true, "int8"), perm=(1, 0, 2))
    met = c.add("matmul", true, c.constant(paths))
    found = c.cast(c.add("equal", met, c.constant(holds)), c.type(x).dtype.name)
    return c.add("transpose", found, perm=(1, 0, 2))


def _compared(c: Call, x: str, nodes: _Nodes, picked: np.ndarray) -> str:
    """Return whether the condition of each picked node holds for each row, bool[n, picked]."""
    features = nodes.feature[picked]
    if features.min() < 0 or features.max() >= c.type(x).shape[1]:
        raise UserError(f"{c.op}: feature {features.max()} is not in {c.type(x)}")
    seen = c.add("gather", x, c.constant(features), axis=1)
    bound = c.constant(nodes.value[picked].astype(c.type(x).dtype.numpy))
    modes = [nodes.mode[i] for i in picked.tolist()]
    result = ""
    for mode in sorted(set(modes) - {LEAF}):
        holds = c.add(MODES[mode], seen, bound)
        holds = c.add("not", holds) if mode == "BRANCH_NEQ" else holds
        here = c.constant(np.asarray([m == mode for m in modes]))
        result = c.add("where", here, holds, result) if result else holds
    if not result:
        return c.add("equal", seen, seen)
    if nodes.missing[picked].any():
        nan = c.add("not", c.add("equal", seen, seen))
        result = c.add("or", result, c.add("and", nan, c.constant(nodes.missing[picked] != 0)))
    return result


@dataclass(frozen=True)
class _Ensemble:
    """What the trees make of rows: `totals` [n, columns] before base values, and who has a weight."""

    totals: str
    columns: int
    used: np.ndarray  # the columns that some leaf adds to
    positive: bool  # no weight is negative


def _ensemble(c: Call, prefix: str, columns: int) -> _Ensemble:
    """Return the sums of the leaves that rows reach; weights are the attributes named by `prefix`."""
    shape = c.type(0).shape
    if len(shape) != 2:
        raise UserError(f"{c.op}: needs rows [n, features], not {c.type(0)}")
    x = c[0] if c.type(0).dtype.is_float else c.cast(c[0], "fp32")
    how = c.attr("aggregate_function", "SUM")
    if how not in ("SUM", "AVERAGE"):
        raise Unsupported(f"its aggregate_function is {how} (right: SUM or AVERAGE)")
    nodes = _nodes(c)
    trees, leaves = _walked(c, nodes)
    found = _reached(c, x, nodes, trees)
    (rows, count, most), target = c.type(found).shape, whole(c, f"{prefix}_ids")
    weight, where = floats(c, f"{prefix}_weights"), whole(c, f"{prefix}_nodeids")
    tree = whole(c, f"{prefix}_treeids")
    if len({len(weight), len(where), len(tree), len(target)}) != 1:
        raise UserError(f"{c.op}: its lists of weights ({prefix}_...) differ in length")
    if len(target) and not 0 <= target.min() <= target.max() < columns:
        raise UserError(f"{c.op}: {prefix}_ids has {target.max()} (right: 0 to {columns - 1})")
    bounded(count * most * columns)
    table = np.zeros((count, most, columns), np.float32)
    for t, node, column, w in zip(tree.tolist(), where.tolist(), target.tolist(), weight, strict=True):
        at = leaves.get(nodes.at.get((t, node), -1))
        if at is None:
            raise UserError(f"{c.op}: {prefix}_nodeids names node {node} of tree {t}, which is no leaf")
        table[(*at, column)] += w
    table /= count if how == "AVERAGE" else 1
    flat = c.reshape(found, (rows, count * most))
    totals = c.add("matmul", flat, c.constant(table.reshape(-1, columns).astype(c.type(x).dtype.numpy)))
    return _Ensemble(totals, columns, np.unique(target), bool((weight >= 0).all()))


def _based(c: Call, sums: _Ensemble) -> str:
    """Return the totals with the base values added."""
    base = floats(c, "base_values")
    if not len(base):
        return sums.totals
    if len(base) not in (1, sums.columns):
        raise UserError(f"{c.op}: {len(base)} base values for {sums.columns} columns")
    return c.add("add", sums.totals, c.constant(base[None].astype(c.type(sums.totals).dtype.numpy)))


@onnx(f"{DOMAIN}::TreeEnsembleRegressor")
def _regressor(c: Call) -> str:
    return targets_transformed(c, _based(c, _ensemble(c, "target", max(1, c.attr("n_targets", 1)))))


@onnx(f"{DOMAIN}::TreeEnsembleClassifier")
def _classifier(c: Call) -> tuple[str, str]:
    labels = class_labels(c)
    sums = _ensemble(c, "class", len(labels))
    if len(labels) == 2 and len(sums.used) == 1:
        return _binary(c, sums, labels)
    scores = _based(c, sums)
    return label_of_largest(c, scores, labels), transformed(c, scores)


def _binary(c: Call, sums: _Ensemble, labels: np.ndarray) -> tuple[str, str]:
    """Return labels and scores where leaves speak of one of two classes: shares if none is negative."""
    column, rows = int(sums.used[0]), c.type(sums.totals).shape[0]
    taken = c.add("slice", sums.totals, starts=(0, column), ends=(rows, column + 1), steps=(1, 1))
    one = _based(c, _Ensemble(taken, 1, sums.used, sums.positive))
    label = label_of_sign(c, one, 0.5 if sums.positive else 0.0, labels)
    if c.attr("post_transform", "NONE") != "LOGISTIC":
        return label, two_sides(c, one, sums.positive)  # onnxruntime transforms no single score otherwise
    if sums.positive:
        raise Unsupported("its weights are shares, which it calls logits")
    return label, c.add("sigmoid", two_sides(c, one, False))
