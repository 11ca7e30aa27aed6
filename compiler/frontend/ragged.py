"""Rows whose number only the data tell, where the graph around them is static: experts' shares of tokens.

An expert layer sorts its tokens by expert; each expert takes the rows between two numbers that depend on the
data, multiplies them, and the results are joined. Here each expert multiplies all rows, and the join takes
from each result the rows that are its own: the worst case, executed and charged as such.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ..ops import ONNX, Unsupported
from ..ops.elementwise import BINARY, UNARY
from ..ops.spelling import counted
from .scope import Ragged, Scope, Value, op_key

if TYPE_CHECKING:
    from .importer import Importer

BY_ROW = {*UNARY, *BINARY, "Cast", "Gelu", "MatMul", "Gemm"}


def make_range(importer: Importer, node: Any, inputs: tuple[Value, ...], scope: Scope) -> Sequence[Value]:
    """Return a range that is known, or one that steps by 1 between two numbers that are not."""
    start, limit, delta = (importer.tensor(v) for v in inputs)
    builder = importer.builder
    step = builder.known(delta)
    known = builder.known(start) is not None and builder.known(limit) is not None
    whole = not builder.type_of(start).dtype.is_float
    if known or not whole or step is None or step.size != 1 or int(step.reshape(-1)[0]) != 1:
        return importer.spell(node, "Range", inputs, scope, set())
    return [Ragged("", start, limit)]


def apply(
    importer: Importer, node: Any, inputs: tuple[Value, ...], scope: Scope, used: Set[str]
) -> Sequence[Value]:
    """Return the results of a node some of whose operands are rows of unknown number."""
    key = op_key(node)
    if key == "Gather":
        return [_gather(importer, node, inputs, scope)]
    if key == "Concat":
        return [_join(importer, node, inputs, scope)]
    rows = next(v for v in inputs if isinstance(v, Ragged))
    if key not in BY_ROW or key not in ONNX or not _aligned(importer, key, inputs, rows):
        raise unknown(importer, rows)
    plain = tuple(v.value if isinstance(v, Ragged) else v for v in inputs)
    results = importer.spell(node, key, plain, scope, used)
    return [Ragged(importer.tensor(v), rows.start, rows.end) for v in results]


def unknown(importer: Importer, rows: Ragged) -> Unsupported:
    """Return the refusal of an operator that needs to know how many rows there are."""
    builder = importer.builder
    value = rows.end if builder.known(rows.end) is None else rows.start
    return Unsupported(f"it works on as many rows as the data say: from %{rows.start} to %{rows.end}", value)


def _aligned(importer: Importer, key: str, inputs: tuple[Value, ...], rows: Ragged) -> bool:
    """Return whether each row of the result depends on the same row of the operands alone."""
    if not rows.value or any(
        isinstance(v, Ragged) and (v.start, v.end) != (rows.start, rows.end) for v in inputs
    ):
        return False
    rank = len(importer.builder.type_of(rows.value).shape)
    others = [importer.builder.type_of(v).shape for v in inputs if isinstance(v, str) and v]
    if key in ("MatMul", "Gemm"):
        return isinstance(inputs[0], Ragged) and rank == 2 and all(len(s) <= 2 for s in others)
    return all(len(s) < rank or (len(s) == rank and s[0] == 1) for s in others)


def _gather(importer: Importer, node: Any, inputs: tuple[Value, ...], scope: Scope) -> Ragged:
    source, rows = inputs[0], inputs[1]
    axis = importer.attributes(node, scope).get("axis", 0)
    if not isinstance(source, str) or not isinstance(rows, Ragged) or rows.value or axis != 0:
        raise unknown(importer, next(v for v in inputs if isinstance(v, Ragged)))
    return Ragged(source, rows.start, rows.end)


def _join(importer: Importer, node: Any, inputs: tuple[Value, ...], scope: Scope) -> str:
    """Return runs that follow one another from 0 as one tensor, of all the rows that there are."""
    builder = importer.builder
    runs = [v for v in inputs if isinstance(v, Ragged) and v.value]
    first = builder.known(runs[0].start) if runs else None
    follow = all(a.end == b.start for a, b in pairwise(runs))
    starts = first is not None and not first.any()
    same = len({builder.type_of(run.value) for run in runs}) == 1
    axis = importer.attributes(node, scope).get("axis", 0)
    if len(runs) != len(inputs) or not (follow and starts and same) or axis != 0:
        raise unknown(importer, next(v for v in inputs if isinstance(v, Ragged)))
    shape = builder.type_of(runs[0].value).shape
    places = builder.constant(counted(shape[0]).reshape(-1, *(1 for _ in shape[1:])))
    result = runs[-1].value
    for run in reversed(runs[:-1]):
        end = builder.add("cast", builder.add("reshape", run.end, shape=()), to="int64")
        result = builder.add("where", builder.add("less", places, end), run.value, result)
    return result
