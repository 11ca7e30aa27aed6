"""The summation rule: its order to the bit, its accuracy, integers exact, and how compiled code is kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtia_emu.errors import UserError
from mtia_emu.numerics import borrowing, jitted, multiply_tiles, tile_matmul, widen, zero_products

SIZE = st.integers(1, 24)


def in_order(a: np.ndarray, b: np.ndarray, acc: np.ndarray, chunk: int) -> np.ndarray:
    """The rule in plain NumPy, one rounded operation at a time."""
    out = acc.copy()
    for start in range(0, a.shape[1], chunk):
        partial = np.zeros_like(acc)
        for t in range(start, min(start + chunk, a.shape[1])):
            partial = partial + np.outer(a[:, t], b[t])
        out = out + partial
    return out


@given(m=SIZE, k=SIZE, n=SIZE, chunk=st.integers(1, 30), seed=st.integers(0, 99))
def test_floats_are_summed_in_order_to_the_bit(m: int, k: int, n: int, chunk: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a = (rng.standard_normal((m, k)) * np.exp2(rng.integers(-8, 8, (m, k)))).astype(np.float32)
    b, acc = rng.standard_normal((k, n)).astype(np.float32), rng.standard_normal((m, n)).astype(np.float32)
    expected = in_order(a, b, acc, chunk)
    tile_matmul(a, b, acc, chunk)
    np.testing.assert_array_equal(acc.view(np.int32), expected.view(np.int32))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32])
def test_floats_are_near_the_true_product(dtype: Any) -> None:
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((33, 200)).astype(dtype), rng.standard_normal((200, 17)).astype(dtype)
    acc = np.zeros((33, 17), np.float32)
    tile_matmul(a, b, acc, 32)
    true = a.astype(np.float64) @ b.astype(np.float64)
    bound = 200 * np.finfo(np.float32).eps * (np.abs(a).astype(np.float64) @ np.abs(b).astype(np.float64))
    assert (np.abs(acc - true) <= bound).all()


@given(
    m=SIZE,
    k=st.sampled_from([1, 7, 255, 257, 1023, 1025, 3000]),
    n=SIZE,
    chunk=st.integers(1, 64),
    left=st.sampled_from(["int8", "uint8", "bool", "int16", "int32"]),
    right=st.sampled_from(["int8", "uint8", "int32"]),
    extreme=st.booleans(),
)
def test_integers_are_exact_modulo_2_to_the_32(
    m: int, k: int, n: int, chunk: int, left: str, right: str, extreme: bool
) -> None:
    rng = np.random.default_rng(k)

    def operand(name: str, shape: tuple[int, int]) -> np.ndarray:
        low, high = (0, 1) if name == "bool" else (np.iinfo(name).min, np.iinfo(name).max)
        values = np.full(shape, low or high) if extreme else rng.integers(low, high, shape, endpoint=True)
        return values.astype(name)

    a, b = operand(left, (m, k)), operand(right, (k, n))
    acc = rng.integers(-(2**31), 2**31, (m, n), np.int32)
    with np.errstate(over="ignore"):
        expected = (acc + a.astype(np.int64) @ b.astype(np.int64)).astype(np.int32)
    tile_matmul(a, b, acc, chunk)
    np.testing.assert_array_equal(acc, expected)


def test_views_are_read_and_written_in_place() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.standard_normal((8, 12)).astype(np.float32).T, rng.standard_normal((16, 10)).astype(np.float32)
    memory = np.zeros((20, 20), np.float32)
    tile_matmul(a, b[::2], memory[1:13, ::2], 4)
    expected = np.zeros((20, 20), np.float32)
    expected[1:13, ::2] = in_order(a, b[::2], np.zeros((12, 10), np.float32), 4)
    np.testing.assert_array_equal(memory, expected)


def test_overflow_is_silent() -> None:
    big = np.full((2, 2), 3e38, np.float32)
    acc = np.zeros((2, 2), np.float32)
    tile_matmul(big, big, acc, 1)  # the suite turns warnings of ours into errors
    assert np.isposinf(acc).all()


def test_operands_that_do_not_fit_are_refused() -> None:
    f, i = np.ones((2, 2), np.float32), np.ones((2, 2), np.int8)
    with pytest.raises(UserError, match=r"a \(2, 2\), b \(1, 2\), acc \(2, 2\); right: \[m,k\], \[k,n\]"):
        tile_matmul(f, f[:1], f.copy(), 1)
    with pytest.raises(UserError, match="fp32 times int8: both must be floats or both integers"):
        tile_matmul(f, i, f.copy(), 1)
    with pytest.raises(UserError, match="int8 operands need a int32 acc, got float32"):
        tile_matmul(i, i, f.copy(), 1)
    with pytest.raises(UserError, match="chunk must be at least 1, got 0"):
        tile_matmul(f, f, f.copy(), 0)
    for wide in (np.float64, np.int64, np.uint32):
        with pytest.raises(UserError, match=f"cannot multiply {np.dtype(wide).name.replace('float', 'fp')} "):
            widen(f.astype(wide))


SCRIPT = """
import sys
import numpy as np
from mtia_emu import numerics
from mtia_emu.machine.units.systolic import step
assert "numba" not in sys.modules
a = np.arange(12, dtype=np.float32).reshape(3, 4) / 7
acc = np.zeros((3, 3), np.float32)
numerics.tile_matmul(a, a.T, acc, 2)
print(acc.tobytes().hex())
for flow in ("ws", "os", "is"):
    print(step(a, a.T, rows=2, cols=2, dataflow=flow)[0].tobytes().hex())
