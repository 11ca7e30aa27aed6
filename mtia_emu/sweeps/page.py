"""A sweep as one page that works without a network: plots by plotly.js, which is inside it, and the data."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from importlib import resources
from typing import Any

from ..errors import UserError
from ..files.writing import write_atomic
from ..view import units
from ..view.html import page as parts
from ..view.html.elements import Element, el
from ..view.html.scales import share
from .again import commands
from .labels import SCALED, amount_of, label_of, name_of
from .pictures import PARTS, bars
from .row import OK, STATUSES, Row, metric_columns, record
from .spec import SYSTEM
from .study import Study

MOST_ROWS = 20_000  # on a page; the front is always on it
MOST_DRAWN = 5_000  # of rows whose layers are on the page
MOST_LISTED = 50  # chips of the front in its table
DIGITS = 5  # of a layer's numbers
_POLICY = (  # nothing is fetched; plotly.js makes functions of its shaders, hence eval
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline' 'unsafe-eval'; "
    "img-src data: blob:"
)
_TRADE = (
    "Each spot is a chip. The line is the Pareto front of the two columns: no chip is better in both. Click "
    "a spot to see its roofline and energy below. Whiskers at the GPU are the 90th percentile of its model's "
    "error; none are known for joules. The chip's joules are those of chip and DRAM, the GPU's those of the "
    "board."
)
_SHARES = (
    "The share of the variance of each objective's logarithm that lies between the values of one parameter "
    "(epsilon squared); of npv_usd, which may be below 0, its own. What bars do not add up to is interaction."
)


def write_page(study: Study, path: str | os.PathLike[str]) -> None:
    """Write a study as one HTML file; needs plotly."""
    write_atomic(path, page(study).encode())


def page(study: Study) -> str:
    """Return a study as HTML. Names in it are hostile text: escaped, and no script of theirs would be run."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise UserError("a page needs plotly: pip install 'mtia-emu[sweep]'; or write .svg or .png") from None
    folder = resources.files(__package__)
    style, script = ((folder / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    scripts = [
        ("application/json", "data", embedded(_data(study))),
        ("", "", get_plotlyjs()),
        ("", "", script),
    ]
    title = f"Sweep of {study.spec.chip}"
    return parts.page(title, list(_parts(study, title)), parts.Alive(_POLICY, style, scripts))


def _parts(study: Study, title: str) -> Iterator[Element]:
    yield parts.header(title, _verdict(study), _about(study))
    yield parts.tiles(list(_tiles(study)))
    pickers = (_picker("across", "x"), _picker("up", "y"), _picker("colour", "colour"))
    trade = _plot("Trade-offs", _TRADE, "front", el("div", *pickers, class_="controls"), _front_table(study))
    shares = f"{_SHARES} {_points_line(study)}"
    matters = _plot("Which parameter matters", shares, "sensitivity", _shares_table(study))
    yield el("div", trade, matters, class_="pair whole")
    lines = f"A line a chip. Drag along an axis to keep only the chips that pass there.{_gpu_line(study)}"
    yield _plot("Parallel coordinates", lines, "parallel")
    yield _one_chip()
    notes = _notes(study)
    if notes:
        yield parts.section("Notes on this sweep", parts.notes(notes))
    yield parts.footer(_footer(study))


def _plot(title: str, text: str, name: str, *others: Element) -> Element:
    """Return a figure that the page's script draws: what chooses what it shows, and its numbers to unfold."""
    caption = el("figcaption", el("h2", title), el("p", text, class_="soft"))
    drawing = el("div", id=name, class_=f"plot {name}", role="group", aria_label=title)
    box = el("div", drawing, class_="scroll", tabindex=0, role="region", aria_label=f"{title}, drawn")
    controls = [x for x in others if x.get("class") == "controls"]
    numbers = [el("details", el("summary", f"Numbers: {title}"), x) for x in others if x not in controls]
    return el("figure", caption, *controls, box, *numbers, class_="whole")


def _picker(text: str, name: str) -> Element:
    return el("label", f"{text} ", el("select", id=name))


def _one_chip() -> Element:
    """Return the part that shows the chip that was clicked."""
    all_columns = el("label", el("input", type="checkbox", id="all"), " all columns")
    heads = ("column", "this chip", "base chip")
    head = el(
        "tr", *(el("th", text, scope="col", class_="number" if n else None) for n, text in enumerate(heads))
    )
    values = el("table", el("thead", head), el("tbody", id="values"))
    return el(
        "section",
        el("h2", "One chip: ", el("span", id="chosen")),
        el("p", "Run it again: ", el("code", id="again", tabindex=0), class_="soft"),
        el("div", _picker("model", "model"), all_columns, class_="controls"),
        el(
            "div",
            el("div", id="roofline", class_="plot", role="group", aria_label="Roofline"),
            el("div", id="energy", class_="plot", role="group", aria_label="Energy by part"),
            class_="pair",
        ),
        el("div", values, class_="scroll", tabindex=0, role="region", aria_label="Columns of the chip"),
        class_="whole",
    )


def _verdict(study: Study) -> str:
    """Return in a sentence what matters most, and how the best chip compares with the base."""
    name = study.spec.objectives[0]
    best = study.best().get(name)
    if best is None:
        return "No point of this sweep can be compared."
    shares, chance = study.sensitivity(name), study.by_chance(name)
    key = max(shares, key=lambda k: shares[k])
    points, what = units.many(len(study.good), "chip"), name_of(name)[0]
    lead = f"{key} explains {share(shares[key])} of what differs in {what}"
    if shares[key] <= chance[key]:
        lead = f"No parameter explains more of {what} than chance would"
    found = _shown_amount(name, best.metrics[name])
    return f"{lead}; the best of {points} is at {found}, {_against(study, name)}."


def _against(study: Study, name: str) -> str:
    """Return what a column of the base chip is."""
    value = study.base.metrics.get(name)
    return (
        f"{study.spec.chip} at {_shown_amount(name, value)}" if _is_known(value) else "the base chip nowhere"
    )


def _shown_amount(name: str, value: Any) -> str:
    return amount_of(name, value).removeprefix(name_of(name)[0]).strip()


def _is_known(value: Any) -> bool:
    return _is_number(value) and value is not None and math.isfinite(value)


def _tiles(study: Study) -> Iterator[parts.Tile]:
    counts = ", ".join(f"{study.counts[s]:,} {s}" for s in STATUSES if study.counts[s])
    yield parts.Tile("points", f"{sum(study.counts.values()):,}", counts or "none")
    if study.good:
        front = int(study.front(study.spec.objectives).sum())
        objectives = units.many(len(study.spec.objectives), "objective")
        yield parts.Tile("front", units.many(front, "chip"), f"no other is better in all of {objectives}")
    for name, row in study.best().items():
        note = f"point {row.index}; {_against(study, name)}"
        yield parts.Tile(f"best {name_of(name)[0]}", _shown_amount(name, row.metrics[name]), note)


def _shares_table(study: Study) -> Element:
    names = study.spec.objectives
    shares = {name: (study.sensitivity(name), study.by_chance(name)) for name in names}
    rows = [[key, *(f"{share(shares[n][0][key])} (chance {share(shares[n][1][key])})" for n in names)]
            for key in study.spec.set]  # fmt: skip
    caption = f"n = {units.many(len(study.good), 'point')}"
    return parts.table(["parameter", *(name_of(n)[0] for n in names)], rows, caption=caption)


def _front_table(study: Study) -> Element:
    """Return the chips of the front of all objectives, with what makes them."""
    on_it = list(study.front(study.spec.objectives)) if study.good else []
    kept = [row for row, best in zip(study.good, on_it, strict=True) if best]
    names = [*study.spec.set, *study.spec.objectives]
    records = [record(row, study.spec) for row in kept[:MOST_LISTED]]
    rows = [
        [str(row.index), *(_cell(n, found[n]) for n in names)]
        for row, found in zip(kept, records, strict=False)
    ]
    rest = f"; {len(kept) - MOST_LISTED:,} more" if len(kept) > MOST_LISTED else ""
    caption = f"{units.many(len(kept), 'chip')} of the front of all objectives{rest}"
    return parts.table(["point", *(name_of(n)[0] for n in names)], rows, caption=caption)


def _cell(name: str, value: Any) -> str:
    return _shown_amount(name, value) if _is_known(value) and name_of(name)[1] else str(value)


def embedded(value: Any) -> str:
    """Return JSON that cannot end the script element it stands in."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def _about(study: Study) -> str:
    """Return models, and what was asked of a chip."""
    models = "; ".join(
        f"{m.name} = {m.model} {' '.join(f'{k}={v}' for k, v in m.dims.items())} (weight {m.weight:g})"
        for m in study.spec.model
    )
    asked = f" Constraints: {'; '.join(study.spec.constraints)}." if study.spec.constraints else ""
    return f"Models: {models}.{asked}"


def _notes(study: Study) -> list[str]:
    lines = []
    if len(study.spec.model) > 1:
        lines.append("Objectives are geometric means over the models, by weight.")
    if study.failures:
        reason, count = study.failures[0]
        lines.append(f"Most frequent failure ({count}): {reason[:300]}")
    if len(study.good) > MOST_ROWS:
        lines.append(
            f"{MOST_ROWS:,} of {len(study.good):,} good points are shown, all of the front among them."
        )
    return lines


def _points_line(study: Study) -> str:
    """Return of how many points the shares are, and which of them chance would explain too."""
    weak = [
        f"{label_of(name)} by {key}"
        for name in study.spec.objectives
        for shares, chance in [(study.sensitivity(name), study.by_chance(name))]
        for key in shares
        if 0 < shares[key] <= chance[key]
    ]
    text = f"n = {units.many(len(study.good), 'point')}."
    if weak:
        text += (
            " Pale bars may be chance, which explains as much in one of twenty sweeps of so few points "
            f"({'; '.join(weak[:6])}{f' and {len(weak) - 6} more' if len(weak) > 6 else ''})."
        )
    return text


def _gpu_line(study: Study) -> str:
    values = [(n, study.gpu[n]) for n in study.spec.objectives if isinstance(study.gpu.get(n), int | float)]
    if not values:
        return ""
    text = ", ".join(amount_of(name, value) for name, value in values)
    share = study.gpu.get("seconds_error_share")
    band = f" (its time +- {share:.0%})" if share else ""
    return f" {study.gpu['name']}, which has no such parameters, is at {text}{band}."


def _footer(study: Study) -> str:
    o = study.origin
    return (
        f"mtia-emu {o['version']} (code {o['code']}), spec {study.spec.digest}, seed {o['seed']}, begun "
        f"{o['created_utc']}. "
        "Times and joules are a model's: docs/accuracy.md says how far to trust them. Area and cost are "
        "estimates."
    )


def _data(study: Study) -> dict[str, Any]:
    """Return what the page's script draws from."""
    rows = _shown(study)
    names = [*study.parameters, *metric_columns(study.spec)]
    table = [[record(row, study.spec)[name] for name in names] for row in rows]
    base = [record(study.base, study.spec)[name] for name in names]
    place = {row.index: at for at, row in enumerate(rows)}
    numeric = [
        n for at, n in enumerate(names) if all(_is_number(r[at]) for r in table) and _is_number(base[at])
    ]
    return {
        "chip": study.spec.chip,
        "gpu": study.gpu,
        "models": [m.name for m in study.spec.model],
        "parameters": study.parameters,
        "varied": list(study.spec.set),
        "objectives": list(study.spec.objectives),
        "columns": names,
        "numeric": numeric,
        "larger": [name for name in names if study.larger_is_better(name)],
        "points": [row.index for row in rows],
        "rows": table,
        "base": base,
        "parts": PARTS,
        "bars": [place[row.index] for row in bars(study)[1:]],
        "layers": [_rounded(row.layers) for row in rows[:MOST_DRAWN]],
        "base_layers": _rounded(study.base.layers),
        "sensitivity": {name: study.sensitivity(name) for name in study.spec.objectives},
        "chance": {name: study.by_chance(name) for name in study.spec.objectives},
        "labels": {name: label_of(name) for name in names},
        "units": {name: name_of(name)[1] for name in names if name_of(name)[1] in SCALED},
        "again": _again(study),
    }


def _again(study: Study) -> dict[str, list[str]]:
    """Return, by model, what stands before and behind the chip's parameters in the command of a point."""
    if SYSTEM in study.parameters:
        return {}  # whose points stand in systems; `report --commands` prints theirs
    mark = "of.a=point"
    texts = commands(study.spec, Row(-1, {"of.a": "point"}, OK))
    return {name: text.split(f" --set {mark}") for name, text in texts.items()}


def _shown(study: Study) -> list[Row]:
    """Return the rows on the page: all, or where they are too many the front and every so manieth."""
    if len(study.good) <= MOST_ROWS:
        return study.good
    front = study.front(study.spec.objectives)
    step = -(-len(study.good) // MOST_ROWS)
    kept = {row.index for row in bars(study)}
    some = [row for at, row in enumerate(study.good) if at % step == 0 or front[at] or row.index in kept]
    return some


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _rounded(layers: Any) -> dict[str, list[list[Any]]]:
    return {
        model: [[float(f"{v:.{DIGITS}g}") if isinstance(v, float) else v for v in group] for group in groups]
        for model, groups in layers.items()
    }
