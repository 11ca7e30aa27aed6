"""The estimate of attention's tilings: the example in its docstring, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from mtia_emu.kernels.attention import search
from mtia_emu.kernels.attention.plan import AttentionProblem
from mtia_emu.kernels.attention.search import TilingWork, estimate

from mtia_emu.types import FP16

PROBLEM = AttentionProblem(
    groups=1, heads=2, queries=16, keys=128, dim=64, value_dim=64, kind=FP16, space="sram"
)


@pytest.mark.parametrize(
    ("port", "cycles"),
    [
        (400, 480 + 40 + 30),  # the first unit waits 100 - 60 for the first block
        (560, 480 + 80 + 3 * 20 + 30),  # it waits 140 - 60, and later blocks are 140 - 120 late
        (
            200,
            480 + 30 + 12.5,
        ),  # no wait: the first keys of a panel, half of 200 / 8, come on top of the edge
    ],
)
def test_the_worked_example_of_the_estimate(
    port: float, cycles: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "exposed", lambda every, bounding, kernel: 0.0)  # what overlap does not hide
    sizes = {
        "panels": 8,
        "blocks": 4,
        "block": 2,
        "stack": 2,
        "worked": 16,
        "port": port,
        "links": 0,
        "bytes": 0,
    }
    panel = {"before": 20, "after": 25, "pace": 30, "every": 0, "last": 0}
    work = TilingWork(**{name: np.array([float(x)]) for name, x in (sizes | panel).items()})
    assert estimate(PROBLEM, work, 1.0).tolist() == [cycles]
