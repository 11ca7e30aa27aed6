"""Sweeps that take milliseconds: one small product on the chip that is there for tests."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mtia_emu.sweeps.spec import Spec, make_spec
from mtia_emu.zoo.operators import Gemm

sys.path.append(str(Path(__file__).parents[1]))  # of the browser
Make = Callable[..., Spec]


@pytest.fixture(scope="session")
def product(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an ONNX file of one small product."""
    return Gemm(16, 32, 24, "fp32").build(tmp_path_factory.mktemp("product"), None)


@pytest.fixture
def values(product: Path) -> dict[str, Any]:
    """Return the values of a small spec: 6 points, one of them impossible and one excluded."""
    return {
        "chip": "tiny",
        "model": [{"model": str(product), "name": "product"}],
        "set": {"dram.channels": [1, 2], "pe.local.bytes": [64, 65536, 131072]},
        "constraints": ["dram.channels * pe.local.bytes < 262144"],
        "gpu": "h100-sxm",
    }


@pytest.fixture
def make(values: dict[str, Any]) -> Make:
    """Return a maker of that spec with changes."""
    return lambda **changes: make_spec(values | changes)
