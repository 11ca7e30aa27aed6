"""Operators as a serving runtime launches them: attention whole, projections side by side, chains as one.

The rules see who reads whom (`Work.inputs`, `Work.outputs`); work without names is left as it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ..sums import add_up
from ..types import Work

LAYOUT = ("transpose", "concat", "expand", "slice", "pad")
"""Moves that attention takes as strides or does in place: heads, the KV cache's new rows, shared heads."""


@dataclass(frozen=True)
class Fused:
    """One kernel: the work it does and the names of the operators in it."""

    work: Work
    parts: tuple[str, ...]


class Edges:
    """Who writes and who reads each value of a list of works."""

    def __init__(self, works: Sequence[Work]) -> None:
        self.works = works
        self.writer = {v: i for i, w in enumerate(works) for v in w.outputs}
        self.readers: dict[str, list[int]] = {}
        for i, w in enumerate(works):
            for v in dict.fromkeys(w.inputs):
                self.readers.setdefault(v, []).append(i)

    def sole_reader(self, i: int) -> int | None:
        """Return the one work that reads the one result of work `i`, None where there is not one."""
        outputs = self.works[i].outputs
        readers = self.readers.get(outputs[0], []) if len(outputs) == 1 else []
        return readers[0] if len(readers) == 1 else None

    def writers(self, i: int) -> list[int]:
        """Return the works that write the operands of work `i`."""
        return [self.writer[v] for v in dict.fromkeys(self.works[i].inputs) if v in self.writer]


def fuse(works: Sequence[Work]) -> list[Fused]:
    """Return the kernels that a serving runtime launches for the works, in order.

    Attention is one kernel with the layout moves around it; projections of one input are one matmul;
    elementwise chains are one kernel.
    """
    gone: set[int] = set()
    new: dict[int, Fused] = {}
    edges = Edges(works)
    for i, w in enumerate(works):
        if w.op == "softmax" and w.kind == "vector" and i not in gone:
            _attention(edges, i, gone, new)
    _siblings(edges, gone, new)
    _chains(edges, gone, new)
    return [new.get(i, Fused(w, (w.name,))) for i, w in enumerate(works) if i not in gone or i in new]


def _attention(edges: Edges, softmax: int, gone: set[int], new: dict[int, Fused]) -> None:
    """Fuse matmul, scaling and masks, softmax, matmul into one work of kind `attention`."""
    works, size = edges.works, works_size(edges.works[softmax])
    path, scores = [softmax], _above(edges, softmax, size)
    values = edges.sole_reader(softmax)
    if scores is None or values is None or works[values].kind != "matmul":
        return
    path += scores
    first, last = works[scores[-1]], works[values]
    if len(first.shape) != 4 or len(last.shape) != 4 or first.shape[:2] != last.shape[:2]:
        return
    if first.shape[3] != last.shape[2]:
        return
    batch, rows, key_size, keys = first.shape
    value_size = last.shape[3]
    queries = _queries(
        [works[i] for i in path], rows, keys, batch * (rows + keys) * key_size * first.dtype.bytes
    )
    moves = _layout(edges, [scores[-1], values], values, max(keys, rows) * batch * max(key_size, value_size))
    inside = {*path, values, *moves}
    gone |= inside
    names = tuple(works[i].name for i in sorted(inside))
    shape = (batch, rows, queries, keys, key_size, value_size)
    macs = sum(works[i].macs for i in inside)
    io = batch * (rows + keys) * (key_size + value_size) * first.dtype.bytes
    written = batch * rows * value_size * first.dtype.bytes
    work = Work(
        works[softmax].name, "attention", "attention", first.dtype, shape, macs, 0, io - written, written
    )
    new[values] = Fused(work, names)


def works_size(work: Work) -> int:
    """Return the elements of a vector work."""
    return work.shape[0] if work.shape else 0


