"""Weights of few bits, and the products that read them."""

from __future__ import annotations

import pytest
from before_after import cases, hold


@pytest.mark.parametrize("case", cases("keep-packed"))
def test_before_and_after(case: str) -> None:
    hold(case, 2e-3)
