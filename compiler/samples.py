"""Random inputs that a model can take: indices within their tables, offsets that rise, masks of ones."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from mtia_emu.types import TensorType

from .graph import Graph
from .ops.embedding_bag import bag_operand

Array = np.ndarray[Any, Any]
THROUGH = ("reshape", "cast", "slice", "transpose", "concat", "expand", "ragged_split", "copy")


def random_inputs(graph: Graph, seed: int = 0) -> dict[str, Array]:
    """Return a random array for each input, the same for the same seed.

    Floats are standard normal. Integers that index rows are uniform over them; offsets of bags rise; lengths
    share the values there are; of what is left, names with "mask" give ones, names with "pos" count up,
    others are 0 or 1.
    """
    return {
        name: _sample(graph, name, kind, np.random.default_rng([seed, zlib.crc32(name.encode())]))
        for name, kind in graph.inputs.items()
    }


def _sample(graph: Graph, name: str, kind: TensorType, rng: np.random.Generator) -> Array:
    if kind.dtype.is_float:
        limit = _rows(graph, name)  # ids that arrive as floats
        values = rng.integers(0, limit, kind.shape) if limit else rng.standard_normal(kind.shape)
        return np.asarray(values).astype(kind.dtype.numpy)
    role = _role(graph, name)
    if role is not None:
        what, size = role
        if what == "rows":
            return rng.integers(0, max(size, 1), kind.shape).astype(kind.dtype.numpy)
        cuts = np.sort(rng.integers(0, size + 1, kind.shape), axis=-1)
        cuts[..., 0] = 0
        return cuts.astype(kind.dtype.numpy)
    if "length" in name.lower():
        total = max(
            (t.size for other, t in graph.inputs.items() if other != name and not t.dtype.is_float), default=0
        )
        return (
            np.bincount(rng.integers(0, max(kind.size, 1), total), minlength=kind.size)
            .reshape(kind.shape)
            .astype(kind.dtype.numpy)
        )
    if "mask" in name.lower() or kind.dtype.name == "bool":
        return np.ones(kind.shape, kind.dtype.numpy)
    if "pos" in name.lower() and kind.rank:
        return np.broadcast_to(np.arange(kind.shape[-1]), kind.shape).astype(kind.dtype.numpy)
    return rng.integers(0, 2, kind.shape).astype(kind.dtype.numpy)


def _rows(graph: Graph, name: str) -> int:
    """Return the fewest rows that a float input, cast to integers, indexes; 0 where it does not."""
    role = _role(graph, name)
    return role[1] if role is not None and role[0] == "rows" else 0


def _role(graph: Graph, name: str) -> tuple[str, int] | None:
    """Return ("rows", how many) for indices, ("offsets", look-ups) for bag offsets, else None."""
    sizes: dict[str, list[int]] = {"rows": [], "offsets": []}
    seen, work = {name}, [name]
    while work:
        for node, position in graph.users(work.pop()):
            part, first = bag_operand(node.op, node.attrs, position)
            if part == "indices":
                sizes["rows"].append(graph.type_of(node.inputs[first]).shape[0])
            elif part == "offsets":
                sizes["offsets"].append(graph.type_of(node.inputs[first + 1]).shape[0])
            elif node.op == "gather" and position == 1:
                sizes["rows"].append(graph.type_of(node.inputs[0]).shape[int(node.attrs["axis"])])
            elif node.op in THROUGH:
                work += [v for v in node.outputs if v not in seen]
                seen.update(node.outputs)
    for what, found in sizes.items():
        if found:
            return what, min(found)
    return None
