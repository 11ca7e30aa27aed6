"""What collectives compute: a plain sum and plain moves, in every algorithm, bit for bit the same again."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtia_emu.errors import UserError
from mtia_emu.system.algorithms import ALGORITHMS, KINDS, Arrangement
from mtia_emu.system.values import all_to_all, collective

SIZES = st.integers(2, 12)


def shape(n: int) -> Arrangement:
    """Return a shape of two halves, where there are some, with a switch that reduces."""
    halves = (tuple(range(n // 2)), tuple(range(n // 2, n))) if n % 2 == 0 and n > 2 else ()
    return Arrangement(n, halves, switch=True)


def expected(kind: str, buffers: list[np.ndarray]) -> list[np.ndarray]:
    n, flat = len(buffers), [b.ravel() for b in buffers]
    if kind == "all_reduce":
        return [sum(buffers[1:], buffers[0])] * n
    if kind == "reduce_scatter":
        return list(np.array_split(sum(flat[1:], flat[0]), n))
    if kind == "all_gather":
        return [np.concatenate(flat)] * n
    if kind == "all_to_all":
        return [np.concatenate([np.array_split(f, n)[j] for f in flat]) for j in range(n)]
    return [buffers[0]] * n


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("kind", KINDS)
@given(n=SIZES, seed=st.integers(0, 99), length=st.integers(0, 40))
def test_every_algorithm_computes_the_collective(
    kind: str, algorithm: str, n: int, seed: int, length: int
) -> None:
    n = 2 if kind == "send" else n
    if ALGORITHMS[algorithm](kind, shape(n)) is None:
        return
    rng = np.random.default_rng(seed)
    buffers = [rng.integers(-9, 10, length).astype(np.float32) for _ in range(n)]
    kept = [b.copy() for b in buffers]
    found = collective(kind, buffers, algorithm, shape(n))
    for mine, right in zip(found, expected(kind, kept), strict=True):
        np.testing.assert_array_equal(mine, right)
    for now, before in zip(buffers, kept, strict=True):
        np.testing.assert_array_equal(now, before)


@pytest.mark.parametrize("kind", ["float32", "float16", "bfloat16", "int8"])
@pytest.mark.parametrize("algorithm", ["ring", "tree", "halving_doubling", "direct", "one_shot", "in_switch"])
def test_sums_are_within_the_format_and_the_same_again(algorithm: str, kind: str) -> None:
    dtype = np.dtype(getattr(ml_dtypes, kind) if kind == "bfloat16" else kind)
    rng = np.random.default_rng(1)
    buffers = [(rng.standard_normal((7, 5)) * 3).astype(dtype) for _ in range(8)]
    found = collective("all_reduce", buffers, algorithm)
    again = collective("all_reduce", buffers, algorithm)
    assert all(a.tobytes() == b.tobytes() == found[0].tobytes() for a, b in zip(found, again, strict=True))
    assert found[0].dtype == dtype and found[0].shape == (7, 5)
    exact = sum(b.astype(np.float64) for b in buffers)
    eps = 0.0 if kind == "int8" else float(ml_dtypes.finfo(dtype).eps)
    scale = sum(abs(b.astype(np.float64)) for b in buffers)
    assert (abs(found[0].astype(np.float64) - exact) <= 8 * eps * scale).all()


def test_a_ring_adds_in_its_own_order() -> None:
    buffers = [np.float16([x] * 4) for x in (2048.0, 1.0, 1.0, -2048.0)]
    found = collective("all_reduce", buffers, "ring")[0]
    rounded = np.float16
    for piece in range(4):  # piece i's sum starts at the rank after i
        order = [buffers[(piece + 1 + k) % 4][0] for k in range(4)]
        total = order[0]
        for term in order[1:]:
            total = rounded(total + term)
        assert found[piece] == total


def test_a_switch_adds_wide_and_rounds_once() -> None:
    buffers = [np.float16([x]) for x in (2048.0, 1.0, 1.0, -2048.0)]
    assert collective("all_reduce", buffers, "in_switch")[0][0] == 2.0
    assert collective("all_reduce", buffers, "one_shot")[0][0] == 0.0


def test_one_rank_has_what_it_had() -> None:
    buffer = np.arange(6.0).reshape(2, 3)
    for kind in KINDS[:-1]:
        (found,) = collective(kind, [buffer])
        np.testing.assert_array_equal(found.ravel(), buffer.ravel())


def test_uneven_parts_go_to_whom_they_are_for() -> None:
    parts = [[np.full(i + 2 * j, 10 * i + j) for j in range(3)] for i in range(3)]
    found = all_to_all(parts)
    assert all((found[j][i] == parts[i][j]).all() for i in range(3) for j in range(3))
    with pytest.raises(UserError, match="3 parts"):
        all_to_all([parts[0], parts[1], parts[2][:2]])


@pytest.mark.parametrize(
    ("kind", "buffers", "algorithm", "message"),
    [
        ("all_reduces", [np.ones(2)] * 2, "ring", "did you mean 'all_reduce'"),
        ("all_reduce", [np.ones(2)] * 2, "rings", "did you mean 'ring'"),
        ("all_reduce", [], "ring", "no buffers"),
        ("all_reduce", [np.ones(2), np.ones(3)], "ring", "all have one shape"),
        ("all_gather", [np.ones(2), np.ones(2, np.float32)], "ring", "all have one dtype"),
        ("all_reduce", [np.ones(2)] * 3, "halving_doubling", "right: ring"),
        ("send", [np.ones(2)] * 3, "direct", "it takes 2"),
    ],
)
def test_what_does_not_fit_is_refused(kind: str, buffers: list, algorithm: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        collective(kind, buffers, algorithm)
