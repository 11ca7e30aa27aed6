"""An optimiser's work on a weight as one kernel of a GPU."""

from __future__ import annotations

import numpy as np
import pytest
from mtia_emu.compiler.gradients.optimisers import optimiser
from mtia_emu.compiler.gradients.step import Recipe, training_step
from mtia_emu.compiler.graph import Const
from mtia_emu.compiler.passes.groups import MarkOptimisers, mark
from mtia_emu.compiler.text import parse

from mtia_emu.types import ElementwiseWork

MODEL = parse(
    "graph g {\n in %x : fp32[8,16]\n in %w : fp32[16,32]\n %y : fp32[8,32] = matmul(%x, %w)\n out %y\n}\n"
)


def groups(**recipe: object) -> list[ElementwiseWork]:
    stored = {"w": Const.of(np.zeros((16, 32), np.float32))}
    step = training_step(MODEL, stored, Recipe("mse", **recipe))  # type: ignore[arg-type]
    found = [group.work for group in MarkOptimisers()(mark(step.graph)).groups]
    assert all(isinstance(work, ElementwiseWork) for work in found)
    return [work for work in found if isinstance(work, ElementwiseWork)]


@pytest.mark.parametrize(
    ("name", "read", "written"), [("sgd", 2, 1), ("adamw", 4, 3), ("sgd{momentum=0.9}", 3, 2)]
)
def test_each_array_is_read_and_written_once(name: str, read: int, written: int) -> None:
    """Weight, gradient and states; numbers that all elements share take a few bytes besides."""
    (work,) = groups(optimiser=optimiser(name))
    size = 16 * 32 * 4
    assert work.elements == 16 * 32 and work.write_bytes == written * size
    assert read * size <= work.read_bytes < read * size + 64


def test_a_gradient_that_the_norm_of_all_reads_stands_apart() -> None:
    """Nothing that waits for the norm may be in one kernel with what the norm waits for."""
    (work,) = groups(optimiser=optimiser("adamw"), clip=1.0)
    assert 4 * 16 * 32 * 4 <= work.read_bytes < 4 * 16 * 32 * 4 + 64
