"""What an engine may be told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mtia_emu.errors import UserError
from mtia_emu.serving.rules import GAP_S, NOT_AHEAD_GAP_S, EngineRules


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"max_sequences": 0}, "max_sequences is 0"),
        ({"token_budget": -1}, "token_budget is -1"),
        ({"block_tokens": 1 << 30}, "block_tokens is 1073741824"),
        ({"gap_s": float("nan")}, "gap_s is nan"),
        ({"gap_s": -1.0}, "gap_s is -1.0"),
        ({"token_budget": 8, "max_sequences": 9}, "budget of 8 tokens but may decode 9 sequences"),
    ],
)
def test_rules_that_cannot_be_are_refused(change: dict[str, int], text: str) -> None:
    with pytest.raises(UserError, match=text):
        replace(EngineRules(), **change)  # type: ignore[arg-type]


def test_the_gap_is_the_measured_one_unless_it_is_said() -> None:
    assert EngineRules().idle_gap_s == GAP_S and EngineRules(ahead=False).idle_gap_s == NOT_AHEAD_GAP_S
    assert EngineRules(gap_s=0.0).idle_gap_s == 0 and (
        EngineRules().depth,
        EngineRules(ahead=False).depth,
    ) == (2, 1)
