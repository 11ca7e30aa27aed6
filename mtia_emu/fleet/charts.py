"""The figures of a fleet's page, as values that draw themselves."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import UserError
from ..sums import add_up
from ..view.html.bars import BarChart, Period, StackedBar, TimeChart, Tornado, TornadoBar
from ..view.html.heat import HeatMap
from ..view.html.lines import Line, LineChart, Marked
from ..view.html.sankey import Ribbon, Sankey
from ..view.html.scales import ChartAxis, dollars, plain, share
from .answer import FleetAnswer
from .flows import power_flows
from .hourly import HourlyAnswer
from .measures import SAVING, measured
from .model import evaluate
from .programme import WEEKS_PER_YEAR
from .prospect import Prospect, first, swings_within
from .quantity import Numbers, Quantity, mean
from .sampling import Swing
from .verdict import chance, rounded

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
TABLES = ("device", "work", "on", "finance", "programme", "site", "rack")  # which a number's name needs not
TOP = 8  # bars of the tornado
COSTS = {  # parts of a year's cost, and the fields that they add up
    "devices": ("devices_usd",),
    "servers, network, racks": ("servers_usd", "network_usd", "racks_usd"),
    "site": ("site_usd",),
    "energy": ("energy_usd",),
    "maintenance": ("maintenance_usd",),
    "programme": ("programme_usd",),
}


def name_of(key: str) -> str:
    """Return an input's key as people read it: the number first, then what it is of."""
    *path, last = key.split(".")
    whose = [part for part in path if part not in TABLES]
    return last.replace("_", " ").replace("usd", "$") + (f", {' on '.join(whose)}" if whose else "")


def band_of(quantity: Quantity) -> str:
    """Return a number with its band."""
    low, high = quantity.ends
    return plain(quantity.value) + (f" ({plain(low)} to {plain(high)})" if quantity.varies else "")


def power(answer: FleetAnswer) -> Sankey:
    """Return where the power of an answer's option goes; raise `UserError` where none flows."""
    scenario, option = answer.scenario, answer.about
    flows = power_flows(scenario, option, answer.agreeing)
    if not flows:
        raise UserError(f"'{option}' has nothing to do: no page is made of it (right: mean_per_s above 0)")
    meter = sum(flow.watts for flow in flows if flow.source == flows[0].source)
    useful = sum(flow.watts for flow in flows if flow.target in scenario.work)
    return Sankey(
        "From the meter to the models",
        f"Of {plain(meter / 1e6)} MW at the meter, {share(useful / meter)} does the work; means of samples.",
        ChartAxis("mean power", "MW"),
        [Ribbon(flow.source, flow.target, flow.watts / 1e6) for flow in flows],
    )


def costs(answer: FleetAnswer) -> BarChart:
    """Return what each option costs a year, in parts."""
    bars, parts = [], {}
    for one in answer.options:
        result = evaluate(answer.scenario, one.option, answer.agreeing)
        parts[one.option] = [
            add_up(mean(result.sum_of(f"costs.{field}")) for field in fields) for fields in COSTS.values()
        ]
        spread = one.conditioned["musd_per_year"]
        bars.append(StackedBar(one.option, parts[one.option], spread.p5 * 1e6, spread.p95 * 1e6))
    power_part = parts[answer.about][list(COSTS).index("energy")] / add_up(parts[answer.about])
    year = answer.scenario.currency_year
    return BarChart(
        "What it costs a year",
        f"Energy is {share(power_part)} of what '{answer.about}' costs. Means of samples; whiskers hold nine "
        "in ten.",
        ChartAxis("cost a year", f"$ of {year}", show=dollars),
        bars,
        tuple(COSTS),
    )


def tornado(answer: FleetAnswer, found: Prospect | None) -> Tornado:
    """Return what each input alone does to the value of the programme, or else to the saving or the cost."""
    swings, base = moved(answer, found)
    title, axis = "What moves its value", "mean value, with the chance of failure"
    if found is None:
        alone = answer.about == answer.scenario.baseline
        title = "What moves its cost" if alone else "What moves the saving"
        axis = "cost a year" if alone else f"saved a year beside '{answer.scenario.baseline}'"
    known = answer.scenario.quantities
    most = f"{name_of(swings[0].key)} moves it most" if swings else "nothing varies"
    return Tornado(
        title,
        f"One input at a time, all others as in the samples; {most}. Pale and dashed: a guess.",
        ChartAxis(axis, f"$ of {answer.scenario.currency_year}", show=dollars),
        base,
        [_bar(swing, known[swing.key]) for swing in swings[:TOP]],
    )


