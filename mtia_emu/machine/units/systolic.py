"""A systolic array: its cycles in closed form, and the array stepped register by register to prove the form.

Both are the array of SCALE-Sim: folds are serial, the stationary operand moves in one row a cycle, operands
stream in skewed by one cycle a lane, and edges are padded with zeros. SCALE-Sim prints the index of the last
cycle; here cycles are counted, which gives one more.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import UserError, refuse_unknown
from ...numerics import jitted, widen

Array = np.ndarray[Any, Any]

DATAFLOWS = {"weight_stationary": "ws", "output_stationary": "os", "input_stationary": "is"}


def dataflow_of(name: str) -> str:
    """Return 'ws', 'os' or 'is' for a dataflow's short or long name; raise `UserError` for another."""
    if name in DATAFLOWS.values():
        return name
    if name not in DATAFLOWS:
        raise refuse_unknown("dataflow", name, [*DATAFLOWS, *DATAFLOWS.values()])
    return DATAFLOWS[name]


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


def _positive(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise UserError(f"systolic array: {name} must be at least 1, got {size}")


def folds(m: int, k: int, n: int, *, rows: int, cols: int, dataflow: str) -> int:
    """Return how often an array of rows x cols is loaded anew for a[m,k] @ b[k,n]."""
    flow = dataflow_of(dataflow)
    _positive(m=m, k=k, n=n, rows=rows, cols=cols)
    down, across = {"ws": (k, n), "is": (k, m), "os": (m, n)}[flow]
    return _ceil(down, rows) * _ceil(across, cols)


def systolic_cycles(m: int, k: int, n: int, *, rows: int, cols: int, dataflow: str) -> int:
    """Return the cycles that an array of rows x cols takes for a[m,k] @ b[k,n], to the last result.

    A fold takes 2 rows + cols + m - 2 cycles (ws; is: n for m) to load, stream and drain, or rows + cols +
    k - 2 (os) to the last multiply-add. Source: SCALE-Sim 3.0.0, which prints one less. Raises `UserError`
    for sizes below 1 and unknown dataflows.
    """
    flow = dataflow_of(dataflow)
    count = folds(m, k, n, rows=rows, cols=cols, dataflow=flow)
    load, stream = {"ws": (rows, m), "is": (rows, n), "os": (0, k)}[flow]
    return count * (load + stream + rows + cols - 2)


def sram_words(m: int, k: int, n: int, *, rows: int, cols: int, dataflow: str) -> tuple[int, int, int]:
    """Return the words of a read, of b read and of (partial) sums written; padding is not counted.

    The stationary operand is read once, a streaming one once for each fold across its other side; each fold
    along k writes its partial sums. SCALE-Sim 3.0.0 counts the same, but for rows + cols writes too many in
    each os fold.
    """
    flow = dataflow_of(dataflow)
    _positive(m=m, k=k, n=n, rows=rows, cols=cols)
    a_times = 1 if flow == "is" else _ceil(n, cols)
    b_times = {"ws": 1, "is": _ceil(m, cols), "os": _ceil(m, rows)}[flow]
    writes = 1 if flow == "os" else _ceil(k, rows)
    return m * k * a_times, k * n * b_times, m * n * writes


def step(a: Array, b: Array, *, rows: int, cols: int, dataflow: str) -> tuple[Array, int, int]:
    """Return a[m,k] @ b[k,n], the cycles and the folds of an array stepped register by register.

    The cycles are those stepped until the last result has left (ws, is) or the last multiply-add is done
    (os). The product, fp32 for floats and int32 for integers, has the bits that `numerics.tile_matmul` adds
    to zeros with chunk = rows (ws, is) or chunk = k (os); which NaN a NaN is, is left open.
    """
    flow = dataflow_of(dataflow)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0]:
        raise UserError(f"systolic array: operands are {a.shape} and {b.shape}; right: [m,k] and [k,n]")
    _positive(m=a.shape[0], k=a.shape[1], n=b.shape[1], rows=rows, cols=cols)
    a, b = widen(a), widen(b)
    if a.dtype != b.dtype:
        raise UserError(f"systolic array: {a.dtype} times {b.dtype}: both must be floats or both integers")
    with np.errstate(all="ignore"):  # plain Python warns of what machine code does in silence
        if flow == "os":
            return _step_outputs(a, b, rows, cols)
        if flow == "ws":
            return _step_weights(a, b, rows, cols)
        product, cycles, count = _step_weights(b.T, a.T, rows, cols)  # holds a: the transposed product
        return np.ascontiguousarray(product.T), cycles, count


def _block(x: Array, row: int, col: int, rows: int, cols: int) -> Array:
    """Return x[row:row+rows, col:col+cols], padded with zeros where x ends."""
    block = np.zeros((rows, cols), x.dtype)
    part = x[row : row + rows, col : col + cols]
    block[: part.shape[0], : part.shape[1]] = part
    return block