def _above(edges: Edges, start: int, size: int) -> list[int] | None:
    """Return the works from `start` up to the matmul that makes the scores, None where there is none."""
    found: list[int] = []
    here = start
    for _ in range(8):
        above = [i for i in edges.writers(here) if edges.sole_reader(i) == here]
        made = [i for i in above if edges.works[i].kind == "matmul"]
        if len(made) == 1:
            return [*found, made[0]]
        same = [i for i in above if edges.works[i].kind == "vector" and works_size(edges.works[i]) == size]
        if len(same) != 1:
            return None
        here = same[0]
        found.append(here)
    return None


def _queries(path: Iterable[Work], rows: int, keys: int, operands: int) -> int:
    """Return how many positions of queries a causal mask covers, 0 where the path reads none.

    A work shows the mask by what it reads beside the scores: queries x keys elements of the scores' width,
    of a byte (bool) or of four (fp32).
    """
    for work in path:
        scores = rows * keys * (work.shape[0] if work.kind == "matmul" else 1)
        beside = work.read_bytes - (
            operands if work.kind == "matmul" else works_size(work) * work.dtype.bytes
        )
        for width in (work.dtype.bytes, 1, 4):
            queries = round(beside / (keys * width)) if scores else 0
            if 1 < queries <= keys and rows % queries == 0 and 0 <= beside - queries * keys * width <= 8:
                return queries
    return 0


def _layout(edges: Edges, products: Sequence[int], last: int, most: int) -> set[int]:
    """Return the layout moves between attention's products and the kernels before and after it."""
    found: set[int] = set()
    frontier = [i for p in products for i in edges.writers(p)]
    while frontier:
        i = frontier.pop()
        if i not in found and edges.works[i].op in LAYOUT and works_size(edges.works[i]) <= most:
            found.add(i)
            frontier += edges.writers(i)
    after = edges.sole_reader(last)
    if after is not None and edges.works[after].op == "transpose":
        found.add(after)
    return found


def _siblings(edges: Edges, gone: set[int], new: dict[int, Fused]) -> None:
    """Make one matmul of plain projections of one input, at the first one's place."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for i, w in enumerate(edges.works):
        if (
            i not in gone
            and w.op == "matmul"
            and w.kind == "matmul"
            and w.shape[0] == 1
            and len(w.inputs) == 2
        ):
            groups.setdefault((w.inputs[0], w.dtype, w.shape[:3]), []).append(i)
    for members in groups.values():
        if len(members) < 2:
            continue
        works = [edges.works[i] for i in members]
        _, m, k, _ = works[0].shape
        left = m * k * works[0].dtype.bytes
        whole = replace(
            works[0],
            shape=(1, m, k, sum(w.shape[3] for w in works)),
            macs=sum(w.macs for w in works),
            flops=add_up(w.flops for w in works),
            read_bytes=sum(w.read_bytes for w in works) - left * (len(works) - 1),
            write_bytes=sum(w.write_bytes for w in works),
        )
        gone |= set(members)
        new[members[0]] = Fused(whole, tuple(w.name for w in works))


def _chains(edges: Edges, gone: set[int], new: dict[int, Fused]) -> None:
    """Fuse an elementwise work into the one that alone reads it, where both have the same elements."""
    works = edges.works
    plain = Counter({i: 1 for i, w in enumerate(works) if i not in gone and w.kind == "vector" and not w.row})
    merged: dict[int, tuple[Work, tuple[str, ...]]] = {}
    for i in sorted(plain):
        work, names = merged.pop(i, (works[i], (works[i].name,)))
        after = edges.sole_reader(i)
        if after is None or after not in plain or works_size(works[after]) != works_size(works[i]):
            if len(names) > 1:
                new[i] = Fused(work, names)
            continue
        base, before = merged.get(after, (works[after], (works[after].name,)))
        between = works[i].write_bytes
        whole = replace(
            base,
            flops=base.flops + work.flops,
            read_bytes=max(0, base.read_bytes - between) + work.read_bytes,
        )
        merged[after] = (whole, (*names, *before))
        gone.add(i)
