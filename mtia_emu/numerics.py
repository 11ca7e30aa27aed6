"""The one rule by which a matrix product is summed, and the door to compiled code.

Floating point sums depend on their order, so the order is part of the machine: an array whose stationary
operand covers `chunk` rows of k sums those products from zero, one k after another, and only then adds the
partial sum to the accumulator. `machine/units/systolic.py` steps an array that gives the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
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
        found = {n: names.get(n) for n in self.function.__code__.co_names}
        return {n: f for n, f in found.items() if isinstance(f, jitted)}

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
    dtype = dtype_of(x)
    if dtype.is_float and dtype.bits <= 32:
        return np.ascontiguousarray(x, dtype=np.float32)
    if not dtype.is_float and np.can_cast(x.dtype, np.int32):
        return np.ascontiguousarray(x, dtype=np.int32)
    raise UserError(f"a matrix unit cannot multiply {dtype} (right: fp32 or narrower, int32 or narrower)")


def tile_matmul(a: Array, b: Array, acc: Array, chunk: int) -> None:
    """Add a[m,k] @ b[k,n] to acc[m,n] in place, in the order in which an array adds.

    For each run of `chunk` consecutive k the products are summed from zero, k ascending, and the partial sum
    is added to acc. With chunk >= k there is one partial sum: an output-stationary array, which sums all of k
    in place. Floats (fp32, or narrower: they are widened, so that products of fp16 are exact) are multiplied
    and added in fp32, each rounded, never fused; acc is fp32. Integers are multiplied and added modulo 2^32;
    acc is int32. Raises `UserError` for other types and for shapes that do not fit.
    """
    _check(a, b, acc, chunk)
    products = _exact_products(a.dtype, b.dtype) if acc.dtype == np.int32 else 0
    if products:
        _add_exact(a, b, acc, products)
        return
    with np.errstate(all="ignore"):  # plain Python warns of what machine code does in silence
        _add_in_order(widen(a), widen(b), acc, chunk)


def _check(a: Array, b: Array, acc: Array, chunk: int) -> None:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0] or acc.shape != (a.shape[0], b.shape[1]):
        raise UserError(f"tile_matmul: a {a.shape}, b {b.shape}, acc {acc.shape}; right: [m,k], [k,n], [m,n]")
    left, right = dtype_of(a), dtype_of(b)
    if left.is_float != right.is_float:
        raise UserError(f"tile_matmul: {left} times {right}: both must be floats or both integers")
    wanted = np.dtype(np.float32 if left.is_float else np.int32)
    if acc.dtype != wanted:
        raise UserError(f"tile_matmul: {left} operands need a {wanted} acc, got {acc.dtype}")
    if chunk < 1:
        raise UserError(f"tile_matmul: chunk must be at least 1, got {chunk}")


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
    n = b.shape[1]
    partial = np.empty(n, acc.dtype)
    for i in range(m):
        for start in range(0, k, chunk):
            stop = min(start + chunk, k)
            partial[:] = 0
            t = start
            while t + 4 <= stop:  # four k a pass: the same order, a quarter of the loads and stores of sums
                x0, x1, x2, x3 = a[i, t], a[i, t + 1], a[i, t + 2], a[i, t + 3]
                b0, b1, b2, b3 = b[t], b[t + 1], b[t + 2], b[t + 3]
                for j in range(n):
                    partial[j] = (((partial[j] + x0 * b0[j]) + x1 * b1[j]) + x2 * b2[j]) + x3 * b3[j]
                t += 4
            for rest in range(t, stop):
                x, row = a[i, rest], b[rest]
                for j in range(n):
                    partial[j] += x * row[j]
            for j in range(n):
                acc[i, j] += partial[j]
