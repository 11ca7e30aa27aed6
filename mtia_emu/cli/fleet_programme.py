"""What `mtia-emu fleet` prints of a programme."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .output import console, say

if TYPE_CHECKING:
    from ..fleet.answer import FleetAnswer
    from ..fleet.prospect import Prospect
    from ..fleet.sampling import Percentiles


def print_programme(answer: FleetAnswer) -> None:
    """Print when the chip comes, what it has to earn and how likely that is; nothing without a programme."""
    from ..fleet.prospect import has_programme, prospect

    if len(answer.kept) < 2 or not has_programme(answer.scenario, answer.about):
        return
    from ..view.terminal import print_table

    found = prospect(answer)
    for title, columns, rows in (_schedule(found), _worth(answer, found), _gates(found), _slips(found)):
        print_table(title, columns, rows, console())
    for line in _said(answer, found):
        say(line)


Rows = tuple[str, list[str], list[list[str]]]


def _usd(value: float) -> str:
    from ..view.html.scales import dollars

    return dollars(value)


def _schedule(found: Prospect) -> Rows:
    weeks = found.schedule
    steps = [
        ("tape-out", weeks.tape_out), ("the foundry begins", weeks.foundry), ("packaging", weeks.packaging),
        ("first chips", weeks.first_chips), ("models in production", weeks.production),
    ]  # fmt: skip
    rows = [[name, f"{float(week):.0f}"] for name, week in steps]
    return f"programme of '{found.device}', central values", ["", "week"], rows


def _worth(answer: FleetAnswer, found: Prospect) -> Rows:
    def cells(prior: Percentiles, kept: Percentiles) -> list[str]:
        return [text for p in (prior, kept) for text in (_usd(p.p50), f"{_usd(p.p5)} to {_usd(p.p95)}")]

    def volumes(prior: Percentiles, kept: Percentiles) -> list[str]:
        return [text for p in (prior, kept) for text in (f"{p.p50:,.0f}", f"{p.p5:,.0f} to {p.p95:,.0f}")]

    a, b = found.prior, found.conditioned
    rows = [
        ["spent whatever the volume", *cells(a.fixed_usd, b.fixed_usd)],
        ["net present value if it works", *cells(a.npv_usd, b.npv_usd)],
        ["break-even, GPU-equivalents", *volumes(a.break_even, b.break_even)],
        ["break-even, chips", *volumes(a.break_even_chips, b.break_even_chips)],
        ["the same with the chance of failure", *volumes(a.risked_break_even, b.risked_break_even)],
    ]
    title = f"worth at {found.volume:,.0f} GPU-equivalents, dollars of {answer.scenario.currency_year}"
    return title, ["", "all: 50 %", "5 to 95 %", "agreeing: 50 %", "5 to 95 %"], rows


def _gates(found: Prospect) -> Rows:
    rows = [
        [
            gate.name,
            f"{gate.week:.0f}",
            _usd(gate.spent_usd),
            f"{gate.stopped_share:.0%}",
            _usd(gate.worth_usd),
        ]
        for gate in found.conditioned.gates
    ]
    columns = ["gate", "week", "spent by then", "stopped there", "being able to stop is worth"]
    return "gates, of the samples that agree", columns, rows


def _slips(found: Prospect) -> Rows:
    rows = [[f"{x.weeks:.0f}", _usd(x.usd), _usd(x.with_second_usd)] for x in found.slips]
    return "what a slip costs, mean", ["weeks", "one source", "half from a second source"], rows


def _said(answer: FleetAnswer, found: Prospect) -> list[str]:
    from ..fleet.verdict import verdict

    best, know = found.insights_at_even[0], found.insights_at_even
    fifth = next(x for x in know if x.error_share == 0.2)
    return [
        verdict(answer, found),
        f"at the break-even, knowing the chip's rate exactly before its design is worth {_usd(best.usd)}, "
        f"with an error of 20 % {_usd(fifth.usd)}",
    ]
