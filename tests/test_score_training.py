"""The scorer of training rows: what is kept is the formula, recomputation costs a way there."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))
import score_training as score


def test_bytes_kept_of_a_layer_are_the_formula_less_dropout() -> None:
    rows = list(score.kept_rows())
    assert [row[5] for row in rows[:2]] == [row[4] for row in rows[:2]] == ["32", "14"]


def test_recomputation_adds_one_way_there_of_the_layers() -> None:
    model = score.gpt(256, 4, 512, 256, packed=False)
    whole, head = (score.phases(model, n, 2, score.KEEP_ALL, "a100-sxm-80gb") for n in (8, 0))
    again = whole.again(head)
    assert again.backward - whole.backward == pytest.approx(whole.forward - head.forward)
    assert whole.backward > whole.forward > head.forward > 0


def test_a_pipeline_waits_for_its_ends() -> None:
    """In twice as many micro-batches, or parts, the wait is half as long."""
    model = score.gpt(256, 4, 512, 256, packed=False)
    shape = score.Shape(8, 1, 4, 1, 1, 16)
    bare, few = (score.iteration(model, replace(shape, parts=n), 2, False) for n in (1, 3))
    assert few < bare
    longer = score.iteration(model, replace(shape, batch=32), 2, False)
    assert bare < longer < 2 * bare
