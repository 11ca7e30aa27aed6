"""Joules brought to a basis."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtia_emu.gpu import load_gpu
from mtia_emu.machine.chip import load_chip
from mtia_emu.options import BOARD, CHIP, SERVER
from mtia_emu.results.basis import HOLDS, LEAVES, Around
from mtia_emu.study.accelerator import around, published

BASES = (CHIP, BOARD, SERVER)


def test_a_chip_by_hand() -> None:
    """100 J in 2 s: 5 % lost in regulators and 3 W of the board, then 240 W of a server with 24 of them."""
    it = Around(CHIP, 0.05, 3.0, 24, 240.0)
    assert [it.joules(100.0, 2.0, basis) for basis in BASES] == [
        100.0,
        pytest.approx(111),
        pytest.approx(131),
    ]


def test_a_board_by_hand() -> None:
    """111 J of a board in 2 s, 6 of them not the chip's: 105 J are 100 and regulators."""
    it = Around(BOARD, 0.05, 3.0, 8, 800.0)
    assert [it.joules(111.0, 2.0, basis) for basis in BASES] == [
        pytest.approx(100),
        111.0,
        pytest.approx(311),
    ]


@given(
    st.sampled_from((CHIP, BOARD)), st.floats(0, 1e6), st.floats(0, 1e3), st.floats(0, 1), st.floats(0, 1e3)
)
def test_a_wider_basis_never_takes_less(
    native: str, own: float, seconds: float, share: float, watts: float
) -> None:
    it = Around(native, share, watts, 8, watts)
    chip, board, server = (it.joules(own, seconds, basis) for basis in BASES)
    assert 0 <= chip <= board * (1 + 1e-12) and board <= server
    assert it.joules(own, seconds, native) == own


def test_servers_take_what_is_published() -> None:
    """12 MTIA 1 of 35 W in 780 W; 8 H100 at full power in 8,400 W; 8 A100 in 4,500 W."""
    one = around(load_chip("mtia-1"))
    assert 12 * one.joules(35.0, 1.0, SERVER) == pytest.approx(780, abs=1)
    assert 8 * load_gpu("h100-sxm").around.joules(700.0, 1.0, SERVER) == pytest.approx(8400)
    assert 8 * load_gpu("a100-sxm-40gb").around.joules(400.0, 1.0, SERVER) == pytest.approx(4500)
    assert 8 * load_gpu("h200-sxm").around.joules(700.0, 1.0, SERVER) == pytest.approx(8850)


def test_what_is_published_of_a_chip() -> None:
    found = published(load_chip("mtia-2i"))
    assert found is not None and (found.low, found.mean, found.high) == (0.80, 0.99, 1.21)
    assert published(load_chip("tiny")) is None


def test_each_basis_says_what_it_holds_and_leaves() -> None:
    assert HOLDS.keys() == LEAVES.keys() == set(BASES)
