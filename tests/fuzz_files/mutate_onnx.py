"""Changes to an ONNX model by its fields, whichever they are: protobuf says what there is."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from . import mutate

TRIPS = (0, 1, 2, 64, 4096, 1 << 40)
OPS = (
    *[
        "Loop",
        "If",
        "Scan",
        "Concat",
        "Split",
        "Reshape",
        "Tile",
        "Expand",
        "Pad",
        "ConstantOfShape",
        "Range",
        "Resize",
        "OneHot",
    ],
    *["Gather", "Einsum", "Conv", "ConvTranspose", "LSTM", "TopK", "Identity", "Cast", "SequenceConstruct"],
    *[
        "SplitToSequence",
        "MatMul",
        "Transpose",
        "Slice",
        "CumSum",
        "MaxPool",
        "Attention",
        "DequantizeLinear",
    ],
    *["NonZero", "Where", "Constant", "DFT", "Unsqueeze", "GatherND", "LayerNormalization"],
)


def messages(root: Any) -> Iterator[Any]:
    """Yield a message and all within it."""
    pending = [root]
    while pending:
        message = pending.pop()
        yield message
        for field, value in message.ListFields():
            if field.type == field.TYPE_MESSAGE:
                pending += list(value) if _repeated(field) else [value]


def _repeated(field: Any) -> bool:
    return bool(
        getattr(field, "is_repeated", None) or (not hasattr(field, "is_repeated") and field.label == 3)
    )


def field(model: ModelProto, rng: random.Random) -> None:
    """Change one field of one message, or one element of it."""
    message = rng.choice(list(messages(model)))
    held = message.ListFields()
    spot = rng.choice([f for f, _ in held] * 3 + list(message.DESCRIPTOR.fields))
    if _repeated(spot):
        _elements(message, spot, rng)
    elif spot.type == spot.TYPE_MESSAGE:
        rng.choice((message.ClearField, lambda name: getattr(message, name).SetInParent()))(spot.name)
    else:
        _set(message, spot.name, _value(spot, rng, model))


def _elements(message: Any, spot: Any, rng: random.Random) -> None:
    items = getattr(message, spot.name)
    kind = rng.randrange(4)
    if items and kind == 0:
        del items[rng.randrange(len(items))]
    elif items and kind == 1 and len(items) < 50_000:
        one = rng.choice(list(items))
        items.extend([one] * rng.choice((1, 1, 3, 2000 if spot.type != spot.TYPE_MESSAGE else 40)))
    elif items and spot.type != spot.TYPE_MESSAGE:
        drawn = _value(spot, rng, message)
        try:
            items[rng.randrange(len(items))] = drawn
        except (TypeError, ValueError):
            del items[:]
    elif items:
        taken = list(items)
        rng.shuffle(taken)
        copies = [type(x).FromString(x.SerializeToString()) for x in taken]
        del items[:]
        items.extend(copies)
    elif spot.type == spot.TYPE_MESSAGE:
        items.add()
    else:
        items.extend([_value(spot, rng, message)] * rng.choice((1, 3)))


def _value(spot: Any, rng: random.Random, root: Any) -> Any:
    """Return an extreme of a field's type; for a text often one that stands elsewhere in the message."""
    if spot.type == spot.TYPE_STRING:
        texts = [
            v for m in messages(root) for f, v in m.ListFields() if f.type == spot.type and not _repeated(f)
        ]
        return rng.choice((rng.choice(texts or [""]), rng.choice(OPS), rng.choice(mutate.NAMES)))
    if spot.type == spot.TYPE_BYTES:
        return rng.choice((b"", b"\xff" * 8, bytes(rng.randrange(256) for _ in range(rng.randrange(64)))))
    if spot.type in (spot.TYPE_FLOAT, spot.TYPE_DOUBLE):
        return rng.choice((0.0, -0.0, 1e38, -1e-40, float("nan"), float("inf"), 0.5))
    if spot.type == spot.TYPE_ENUM or spot.type == spot.TYPE_INT32:
        return rng.choice((0, 1, 2, 3, 5, 7, 9, 10, 11, 16, 17, 21, 22, 99, 2**31 - 1, -1))
    if spot.type == spot.TYPE_UINT64:
        return rng.choice((0, 1, 2**64 - 1))
    return rng.choice((*mutate.INTEGERS, rng.randrange(10)))


