"""Every strategy and mixes of them on 2, 4 and 8 emulated chips, held to onnxruntime."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mtia_emu import api

BATCH = 8  # it divides among all that is split here
LLAMA, MIXTURE, MLA, DLRM = "llama-tiny", "mixture-tiny", "deepseek-tiny", "dlrm-small"
ALONE = {
    LLAMA: ("tp={n}", "tp={n},sp", "dp={n}", "cp={n}", "pp={n}", "pp=2,mb={n}", "pp=2,vp=2,mb={n}"),
    MIXTURE: ("ep={n}", "ep={n},dispatch", "tp={n}", "dp={n}", "pp={n}"),
    DLRM: (
        "dp={n}",
        "dp={n},tables=row",
        "dp={n},tables=column",
        "tp={n}",
        "tp={n},tables=row",
        "pp={n}",
        "dp={n},tables=table",
        "tp={n},tables=table",
        "dp={n},tables=table+column",
        "dp={n},tables=plan",
    ),
}
MIXED = {
    LLAMA: (
        "pp=2,tp=2", "dp=2,tp=2", "cp=2,tp=2", "dp=2,cp=2", "pp=2,dp=2", "pp=2,cp=2", "tp=4,sp,dp=2",
        "dp=2,cp=2,tp=2", "pp=2,cp=2,tp=2", "pp=2,dp=2,tp=2,mb=2", "pp=2,dp=2,tp=2,sp,mb=2",
    ),
    MIXTURE: (
        "ep=2,tp=2", "dp=2,ep=2", "dp=2,ep=4", "ep=4,tp=2", "dp=2,ep=2,tp=2", "pp=2,ep=2", "pp=2,ep=2,tp=2",
        "pp=2,dp=2,ep=2,mb=2", "dp=2,ep=4,dispatch", "dp=2,ep=2,tp=2,dispatch", "pp=2,ep=2,tp=2,sp,dispatch",
    ),
    MLA: ("ep=2", "tp=2,ep=2", "dp=2,tp=2,ep=2", "pp=2,tp=2,ep=2", "ep=4,tp=2,dispatch"),
    DLRM: (
        "dp=2,tp=2", "dp=2,tp=2,tables=row", "dp=2,tp=4,tables=column", "pp=2,dp=2", "pp=2,dp=4,tables=row",
        "dp=2,tp=2,tables=table", "pp=2,dp=4,tables=table", "dp=4,tp=2,tables=table+row",
        "dp=2,mb=2,tables=table",
    ),
}  # fmt: skip


def cases() -> Iterator[tuple[str, str]]:
    """Yield each model with each way to split it."""
    for name, strategies in ALONE.items():
        yield from ((name, text.format(n=n)) for n in (2, 4, 8) for text in strategies)
    for name, strategies in MIXED.items():
        yield from ((name, text) for text in strategies)


@pytest.mark.deep
@pytest.mark.parametrize(("model", "parallel"), list(cases()))
def test_all_chips_together_give_what_onnxruntime_gives(model: str, parallel: str) -> None:
    outcome = api.run_over(
        f"zoo:{model}", dims={"batch": BATCH}, gpu=None, system="tiny-board", parallel=parallel, check=True
    )
    assert outcome.check is not None and outcome.check.passed, outcome.check
