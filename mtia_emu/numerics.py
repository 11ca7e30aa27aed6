"""The one rule by which a matrix product is summed, and the door to compiled code.

Floating point sums depend on their order, so the order is part of the machine: an array whose stationary
operand covers `chunk` rows of k sums those products from zero, one k after another, and only then adds the
partial sum to the accumulator. `machine/units/systolic.py` steps an array that gives the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, update_wrapper
from types import FunctionType
from typing import Any

import numpy as np

from .errors import UserError
from .files.code_cache import CodeCache
from .types import dtype_of

Array = np.ndarray[Any, Any]

_EXACT = 1 << 24  # fp32 holds every integer up to here


class jitted:
    """Decorate a function: numba compiles it at its first call and keeps the machine code on disk.

    numba is imported by that call, not before; `NUMBA_DISABLE_JIT=1` runs the function as plain Python. The
    code is kept in `NUMBA_CACHE_DIR` or `settings.cache_folder()`, in a folder for each text of the modules
    that it comes from (`code_cache`); where that cannot be written, it is compiled anew in each process.
    """

    def __init__(self, function: Callable[..., Any], **options: Any) -> None:
        self.function, self.options = function, options
        self._compiled: Callable[..., Any] | None = None
        update_wrapper(self, function)

    @property
    def called(self) -> dict[str, jitted]:
        """Return the jitted functions that this one names."""
        names = self.function.__globals__
        named = {n: names.get(n) for n in self.function.__code__.co_names}
        return {n: f for n, f in named.items() if isinstance(f, jitted)}

    @property
    def files(self) -> set[str]:
        """Return the modules that the function and those that it calls come from."""
        return {self.function.__code__.co_filename}.union(*(f.files for f in self.called.values()))

    def __call__(self, *operands: Any) -> Any:
        """Return the function of the operands."""
        return self.compiled()(*operands)

    def compiled(self) -> Callable[..., Any]:
        """Return what numba makes of the function, those that it calls compiled too."""
        if self._compiled is None:
            self._compiled = _compile(self._linked(), self.files, self.options)
        return self._compiled

    def _linked(self) -> Callable[..., Any]:
        """Return the function with the jitted ones that it names replaced by what numba makes of them."""
        function, called = self.function, self.called
        if not called:
            return function
        linked = {n: f.compiled() for n, f in called.items()}
        names = {**function.__globals__, **linked}
        return update_wrapper(FunctionType(function.__code__, names), function)


def borrowing(function: Callable[..., Any]) -> jitted:
    """Decorate, as `jitted` does, a function that makes and returns no array, nor does any that it calls.

    References to its arrays are not counted: where functions of a few steps pass arrays on, counting takes a
    third of the time.
    """
    return jitted(function, _nrt=False)


def _compile(function: Callable[..., Any], files: set[str], options: dict[str, Any]) -> Callable[..., Any]:
    import numba

    compiled: Any = numba.njit(**options)(function)
    if hasattr(compiled, "_cache"):  # plain Python, by `NUMBA_DISABLE_JIT`, has none
        compiled._cache = CodeCache(function, files, options)
    return compiled


def widen(x: Array) -> Array:
    """Return x, of any shape, as units hold it, C-contiguous: fp32 for floats, int32 for integers.

    Raises `UserError` for a type that they do not hold exactly: fp64, uint32 and wider.
    """
    wide, from_bits = _wide(x.dtype)
    if from_bits is None or not x.flags.c_contiguous:
        return np.ascontiguousarray(x, dtype=wide)
    out = np.empty(x.shape, np.float32)
    flat = out.reshape(-1)
    from_bits(x.reshape(-1).view(np.uint16), flat.view(np.uint32), flat)
    return out


@cache
def _wide(kind: np.dtype[Any]) -> tuple[type[np.generic], jitted | None]:
    """Return the type in which units hold another, and what makes it of 16 bits, where that is quicker."""
    dtype = dtype_of(np.empty(0, kind))
    if dtype.is_float and dtype.bits <= 32:
        return np.float32, {"fp16": _from_fp16, "bf16": _from_bf16}.get(dtype.name)
    if not dtype.is_float and np.can_cast(kind, np.int32):
        return np.int32, None
    raise UserError(f"a matrix unit cannot multiply {dtype} (right: fp32 or narrower, int32 or narrower)")


@jitted
def _from_fp16(bits: Array, wide: Array, values: Array) -> None:
    """Fill wide[n], the bits of the fp32 numbers values[n], from the bits of fp16 numbers, bits[n].

    Of both, exponents stand before mantissas: moved to their place they are those of a number that is too
    small by the difference of the biases, 2^112, also where it is subnormal. What is then too large for fp16
    is infinite or no number.
    """
    for i in range(len(bits)):
        wide[i] = (bits[i] & 0x7FFF) << 13
    for i in range(len(values)):
        values[i] *= np.float32(2.0**112)
    for i in range(len(bits)):
        beyond = 0x7F800000 if wide[i] >= 0x47800000 else 0
        wide[i] |= beyond | ((bits[i] & 0x8000) << 16)


@jitted
def _from_bf16(bits: Array, wide: Array, values: Array) -> None:
    """Fill wide[n], the bits of fp32 numbers, from those of bf16 numbers, bits[n]: the upper half."""
    for i in range(len(bits)):
        wide[i] = bits[i] << 16


def tile_matmul(a: Array, b: Array, acc: Array, chunk: int) -> None:
    """Add a[m,k] @ b[k,n] to acc[m,n] in place, in the order in which an array adds.

    For each run of `chunk` consecutive k the products are summed from zero, k ascending, and the partial sum
    is added to acc. With chunk >= k there is one partial sum: an output-stationary array, which sums all of k
    in place. Floats (fp32, or narrower: they are widened, so that products of fp16 are exact) are multiplied
    and added in fp32, each rounded, never fused; acc is fp32. Integers are multiplied and added modulo 2^32;
    acc is int32. Raises `UserError` for other types and for shapes that do not fit.
    """
    products = _check(a, b, acc, chunk)
    if products:
        _add_exact(a, b, acc, products)
        return
    with np.errstate(all="ignore"):  # plain Python warns of what machine code does in silence
        _add_in_order(widen(a), widen(b), acc, chunk)


def _check(a: Array, b: Array, acc: Array, chunk: int) -> int:
    """Return `_exact_products` of operands that fit together; raise `UserError` for others."""
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0] or acc.shape != (a.shape[0], b.shape[1]):
        raise UserError(f"tile_matmul: a {a.shape}, b {b.shape}, acc {acc.shape}; right: [m,k], [k,n], [m,n]")
    if chunk < 1:
        raise UserError(f"tile_matmul: chunk must be at least 1, got {chunk}")
    return _checked_types(a.dtype, b.dtype, acc.dtype)


@cache
def _checked_types(a: np.dtype[Any], b: np.dtype[Any], acc: np.dtype[Any]) -> int:
    left, right = (dtype_of(np.empty(0, kind)) for kind in (a, b))
    if left.is_float != right.is_float:
        raise UserError(f"tile_matmul: {left} times {right}: both must be floats or both integers")
    sum_type = np.dtype(np.float32 if left.is_float else np.int32)
    if acc != sum_type:
        raise UserError(f"tile_matmul: {left} operands need a {sum_type} acc, got {acc}")
    return 0 if left.is_float else _exact_products(a, b)


def multiply_tiles(a: Array, b: Array, acc: Array, chunk: int) -> int:
    """Add a[m,k] @ b[k,n] to acc[m,n] as `tile_matmul` does; return `zero_products`.

    Products of fp16, of which models make most, are widened, summed and counted by one call of machine code.
    """
    plain = a.flags.c_contiguous and b.flags.c_contiguous
    if not (plain and a.dtype == b.dtype == np.float16):
        tile_matmul(a, b, acc, chunk)
        return zero_products(a, b)
    _check(a, b, acc, chunk)
    with np.errstate(all="ignore"):
        full = _multiply_fp16(a.view(np.uint16), b.view(np.uint16), acc, chunk)
    return a.shape[0] * a.shape[1] * b.shape[1] - int(full)


def zero_products(a: Array, b: Array) -> int:
    """Return how many of the m k n multiply-adds of a[m,k] @ b[k,n] have a zero operand, of either sign.

    Counted exactly, without making a product: position k has as many products without a zero as a's column
    and b's row have nonzero elements, one times the other.
    """
    bits = f"u{a.itemsize}", f"u{b.itemsize}"
    left, right = a.view(bits[0]), b.view(bits[1])
    full = _full_products(left, right, _magnitude(a), _magnitude(b))
    return a.shape[0] * a.shape[1] * b.shape[1] - int(full)


def _magnitude(x: Array) -> int:
    """Return the bits of an element of x, of any shape, but its sign: -0.0 is a zero, -128 is none."""
    bits = 8 * x.itemsize
    return (1 << bits) - 1 if x.dtype.kind in "biu" else (1 << (bits - 1)) - 1


@jitted
def _full_products(a: Array, b: Array, a_bits: int, b_bits: int) -> int:
    m, k = a.shape
    n = b.shape[1]
    left = np.zeros(k, np.int32)
    for i in range(m):
        for t in range(k):
            left[t] += (a[i, t] & a_bits) != 0
    full = 0
    for t in range(k):
        right = 0
        for j in range(n):
            right += (b[t, j] & b_bits) != 0
        full += left[t] * right
    return full


def _exact_products(a: np.dtype[Any], b: np.dtype[Any]) -> int:
    """Return how many products of 8-bit integers fp32 sums without rounding; 0 for wider types."""
    if a.itemsize > 1 or b.itemsize > 1:
        return 0
    return int(_EXACT // (_largest(a) * _largest(b)))


def _largest(dtype: np.dtype[Any]) -> int:
    return 1 if dtype.kind == "b" else max(-int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))


def _add_exact(a: Array, b: Array, acc: Array, products: int) -> None:
    # integer sums do not depend on order, so they may use the library's fp32 product where it is exact
    left, right = a.astype(np.float32), b.astype(np.float32)
    for k in range(0, a.shape[1], products):
        acc += (left[:, k : k + products] @ right[k : k + products]).astype(np.int32)


@jitted
def _add_in_order(a: Array, b: Array, acc: Array, chunk: int) -> None:
    m, k = a.shape
    n, whole = b.shape[1], m - m % 4
    p = np.empty((4, n), acc.dtype)
    for i in range(0, whole, 4):  # four rows, and four k a pass: loads and stores serve all of them
        for start in range(0, k, chunk):
            stop = min(start + chunk, k)
            p[:] = 0
            t = start
            while t + 4 <= stop:
                b0, b1, b2, b3 = b[t], b[t + 1], b[t + 2], b[t + 3]
                x00, x01, x02, x03 = a[i, t], a[i, t + 1], a[i, t + 2], a[i, t + 3]
                x10, x11, x12, x13 = a[i + 1, t], a[i + 1, t + 1], a[i + 1, t + 2], a[i + 1, t + 3]
                x20, x21, x22, x23 = a[i + 2, t], a[i + 2, t + 1], a[i + 2, t + 2], a[i + 2, t + 3]
                x30, x31, x32, x33 = a[i + 3, t], a[i + 3, t + 1], a[i + 3, t + 2], a[i + 3, t + 3]
                for j in range(n):
                    y0, y1, y2, y3 = b0[j], b1[j], b2[j], b3[j]
                    p[0, j] = (((p[0, j] + x00 * y0) + x01 * y1) + x02 * y2) + x03 * y3
                    p[1, j] = (((p[1, j] + x10 * y0) + x11 * y1) + x12 * y2) + x13 * y3
                    p[2, j] = (((p[2, j] + x20 * y0) + x21 * y1) + x22 * y2) + x23 * y3
                    p[3, j] = (((p[3, j] + x30 * y0) + x31 * y1) + x32 * y2) + x33 * y3
                t += 4
            for r in range(4):
                _add_row(a[i + r], b, p[r], t, stop)
                for j in range(n):
                    acc[i + r, j] += p[r, j]
    for i in range(whole, m):
        for start in range(0, k, chunk):
            p[0] = 0
            _add_row(a[i], b, p[0], start, min(start + chunk, k))
            for j in range(n):
                acc[i, j] += p[0, j]


@borrowing
def _add_row(a: Array, b: Array, sums: Array, start: int, stop: int) -> None:
    """Add a[k] @ b[k, n] to sums[n], k after k from `start` to `stop`, four a pass."""
    t, n = start, b.shape[1]
    while t + 4 <= stop:
        x0, x1, x2, x3 = a[t], a[t + 1], a[t + 2], a[t + 3]
        b0, b1, b2, b3 = b[t], b[t + 1], b[t + 2], b[t + 3]
        for j in range(n):
            sums[j] = (((sums[j] + x0 * b0[j]) + x1 * b1[j]) + x2 * b2[j]) + x3 * b3[j]
        t += 4
    for rest in range(t, stop):
        x, row = a[rest], b[rest]
        for j in range(n):
            sums[j] += x * row[j]


@jitted
def _multiply_fp16(a: Array, b: Array, acc: Array, chunk: int) -> int:
    """Add the product of fp16 numbers, given by their bits; return how many products have no zero."""
    left, right = np.empty(a.shape, np.uint32), np.empty(b.shape, np.uint32)
    _from_fp16(a.reshape(-1), left.reshape(-1), left.reshape(-1).view(np.float32))
    _from_fp16(b.reshape(-1), right.reshape(-1), right.reshape(-1).view(np.float32))
    _add_in_order(left.view(np.float32), right.view(np.float32), acc, chunk)
    return int(_full_products(a, b, 0x7FFF, 0x7FFF))
