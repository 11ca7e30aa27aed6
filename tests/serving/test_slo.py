"""Service levels: read from text, held against a run."""

from __future__ import annotations

import pytest

from mtia_emu.errors import UserError
from mtia_emu.serving.simulate import Service, simulate
from mtia_emu.serving.slo import ServiceLevel, parse_level

from .flat import SYNCHRONOUS, FlatTable, load


def test_a_level_is_read_and_printed() -> None:
    level = parse_level("ttft=0.5, tpot=0.05,share=0.9")
    assert level == ServiceLevel(0.5, 0.05, share=0.9)
    assert str(level) == "ttft 0.5 s, tpot 0.05 s"
    assert str(ServiceLevel()) == "no limit"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("tfft=1", "unknown limit 'tfft'; did you mean 'ttft'"),
        ("ttft", "'ttft' has no number"),
        ("ttft=x", "'ttft=x' has no number"),
        ("ttft=0", "ttft is 0.0 s"),
        ("ttft=nan", "ttft is nan s"),
        ("ttft=1,share=2", "share is 2.0"),
        ("share=0.9", "no limit; right is one of ttft, tpot, e2e"),
        ("", "unknown limit ''"),
    ],
)
def test_what_is_no_level_is_refused(text: str, error: str) -> None:
    with pytest.raises(UserError, match=error):
        parse_level(text)


def test_a_request_keeps_all_limits_or_does_not() -> None:
    made = load((0.0, 1, 4), (0.5, 1, 1), (0.6, 1, 4))
    log = simulate(Service(FlatTable(), SYNCHRONOUS, blocks=100), made)  # type: ignore[arg-type]
    assert log.ttft_s.tolist() == pytest.approx([1.0, 1.5, 1.4])
    assert ServiceLevel(ttft=1.4).kept(log).tolist() == [True, False, True]
    assert ServiceLevel(tpot=0.9).kept(log).tolist() == [False, True, False]
    assert ServiceLevel(e2e=4.2).kept(log).tolist() == [True, True, False]