def _step_weights(a: Array, b: Array, rows: int, cols: int) -> tuple[Array, int, int]:
    (m, k), n = a.shape, b.shape[1]
    out, cycles, count = np.zeros((m, n), a.dtype), 0, 0
    for row in range(0, k, rows):
        for col in range(0, n, cols):
            held, sums = np.zeros((rows, cols), a.dtype), np.zeros((m, cols), a.dtype)
            cycles += _load(_block(b, row, col, rows, cols), held)
            cycles += _stream(_block(a, 0, row, m, rows), held, sums)
            count += 1
            out[:, col : col + cols] += sums[:, : n - col]
    return out, cycles, count


def _step_outputs(a: Array, b: Array, rows: int, cols: int) -> tuple[Array, int, int]:
    (m, k), n = a.shape, b.shape[1]
    out, cycles, count = np.zeros((m, n), a.dtype), 0, 0
    for row in range(0, m, rows):
        for col in range(0, n, cols):
            sums = np.zeros((rows, cols), a.dtype)
            cycles += _accumulate(_block(a, row, 0, rows, k), _block(b, 0, col, k, cols), sums)
            count += 1
            out[row : row + rows, col : col + cols] = sums[: m - row, : n - col]
    return out, cycles, count


@jitted
def _load(b: Array, held: Array) -> int:
    """Move b[R,C] into held[R,C] from the top, its last row first, and return the cycles."""
    rows, cols = b.shape
    cycles = 0
    for late in range(rows - 1, -1, -1):
        for r in range(rows - 1, 0, -1):
            for c in range(cols):
                held[r, c] = held[r - 1, c]
        for c in range(cols):
            held[0, c] = b[late, c]
        cycles += 1
    return cycles


@jitted
def _stream(a: Array, held: Array, sums: Array) -> int:
    """Set sums[m,C] to a[m,R] @ held[R,C] and return the cycles until the last sum has left."""
    m, (rows, cols) = a.shape[0], held.shape
    x, x_next = np.zeros_like(held), np.zeros_like(held)  # operands: move right
    tag, tag_next = np.zeros(held.shape, np.int32), np.zeros(held.shape, np.int32)  # 1 + their row of a
    p, p_next = np.zeros((rows + 1, cols), a.dtype), np.zeros((rows + 1, cols), a.dtype)  # sums: move down
    cycles, gone = 0, 0
    while gone < m * cols:
        for r in range(rows):
            i = cycles - r  # lane r starts r cycles late
            x_next[r, 0] = a[i, r] if 0 <= i < m else 0
            tag_next[r, 0] = i + 1 if 0 <= i < m else 0
            for c in range(1, cols):
                x_next[r, c] = x[r, c - 1]
                tag_next[r, c] = tag[r, c - 1]
            for c in range(cols):
                p_next[r + 1, c] = p[r, c] + held[r, c] * x_next[r, c]
        x, x_next, tag, tag_next, p, p_next = x_next, x, tag_next, tag, p_next, p
        for c in range(cols):
            if tag[rows - 1, c] > 0:
                sums[tag[rows - 1, c] - 1, c] = p[rows, c]
                gone += 1
        cycles += 1
    return cycles


@jitted
def _accumulate(a: Array, b: Array, sums: Array) -> int:
    """Add a[R,k] @ b[k,C] to sums[R,C] in place and return the cycles to the last multiply-add."""
    k, (rows, cols) = a.shape[1], sums.shape
    x, x_next = np.zeros_like(sums), np.zeros_like(sums)  # operands of a: move right
    w, w_next = np.zeros_like(sums), np.zeros_like(sums)  # operands of b: move down
    live, live_next = np.zeros(sums.shape, np.int32), np.zeros(sums.shape, np.int32)  # 1 where x is one
    cycles, finished = 0, 0
    while finished < rows * cols * k:
        for c in range(cols):
            w_next[0, c] = b[cycles - c, c] if 0 <= cycles - c < k else 0
        for r in range(1, rows):
            for c in range(cols):
                w_next[r, c] = w[r - 1, c]
        for r in range(rows):
            x_next[r, 0] = a[r, cycles - r] if 0 <= cycles - r < k else 0
            live_next[r, 0] = 1 if 0 <= cycles - r < k else 0
            for c in range(1, cols):
                x_next[r, c] = x[r, c - 1]
                live_next[r, c] = live[r, c - 1]
            for c in range(cols):
                sums[r, c] += x_next[r, c] * w_next[r, c]  # where no operands are, both are zero
                finished += live_next[r, c]
        x, x_next, w, w_next, live, live_next = x_next, x, w_next, w, live_next, live
        cycles += 1
    return cycles
