"""What a run says, as rows of tables for people."""

from __future__ import annotations

import math

from ..view import units
from .answers import Answers
from .quantiles import Distribution, Estimate95
from .search import GreatestRate
from .served import ServedLoad

Row = list[str]
LATENCY = ["latency", "mean", "p50", "p90", "p99", "of p99 95%"]
NAMES = {
    "ttft_s": "to first token",
    "tpot_s": "per token after",
    "itl_s": "between tokens",
    "e2e_s": "to last",
}


def a_second(rate: float) -> str:
    """Return a rate in three digits, or whole where it has more."""
    return f"{rate:,.0f}" if 1000 <= rate < math.inf else f"{rate:.3g}"


def latency_rows(found: Answers) -> list[Row]:
    """Return a row for each measure of latency."""
    return [_latency(text, getattr(found, name)) for name, text in NAMES.items()]


def _latency(name: str, found: Distribution | None) -> Row:
    if found is None:
        return [name, "none", "", "", "", ""]
    each = [units.seconds(getattr(found, q).value) for q in ("mean", "p50", "p90", "p99")]
    return [name, *each, interval(found.p99)]


def interval(found: Estimate95) -> str:
    """Return the ends of an interval, empty where there is none."""
    return f"{units.seconds(found.low)} to {units.seconds(found.high)}" if math.isfinite(found.low) else ""


def flow_rows(found: Answers) -> list[Row]:
    """Return rows of throughput, energy and fullness: what, how much, and a remark."""
    user, joules = found.output_tokens_per_s_per_user, found.joules_per_output_token
    full = found.fullness
    rows = [
        [
            "requests",
            f"{found.requests:,}",
            f"in {units.seconds(found.span_s)}, {units.many(found.steps, 'step')}",
        ],
        [
            "served",
            f"{a_second(found.served_rate_per_s)}/s",
            f"offered {a_second(found.offered_rate_per_s)}/s",
        ],
        ["output tokens", f"{found.output_tokens_per_s:,.0f}/s", chips_text(found)],
        ["for each chip", f"{found.output_tokens_per_s_per_chip:,.0f}/s", ""],
        ["for each user", "none" if user is None else f"{a_second(user)}/s", "the median"],
        ["energy", "not known" if joules is None else f"{units.joules(joules)}/token", _idle(found)],
        ["busy", units.percent(found.utilisation), f"{full.mean_decoding:.1f} sequences decode"],
        ["waiting", f"{full.mean_waiting:.2f}", f"at most {full.most_waiting}"],
        ["cache in use", units.percent(full.cache_mean), f"at most {units.percent(full.cache_most)}"],
        ["preempted", f"{found.preemptions:,}", f"{found.recomputed_tokens:,} tokens computed again"],
        ["found in the cache", f"{found.cached_tokens:,} tokens", ""],
    ]
    if found.level is not None and found.kept_share is not None and found.goodput_per_s is not None:
        rows.append(["goodput", f"{a_second(found.goodput_per_s)}/s", level_text(found)])
    return rows


def chips_text(found: Answers) -> str:
    """Return how many chips served."""
    return f"{found.chips} chip{'s' * (found.chips > 1)}"


def _idle(found: Answers) -> str:
    if found.joules is None or found.idle_joules is None or not found.joules:
        return ""
    return f"{units.percent(found.idle_joules / found.joules)} of it between steps"


def level_text(found: Answers) -> str:
    """Return whether the level was kept, in words."""
    assert found.level is not None and found.kept_share is not None
    word = "kept" if found.keeps_level else "missed"
    share = units.percent(found.kept_share)
    return f"{word}: {share} of the requests keep {found.level} ({found.level.share:.0%} must)"


def rate_text(found: GreatestRate) -> str:
    """Return the greatest rate, in words."""
    if found.rate_per_s is None:
        return f"no rate keeps the level: {found.reason}"
    if not found.bounded:
        return f"kept at any rate up to {found.rate_per_s:.4g}/s: the load is too small to fill the service"
    return f"greatest rate that keeps the level: {found.rate_per_s:.4g} requests a second"


BOUNDS = ["if all steps err to one side", "at best", "as modelled", "at worst"]


def bounds_rows(served: ServedLoad) -> list[Row]:
    """Return rows of what all steps at an end of their errors would make of the run."""
    found, middle = served.bounds, served.answers
    assert found is not None
    each = (found.fast, middle, found.slow)
    rows = []
    for field, name in NAMES.items():
        for quantile in ("p50", "p99"):
            values = [getattr(one, field) for one in each]
            if None not in values:
                shown = [units.seconds(getattr(v, quantile).value) for v in values]
                rows.append([f"{name}, {quantile}", *shown])
    if found.joules_per_output_token is not None and middle.joules_per_output_token is not None:
        low, high = found.joules_per_output_token
        rows.append(["energy of a token", *map(units.joules, (low, middle.joules_per_output_token, high))])
    if served.greatest is not None:
        rates = (found.fast_rate_per_s, served.greatest.rate_per_s, found.slow_rate_per_s)
        rows.append(["greatest rate", *("none" if r is None else f"{a_second(r)}/s" for r in rates)])
    elif middle.level is not None:
        rows.append(["kept", *(units.percent(one.kept_share or 0.0) for one in each)])
    return rows


def verdict(served: ServedLoad) -> str:
    """Return the answer as one sentence."""
    if served.greatest is not None:
        text = rate_text(served.greatest)
    elif served.answers.level is not None:
        text = f"The level is {level_text(served.answers)}"
    else:
        text = f"{a_second(served.answers.served_rate_per_s)} requests a second are served"
    return text[0].upper() + text[1:] + "." + _outrun_text(served)


def _outrun_text(served: ServedLoad) -> str:
    found = served.answers
    if served.greatest is not None or not found.is_outrun:
        return ""
    late, offered = units.seconds(found.last_taken_up_s), a_second(found.offered_rate_per_s)
    return (
        f" More come than can be served, {offered} a second: the last waits {late} for "
        "its first step, and longer the longer it goes on."
    )
