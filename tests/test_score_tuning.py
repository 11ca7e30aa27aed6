"""How near mappings come to the best: the page is what the command prints, and full tuning is within 5 %."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
sys.path.insert(0, str(DOCS))

import score_tuning  # noqa: E402

LONG = score_tuning.Heads
QUICK = [case for case in score_tuning.PART if not isinstance(case, score_tuning.Product)]


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=[pytest.mark.deep] * isinstance(c, LONG), id=str(c)) for c in QUICK]
)
def test_tuned_in_full_a_call_is_within_5_percent_of_its_best_mapping(case: score_tuning.Case) -> None:
    scored = score_tuning.score(case)
    assert 1 <= scored.shares[1] <= score_tuning.WITHIN
    (row,) = score_tuning.rows([scored])
    page = (DOCS / "accuracy-mappings.md").read_text(encoding="utf-8")
    assert f"| {' | '.join(row)} |" in page, "stale: run python docs/score_tuning.py"


def test_every_case_is_on_the_page() -> None:
    page = (DOCS / "accuracy-mappings.md").read_text(encoding="utf-8")
    assert not [str(case) for case in score_tuning.CASES if f"| {case.chip} | {case} |" not in page]