def moved(answer: FleetAnswer, found: Prospect | None) -> tuple[tuple[Swing, ...], float]:
    """Return the swings of what the verdict is about, and its mean, in dollars."""
    if found is not None:
        return found.swings, found.swings_base
    scenario = answer.scenario
    name = "musd_per_year" if answer.about == scenario.baseline else SAVING

    def usd(at: Mapping[str, Numbers]) -> Numbers:
        return measured(scenario, answer.about, at)[name] * 1e6

    return swings_within(scenario, answer.agreeing, usd), mean(usd(first(answer.agreeing)))


def _bar(swing: Swing, quantity: Quantity) -> TornadoBar:
    low, high = quantity.ends
    return TornadoBar(name_of(swing.key), swing.low, swing.high, plain(low), plain(high), quantity.is_unsure)


def odds(found: Prospect) -> LineChart:
    """Return the chance that a programme pays, over its volume."""
    prior, kept = found.prior.curve, found.conditioned.curve
    volumes = [x.volume for x in kept]
    even = found.conditioned.break_even.p50
    marks = [Marked(found.volume, "this fleet")]
    if volumes[0] <= even <= volumes[-1]:
        marks.append(Marked(even, f"breaks even at {rounded(even)}"))
    here = found.conditioned.odds
    return LineChart(
        "Odds against volume",
        f"The chance of a net present value above 0: at {found.volume:,.0f} GPU-equivalents it is "
        f"{chance(here.risked)}, {chance(here.works)} if the chip works.",
        ChartAxis("volume", "GPU-equivalents", log=True),
        ChartAxis("chance that it pays", "share", show=share),
        [
            Line("if the chip works", volumes, [x.works for x in kept]),
            Line("with the chance of failure", volumes, [x.risked for x in kept]),
            Line("the same before conditioning", volumes, [x.risked for x in prior]),
        ],
        marks[:1] if len(marks) > 1 and 0.5 < marks[0].across / marks[1].across < 2 else marks,
        zero=True,
    )


def schedule(answer: FleetAnswer, found: Prospect) -> TimeChart:
    """Return a programme in time, from its start to the last purchase."""
    at, known = found.schedule, answer.scenario.quantities
    last = float(at.production) + known["programme.production_years"].value * WEEKS_PER_YEAR
    steps = [
        ("design", 0.0, at.tape_out), ("queue and foundry", at.tape_out, at.packaging),
        ("package and test", at.packaging, at.first_chips),
        ("bring-up and respins", at.first_chips, at.production), ("chips are bought", at.production, last),
    ]  # fmt: skip
    return TimeChart(
        "The programme in time",
        f"Central values: models run on the chip in week {float(at.production):.0f}. A slip of 13 weeks "
        f"costs {dollars(next(x.usd for x in found.slips if x.weeks == 13))} on average.",
        ChartAxis("time since the start", "weeks"),
        [Period(name, float(start), float(end), group=n) for n, (name, start, end) in enumerate(steps)],
    )


def carbon(by_hour: HourlyAnswer) -> HeatMap:
    """Return what purchases leave of the grid's CO2e, by hour and month."""
    grams = by_hour.by_month.T.clip(min=0) * 1000
    return HeatMap(
        "Carbon after purchases, by hour and month",
        f"Purchases of {by_hour.annual_share:.0%} of a year's energy cover {by_hour.coverage:.0%} of it "
        f"in the hours in which it is drawn; {by_hour.residual_kg_per_kwh * 1000:,.0f} of "
        f"{by_hour.location_kg_per_kwh * 1000:,.0f} g/kWh stay.",
        ChartAxis("month", by_hour.grid if by_hour.year is None else f"{by_hour.year}, {by_hour.grid}"),
        ChartAxis("hour", "local time"),
        ChartAxis("CO2e that stays", "g/kWh"),
        MONTHS,
        [f"{hour}:00" for hour in range(24)],
        [list(map(float, row)) for row in grams],
    )
