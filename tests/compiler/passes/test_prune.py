"""What nobody reads is dropped."""

from __future__ import annotations

import pytest
from before_after import cases, hold


@pytest.mark.parametrize("case", cases("prune"))
def test_before_and_after(case: str) -> None:
    hold(case)
