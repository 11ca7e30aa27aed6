"""The ledger of shared resources: the example in the docstring of `serve`, call by call."""

from __future__ import annotations

import numpy as np
import pytest

from mtia_emu.engine.recurrence import WINDOW, WINDOW_USE, serve


def test_the_worked_example_of_the_ledger() -> None:
    ledger = np.zeros((8, 1), WINDOW_USE)
    assert WINDOW == 64
    assert serve(ledger, 64.0, 0, 10.0, 0.0, 50.0) == 60  # from 10 on, in window 0
    assert serve(ledger, 64.0, 0, 20.0, 0.0, 40.0) == 64 + 36  # 4 fit up to 64, the rest go to window 1
    assert ledger[0, 0]["skip"] > 0  # window 0 is full
    assert serve(ledger, 64.0, 0, 5.0, 0.0, 10.0) == 64 + 36 + 10  # behind those 36, though 5 to 10 was idle
    assert serve(ledger, 64.0, 0, 128.0, 128.0, 64.0) == 3 * 64 + 32  # half of window 2, half of window 3
    assert ledger["used"][:, 0].tolist() == [54, 46, 32, 32, 0, 0, 0, 0]


@pytest.mark.parametrize(("at", "first"), [(5.0, 5.0), (20.0, 10.0)])
def test_work_that_fits_a_window_comes_behind_what_is_booked_there(at: float, first: float) -> None:
    ledger = np.zeros((2, 1), WINDOW_USE)
    serve(ledger, 64.0, 0, 10.0, 0.0, 30.0)
    assert serve(ledger, 64.0, 0, at, 0.0, 10.0) == first + 40
    assert ledger[0, 0]["origin"] == first and ledger[0, 0]["used"] == 40