def _set(message: Any, name: str, value: Any) -> None:
    try:
        setattr(message, name, value)
    except (TypeError, ValueError):  # an enum that has no such number
        message.ClearField(name)


def operator(model: ModelProto, rng: random.Random) -> None:
    """Let a node be of another operator."""
    nodes = [m for m in messages(model) if isinstance(m, NodeProto)]
    if nodes:
        rng.choice(nodes).op_type = rng.choice(OPS)


def rewire(model: ModelProto, rng: random.Random) -> None:
    """Let a node read or make another value."""
    nodes = [m for m in messages(model) if isinstance(m, NodeProto)]
    names = [n for node in nodes for n in (*node.input, *node.output)] or [""]
    node = rng.choice(nodes) if nodes else None
    if node is None:
        return
    side = rng.choice((node.input, node.input, node.output))
    if side and rng.random() < 0.7:
        side[rng.randrange(len(side))] = rng.choice(names)
    else:
        side.extend([rng.choice(names)] * rng.choice((1, 1, 2, 500)))


def loop(model: ModelProto, rng: random.Random) -> None:
    """Put the nodes into a loop, or into one more."""
    graph = model.graph
    inner = GraphProto(name="body")
    for name, kind in (("trip", TensorProto.INT64), ("going", TensorProto.BOOL)):
        inner.input.append(helper.make_tensor_value_info(f"{name}.{len(graph.node)}", kind, ()))
    inner.output.append(inner.input[1])
    inner.node.extend(graph.node)
    if rng.random() < 0.5:
        inner.initializer.extend(graph.initializer)
    if rng.random() < 0.5:
        inner.output.extend(graph.output)
    del graph.node[:]
    graph.initializer.append(helper.make_tensor("trips", TensorProto.INT64, (), [rng.choice(TRIPS)]))
    graph.initializer.append(helper.make_tensor("yes", TensorProto.BOOL, (), [True]))
    results = [o.name for o in graph.output][: len(inner.output) - 1]
    graph.node.append(helper.make_node("Loop", ["trips", "yes"], results, body=inner))


def function(model: ModelProto, rng: random.Random) -> None:
    """Put the nodes into a function that is called, perhaps by itself, perhaps often."""
    graph = model.graph
    inputs = [i.name for i in graph.input] + [t.name for t in graph.initializer]
    outputs = [o.name for o in graph.output]
    opsets = [helper.make_opsetid(o.domain, o.version) for o in model.opset_import]
    made = helper.make_function("f", "F", inputs, outputs, list(graph.node), opsets)
    if rng.random() < 0.3:
        made.node.append(helper.make_node("F", inputs, [f"{o}.again" for o in outputs], domain="f"))
    model.functions.append(made)
    del graph.node[:]
    model.opset_import.append(helper.make_opsetid("f", 1))
    for call in range(rng.choice((1, 1, 2, 300))):
        names = outputs if call == 0 else [f"{o}.{call}" for o in outputs]
        graph.node.append(helper.make_node("F", inputs, names, domain="f"))


def chain(model: ModelProto, rng: random.Random) -> None:
    """Let a node stand many times, each reading what the one before it made."""
    graph = model.graph
    if not graph.node or not graph.node[0].input or not graph.node[0].output:
        return
    node = rng.choice(list(graph.node))
    if not node.input or not node.output:
        return
    last = node.output[0]
    for number in range(rng.choice((3, 60))):
        new = NodeProto.FromString(node.SerializeToString())
        new.name = f"{node.name}.{number}"
        new.input[0] = last
        del new.output[:]
        new.output.append(f"{node.output[0]}.chain{number}")
        graph.node.append(new)
        last = new.output[0]
    graph.output.append(helper.make_empty_tensor_value_info(last))


CHANGES: tuple[Callable[[ModelProto, random.Random], None], ...] = (
    *(field,) * 8, operator, rewire, rewire, loop, function, chain)  # fmt: skip


def model(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """Change a model's fields; now and then its bytes."""
    if rng.random() < 0.2:
        return mutate.plain(data, rng, other)
    proto = ModelProto.FromString(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        rng.choice(CHANGES)(proto, rng)
    out = proto.SerializeToString()
    return out if len(out) <= mutate.MOST_BYTES else data