"""


def run_script(**flags: str) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("NUMBA", "MTIA_EMU"))} | flags
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_plain_python_gives_the_same_bits(tmp_path: Path) -> None:
    assert run_script(NUMBA_DISABLE_JIT="1") == run_script(MTIA_EMU_CACHE=str(tmp_path))
    assert list(tmp_path.rglob("*.code")), "compiled code is kept in the folder that the flag names"


def _twice(x: int) -> int:
    """Return twice x."""
    return 2 * x


def test_a_jitted_function_keeps_its_name_and_contract() -> None:
    assert jitted(_twice).__doc__ == "Return twice x."  # type: ignore[attr-defined,unused-ignore]


def test_a_borrowing_function_keeps_no_hold_of_its_arrays() -> None:
    array = np.zeros(3)
    before = sys.getrefcount(array)
    borrowing(_filled)(array)
    assert array.tolist() == [1, 1, 1]
    assert sys.getrefcount(array) == before


def _filled(x: Any) -> None:
    x[:] = 1


KINDS = [np.int8, np.uint8, np.float16, np.float32, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_zero_products_are_those_with_a_zero(kind: type, share: float) -> None:
    rng = np.random.default_rng(1)
    a, b = rng.integers(1, 4, (7, 12)).astype(kind), rng.integers(1, 4, (12, 5)).astype(kind)
    for x in (a, b):
        x[rng.random(x.shape) < share] = 0
    if np.dtype(kind).kind not in "iu":
        a[0, 0] = -0.0  # no product of it switches either
    wide_a, wide_b = a.astype(np.float32), b.astype(np.float32)
    zeros = (wide_a[:, :, None] == 0) | (wide_b[None] == 0)
    assert zero_products(a, b) == int(zeros.sum())


@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16])
def test_all_numbers_of_16_bits_are_widened_as_numpy_does(kind: type) -> None:
    every = np.arange(1 << 16, dtype=np.uint16).view(kind)
    expected = every.astype(np.float32)
    np.testing.assert_array_equal(widen(every).view(np.uint32), expected.view(np.uint32))
    np.testing.assert_array_equal(widen(every.reshape(256, 256)[:, ::2]), expected.reshape(256, 256)[:, ::2])
    assert widen(every.reshape(256, 256).T).flags.c_contiguous


@pytest.mark.parametrize("rows", range(1, 10))
def test_rows_that_are_multiplied_together_are_each_summed_alone(rows: int) -> None:
    rng = np.random.default_rng(rows)
    a, b = rng.standard_normal((rows, 23), np.float32), rng.standard_normal((23, 11), np.float32)
    together, alone = np.ones((2, rows, 11), np.float32)
    tile_matmul(a, b, together, 9)
    for row in range(rows):
        tile_matmul(a[row : row + 1], b, alone[row : row + 1], 9)
    np.testing.assert_array_equal(together, alone)


@given(m=SIZE, k=SIZE, n=SIZE, chunk=st.integers(1, 30), seed=st.integers(0, 99))
def test_tiles_are_multiplied_and_counted_at_once(m: int, k: int, n: int, chunk: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.integers(-2, 3, (m, k)) * 1.1, rng.integers(-2, 3, (k, n)) * 0.9
    for kind in (np.float16, np.float32, np.int8):
        left, right = a.astype(kind), b.astype(kind)
        apart, at_once = np.ones((2, m, n), np.int32 if kind is np.int8 else np.float32)
        tile_matmul(left, right, apart, chunk)
        assert multiply_tiles(left, right, at_once, chunk) == zero_products(left, right)
        np.testing.assert_array_equal(at_once, apart)
    with pytest.raises(UserError, match="right: \\[m,k\\]"):
        multiply_tiles(left.astype(np.float16), right.astype(np.float16)[:, :0], at_once, chunk)
