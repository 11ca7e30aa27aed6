"""How far apart results are, in words."""

from __future__ import annotations

import numpy as np
import pytest

from mtia_emu.testing.compare import worst


@pytest.mark.parametrize(
    ("got", "expected", "allowed", "said"),
    [
        (1.25, 1.5, 0.1, "output %y[1] is 1.25, expected 1.5: 2.5e-01 off, 1.0e-01 is allowed"),
        (1.0, 1.0 + 2**-20, 2.0**-21, "is 1, expected 1.000001: 9.5e-07 off, 4.8e-07 is allowed"),
        (0.0, 1.04, 1.02, "is 0, expected 1.04: 1.04e+00 off, 1.02e+00 is allowed"),
        (np.nan, 1.0, 1.0, "is nan, expected 1: which no rounding explains"),
    ],
)
def test_numbers_have_as_many_digits_as_tell_them_apart(
    got: float, expected: float, allowed: float, said: str
) -> None:
    miss = worst("y", np.array([0.0, got]), np.array([0.0, expected]), np.array([0.0, allowed]))
    assert said in str(miss)
