"""Loops that pool rows, in as many spellings as there are choices: what, how, and in which order."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from onnx import TensorProto, ValueInfoProto, helper, numpy_helper

Array = np.ndarray[Any, Any]
F, I64, B = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
CHOICES: dict[str, Sequence[Any]] = {
    "mode": ("Sum", "Mean", "Max"),
    "result": ("scan", "scan kept", "sequence", "sequence new"),
    "order": (0, 1, 2, 3, 4, 5),  # of counter, sequence and a value that is handed on
    "counter": ("trip", "own", "own from 3"),
    "condition": ("true", "identity", "and", "less", "greater", "not", "at most"),
    "trips": ("known", "none"),
    "starts": ("all", "all[:-1]", "offsets", "inside"),
    "read": ("gather", "slice"),
    "empty": ("", "equal", "less", "greater", "size", "not equal"),
    "rows": ("indices", "rows"),
    "weights": (False, True),
    "padding": ("", "mask", "where", "compress", "nonzero", "loop"),
}


@dataclass(frozen=True)
class Spelling:
    """One choice of each."""

    mode: str = "Sum"
    result: str = "scan"
    order: int = 0
    counter: str = "trip"
    condition: str = "true"
    trips: str = "known"
    starts: str = "all"
    read: str = "gather"
    empty: str = ""
    rows: str = "indices"
    weights: bool = False
    padding: str = ""

    @property
    def kept(self) -> bool:
        """Return whether the reduction keeps the axis of rows."""
        return self.result in ("scan kept", "sequence")

    @property
    def drops(self) -> bool:
        """Return whether rows of the padding index are left out, not multiplied by 0."""
        return self.padding in ("compress", "nonzero", "loop")


def draw(seed: int) -> Spelling:
    """Return choices that go together."""
    rng = random.Random(seed)
    s = {f.name: rng.choice(list(CHOICES[f.name])) for f in fields(Spelling)}
    if s["padding"] in ("mask", "where") or s["weights"]:
        s["mode"] = "Sum"
    if s["padding"] == "loop":
        s["rows"] = "rows"
    if s["condition"] in ("true", "identity", "and"):
        s["trips"] = "known"
    return Spelling(**s)


TABLE = np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32)
INDICES = np.array([3, 1, 4, 1, 5, 9, 2, 5])
WEIGHTS = np.linspace(0.5, 2, 8, dtype=np.float32)
OFFSETS = np.array([0, 2, 2, 4, 5])  # then 8: bags of 2, 0, 2, 1 and 3 rows
PADDING = 5  # all of the fourth bag, and a row of the last


def feed() -> dict[str, Array]:
    return {"indices": INDICES, "weights": WEIGHTS, "offsets": OFFSETS}


def expected(s: Spelling) -> Array:
    """Return what the bags come to, by hand."""
    bags = []
    for start, end in zip(OFFSETS, [*OFFSETS[1:], len(INDICES)], strict=True):
        picks, weights = INDICES[start:end], WEIGHTS[start:end, None] if s.weights else 1
        rows = (TABLE[picks] * weights).astype(np.float32)
        if s.padding:
            kept = picks != PADDING
            rows = rows[kept] if s.drops else rows * kept[:, None]
        if len(rows):
            bags.append(getattr(np, s.mode.lower())(rows, axis=0))
        else:
            lowest = s.mode == "Max" and not s.empty
            bags.append(np.full(4, -np.inf if lowest else 0.0, np.float32))
    whole = np.stack(bags)
    return whole[:, None] if s.result == "scan kept" else whole


class Loop:
    """The model of a spelling, node by node."""

    def __init__(self, spelling: Spelling) -> None:
        self.s = spelling
        self.consts: dict[str, Array] = {
            "table": TABLE, "zero": np.array([0]), "one": np.array([1]), "minus": np.array([-1]),
            "far": np.array([2**63 - 1]), "n0": np.array(0), "n1": np.array(1), "n3": np.array(3),
            "n5": np.array(5), "n4": np.array(4), "n7": np.array(7), "n8": np.array(8), "yes": np.array(True),
            "pad": np.array(PADDING), "f0": np.array(0, np.float32), "none": np.zeros(0, np.int64),
            "blank": np.zeros((1, 4) if spelling.kept else 4, np.float32),
        }  # fmt: skip
        self.count = 0

    def node(self, into: list[Any], op: str, *inputs: str, **attrs: Any) -> str:
        self.count += 1
        into.append(helper.make_node(op, list(inputs), [f"v{self.count}"], **attrs))
        return f"v{self.count}"

    def outside(self) -> tuple[list[Any], dict[str, str]]:
        """Return nodes around the loop, and the names of starts, ends and rows."""
        made: list[Any] = []
        size = self.node(made, "Shape", "indices")
        every = self.node(made, "Concat", "offsets", size, axis=0)
        ends = self.node(made, "Slice", every, "one", "far", "zero")
        starts = {"all": every, "offsets": "offsets", "inside": every}.get(self.s.starts)
        if starts is None:
            starts = self.node(made, "Slice", every, "zero", "minus", "zero")
        rows = self.node(made, "Gather", "table", "indices")
        if self.s.weights:
            rows = self.node(made, "Mul", rows, self.node(made, "Unsqueeze", "weights", "one"))
        return made, {"starts": starts, "ends": ends, "rows": rows}

    def element(self, body: list[Any], values: str, index: str) -> str:
        """Return one element [1] of a list."""
        if self.s.read == "gather":
            return self.node(body, "Unsqueeze", self.node(body, "Gather", values, index), "zero")
        first = self.node(body, "Reshape", index, "minus")
        return self.node(body, "Slice", values, first, self.node(body, "Add", first, "one"))

    def marks(self, body: list[Any], taken: str) -> str:
        return self.node(body, "Not", self.node(body, "Equal", taken, "pad"))

    def pooled(self, body: list[Any], names: dict[str, str], start: str, end: str) -> tuple[str, str]:
        """Return the pooled row of a bag, and what has as many elements as it has rows."""
        s = self.s
        taken = self.node(body, "Slice", "indices", start, end, "zero")
        counted = taken
        if s.padding == "loop":
            counted = self.collected(body, start, end)
            rows = self.node(body, "Gather", names["rows"], counted)
            return self.reduced(body, rows), counted
        if s.rows == "rows":
            rows = self.node(body, "Slice", names["rows"], start, end, "zero")
        else:
            if s.padding in ("compress", "nonzero") and not s.weights:
                counted = taken = self.left(body, taken, self.marks(body, taken))
            rows = self.node(body, "Gather", "table", taken)
            if s.weights:
                part = self.node(body, "Slice", "weights", start, end)
                rows = self.node(body, "Mul", rows, self.node(body, "Unsqueeze", part, "one"))
        if s.padding in ("compress", "nonzero") and (s.rows == "rows" or s.weights):
            counted = rows = self.left(body, rows, self.marks(body, taken))
        return self.reduced(body, self.masked(body, rows, taken)), counted

    def left(self, body: list[Any], values: str, marks: str) -> str:
        """Return what is marked of values."""
        if self.s.padding == "compress":
            return self.node(body, "Compress", values, marks, axis=0)
        places = self.node(body, "NonZero", marks)
        return self.node(body, "Gather", values, self.node(body, "Reshape", places, "minus"))

    def masked(self, body: list[Any], rows: str, taken: str) -> str:
        """Return rows with those of the padding index 0."""
        if self.s.padding not in ("mask", "where"):
            return rows
        column = self.node(body, "Unsqueeze", self.marks(body, taken), "one")
        if self.s.padding == "where":
            return self.node(body, "Where", column, rows, "f0")
        return self.node(body, "Mul", rows, self.node(body, "Cast", column, to=F))

    def reduced(self, body: list[Any], rows: str) -> str:
        return self.node(body, f"Reduce{self.s.mode}", rows, "zero", keepdims=int(self.s.kept))

    def collected(self, body: list[Any], start: str, end: str) -> str:
        """Return the places of a bag's rows but those of the padding index, one after the other."""
        inner: list[Any] = []
        first, last = (self.node(body, "Squeeze", n, "zero") for n in (start, end))
        index = self.node(inner, "Gather", "indices", "j")
        same = self.node(inner, "Equal", index, "pad")
        grown: list[Any] = []
        self.node(grown, "Concat", "places", self.node(grown, "Reshape", "j", "minus"), axis=0)
        kept: list[Any] = []
        self.node(kept, "Identity", "places")
        branches = [
            helper.make_graph(g, "g", [], [ValueInfoProto(name=g[-1].output[0])]) for g in (kept, grown)
        ]
        joined = self.node(inner, "If", same, then_branch=branches[0], else_branch=branches[1])
        after = self.node(inner, "Add", "j", "n1")
        going = self.node(inner, "Less", after, last)
        carried = [("places", "none", joined, [None]), ("j", first, after, [])]
        carried = carried[:: -1 if self.s.order % 2 else 1]
        ins = [
            _value("it2", I64, []),
            _value("c2", B, []),
            *(_value(n, I64, shape) for n, _, _, shape in carried),
        ]
        outs = [ValueInfoProto(name=n) for n in (going, *(after for _, _, after, _ in carried))]
        begun = self.node(body, "Less", first, last)
        names = [f"inner{self.count}{n}" for n, *_ in carried]
        node = helper.make_node("Loop", ["", begun, *(first for _, first, _, _ in carried)], names)
        node.attribute.append(helper.make_attribute("body", helper.make_graph(inner, "inner", ins, outs)))
        body.append(node)
        return next(n for n in names if n.endswith("places"))

    def guarded(self, body: list[Any], names: dict[str, str], start: str, end: str) -> str:
        """Return the pooled row of a bag, 0 where the spelling asks for it."""
        s, full = self.s, list[Any]()
        if s.drops and s.empty:  # what is left is counted, not what there was
            row, counted = self.pooled(body, names, start, end)
            some = self.node(body, "Greater", self.node(body, "Size", counted), "n0")
            self.node(full, "Identity", row)
        elif not s.empty:
            return self.pooled(body, names, start, end)[0]
        else:
            self.pooled(full, names, start, end)
            some = self.asked(body, start, end)
        nothing: list[Any] = []
        self.node(nothing, "Identity", "blank")
        graphs = [
            helper.make_graph(g, "g", [], [ValueInfoProto(name=g[-1].output[0])]) for g in (full, nothing)
        ]
        if s.empty in ("equal", "size"):
            some, graphs = self.node(body, "Not", some), graphs[::-1]
        return self.node(body, "If", some, then_branch=graphs[0], else_branch=graphs[1])

    def asked(self, body: list[Any], start: str, end: str) -> str:
        """Return whether a bag has rows."""
        if self.s.empty == "less":
            return self.node(body, "Less", start, end)
        if self.s.empty == "greater":
            return self.node(body, "Greater", self.node(body, "Sub", end, start), "n0")
        if self.s.empty == "size":
            part = self.node(body, "Slice", "indices", start, end, "zero")
            return self.node(body, "Not", self.node(body, "Equal", self.node(body, "Size", part), "n0"))
        return self.node(body, "Not", self.node(body, "Equal", end, start))

    def going(self, body: list[Any], counter: str, first: int) -> str:
        """Return the loop's condition; `counter` is that of this iteration."""
        after = self.node(body, "Add", counter, "n1")
        limit = {5: "n5", 8: "n8"}[5 + first]
        kind = self.s.condition
        if kind in ("true", "identity"):
            return self.node(body, "Identity", "yes" if kind == "true" else "c")
        if kind == "and":
            return self.node(body, "And", "c", "yes")
        if kind == "greater":
            return self.node(body, "Greater", limit, after)
        if kind == "not":
            return self.node(body, "Not", self.node(body, "GreaterOrEqual", after, limit))
        if kind == "at most":
            return self.node(body, "LessOrEqual", after, {5: "n4", 8: "n7"}[5 + first])
        return self.node(body, "Less", after, limit)

    def model(self) -> Any:
        """Return the whole model, its output `y`."""
        s = self.s
        nodes, names = self.outside()
        body: list[Any] = []
        if s.starts == "inside":
            names["ends"] = self.node(body, "Slice", names["starts"], "one", "far", "zero")
        first = 3 if s.counter == "own from 3" else 0
        counter = "it" if s.counter == "trip" else "i"
        index = self.node(body, "Sub", "i", "n3") if first else counter
        start, end = (self.element(body, names[n], index) for n in ("starts", "ends"))
        row = self.guarded(body, names, start, end)
        going = self.going(body, counter, first)
        return self.closed(nodes, body, row, going, first)

    def closed(self, nodes: list[Any], body: list[Any], row: str, going: str, first: int) -> Any:
        s, scans = self.s, self.s.result.startswith("scan")
        carried: list[tuple[str, str, str, Any]] = []  # in the body, at first, after, type
        if s.counter != "trip":
            after = self.node(body, "Add", "n1", "i")
            carried.append(("i", "n3" if first else "n0", after, _value("i", I64, [])))
        if not scans:
            empty = self.node(nodes, "SequenceEmpty", dtype=F)
            grown = self.node(body, "SequenceInsert", "seq", row)
            carried.append(("seq", empty, grown, helper.make_tensor_sequence_value_info("seq", F, None)))
        carried.append(("w", "weights", self.node(body, "Identity", "w"), _value("w", F, [8])))
        carried = _ordered(carried, s.order)
        ins = [_value("it", I64, []), _value("c", B, []), *(kind for *_, kind in carried)]
        outs = [
            ValueInfoProto(name=n) for n in (going, *(a for _, _, a, _ in carried), *([row] if scans else []))
        ]
        results = [f"last_{n}" for n, *_ in carried] + (["rows"] if scans else [])
        operands = ["n5" if s.trips == "known" else "", "yes", *(f for _, f, _, _ in carried)]
        node = helper.make_node("Loop", operands, results)
        node.attribute.append(helper.make_attribute("body", helper.make_graph(body, "body", ins, outs)))
        nodes.append(node)
        if scans:
            self.node(nodes, "Identity", "rows")
        else:
            self.node(
                nodes, "ConcatFromSequence", "last_seq", axis=0, new_axis=int(s.result == "sequence new")
            )
        nodes[-1].output[0] = "y"
        inputs = [_value("indices", I64, [8]), _value("weights", F, [8]), _value("offsets", I64, [5])]
        consts = [numpy_helper.from_array(v, k) for k, v in self.consts.items()]
        graph = helper.make_graph(nodes, "g", inputs, [_value("y", F, None)], consts)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def _value(name: str, kind: int, shape: Any) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def _ordered(items: list[Any], number: int) -> list[Any]:
    """Return items in one of their orders."""
    rest, out = list(items), []
    while rest:
        out.append(rest.pop(number % len(rest)))
        number //= max(len(rest) + 1, 1)
    return out
