"""Learning rates by step, held to torch's schedulers where torch is installed, and to their formulas."""

from __future__ import annotations

import math
from typing import Any

import pytest

from mtia_emu.errors import UserError
from mtia_emu.study.rates import SCHEDULES, rate_schedule

try:
    import torch as found

    torch: Any = found
except ImportError:
    torch = None
STEPS = 40


def ours(spelling: str, rate: float = 0.5) -> list[float]:
    return [rate * rate_schedule(spelling).factor(step) for step in range(1, STEPS + 1)]


def by_torch(make: Any, warmup: int, rate: float = 0.5) -> list[float]:
    """Return the rates of torch's scheduler behind an even rise, as SequentialLR joins them."""
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    lr = torch.optim.lr_scheduler
    each = make(lr, optimiser)
    if warmup:
        rise = lr.LambdaLR(optimiser, lambda epoch: (epoch + 1) / warmup)
        each = lr.SequentialLR(optimiser, [rise, each], milestones=[warmup])
    out = []
    for _ in range(STEPS):
        out.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        each.step()
    return out


@pytest.mark.skipif(torch is None, reason="torch is not installed")
@pytest.mark.parametrize("warmup", [0, 1, 7])
@pytest.mark.parametrize(
    ("spelling", "make"),
    [
        ("constant{", lambda lr, o: lr.ConstantLR(o, factor=1.0)),
        ("linear{total=31,floor=0.25,", lambda lr, o: lr.LinearLR(o, 1.0, 0.25, total_iters=31 - WARM[0])),
        ("polynomial{total=31,power=3,", lambda lr, o: lr.PolynomialLR(o, total_iters=31 - WARM[0], power=3)),
        ("step{every=6,gamma=0.5,", lambda lr, o: lr.StepLR(o, 6, gamma=0.5)),
        ("exponential{gamma=0.9,", lambda lr, o: lr.ExponentialLR(o, 0.9)),
    ],
)
def test_rates_are_those_of_torch(spelling: str, make: Any, warmup: int) -> None:
    WARM[0] = warmup
    assert ours(f"{spelling}warmup={warmup}}}") == pytest.approx(by_torch(make, warmup))


WARM = [0]  # of the case at hand: torch's schedulers count from behind it


@pytest.mark.skipif(torch is None, reason="torch is not installed")
@pytest.mark.parametrize("warmup", [0, 7])
def test_a_cosine_is_torchs_until_its_end_and_stays_there(warmup: int) -> None:
    """Torch's goes up again behind its end."""
    expected = by_torch(lambda lr, o: lr.CosineAnnealingLR(o, T_max=31 - warmup, eta_min=0.05), warmup)
    got = ours(f"cosine{{total=31,floor=0.1,warmup={warmup}}}")
    assert got[:32] == pytest.approx(expected[:32])
    assert got[31:] == pytest.approx([0.05] * 9)


def test_rates_by_hand() -> None:
    assert ours("constant{warmup=4}", 1.0)[:6] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert ours("linear{total=4}", 1.0)[:6] == [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    assert ours("polynomial{total=4}", 1.0)[:5] == [1.0, 0.5625, 0.25, 0.0625, 0.0]
    assert ours("cosine{total=4,floor=0.5}", 1.0)[2] == pytest.approx(0.75)
    assert ours("cosine{total=4}", 1.0)[1] == pytest.approx((1 + math.cos(math.pi / 4)) / 2)
    assert ours("step{every=2}", 1.0)[:5] == pytest.approx([1.0, 1.0, 0.1, 0.1, 0.01])
    assert ours("exponential{gamma=0.5}", 1.0)[:3] == [1.0, 0.5, 0.25]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cosin{total=9}", "unknown schedule 'cosin'; did you mean 'cosine'"),
        ("cosine{totl=9}", "unknown option of cosine 'totl'; did you mean 'total'"),
        ("cosine", r"lacks total \(right: cosine{total=...}\)"),
        ("cosine{total=9", r"right: cosine{total=1000,warmup=100}"),
        ("cosine{total=9,warmup=9}", r"falls from step 9 to 9 \(right: total above warmup\)"),
        ("cosine{total=9,total=8}", "gives total twice"),
        ("cosine{total=9.5}", r"total='9.5' \(right: a whole number of 1 or more\)"),
        ("cosine{total=nan}", "total='nan'"),
        ("linear{total=9,floor=2}", r"floor='2' \(right: a number of 0 or more, 1 at most\)"),
        ("exponential{gamma=0}", r"gamma='0' \(right: a number above 0, 1 at most\)"),
        ("step{every=0}", r"every='0' \(right: a whole number of 1 or more\)"),
        ("constant{warmup=-1}", "warmup='-1'"),
    ],
)
def test_other_texts_are_refused(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        rate_schedule(text)


def test_every_name_has_a_schedule() -> None:
    lacking = {"cosine": "{total=2}", "linear": "{total=2}", "polynomial": "{total=2}", "step": "{every=1}"}
    for name in SCHEDULES:
        assert (
            rate_schedule(name + lacking.get(name, "{gamma=1}" if name == "exponential" else "")).factor(1)
            == 1
        )
