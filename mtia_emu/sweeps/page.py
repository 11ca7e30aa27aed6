"""A sweep as one page that works without a network: plots by plotly.js, which is inside it, and the data."""

from __future__ import annotations

import json
import os
from html import escape
from importlib import resources
from typing import Any

from ..errors import UserError
from ..files.writing import write_atomic
from ..view import units
from .again import commands
from .labels import amount_of, label_of
from .pictures import PARTS, bars
from .row import OK, STATUSES, Row, metric_columns, record
from .spec import SYSTEM
from .study import Study

MOST_ROWS = 20_000  # on a page; the front is always on it
MOST_DRAWN = 5_000  # of rows whose layers are on the page
DIGITS = 5  # of a layer's numbers
_POLICY = (  # nothing is fetched; plotly.js makes functions of its shaders, hence eval
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline' 'unsafe-eval'; "
    "img-src data: blob:"
)
_SECTIONS = """
<h2>Trade-offs</h2>
<p>Each spot is a chip. The line is the Pareto front of the two columns: no chip is better in both. Click a
spot to see
its roofline and energy below. Whiskers at the GPU are the 90th percentile of its model's error; none are
known for joules. The chip's joules are those of chip and DRAM, the GPU's those of the board.</p>
<div class="controls"><label>across <select id="x"></select></label><label>up <select id="y"></select></label>
<label>colour <select id="colour"></select></label></div>
<div id="front" class="plot"></div>
<h2>Parallel coordinates</h2>
<p>A line a chip. Drag along an axis to keep only the chips that pass there.%(gpu)s</p>
<div class="scroll" tabindex="0"><div id="parallel" class="plot wide"></div></div>
<h2>Which parameter matters</h2>
<p>The share of the variance of each objective's logarithm that lies between the values of one parameter
(epsilon squared); of <code>npv_usd</code>, which may be below 0, its own. What bars do not add up to is
interaction. %(n)s</p>
<div id="sensitivity" class="plot"></div>
<h2>One chip: <span id="chosen"></span></h2>
<p>Run it again: <code id="again" tabindex="0"></code></p>
<div class="controls"><label>model <select id="model"></select></label>
<label><input type="checkbox" id="all"> all columns</label></div>
<div id="roofline" class="plot"></div>
<div id="energy" class="plot"></div>
<table><thead><tr><th>column</th><th>this chip</th><th>base chip</th></tr></thead><tbody
id="values"></tbody></table>
"""


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
    title = f"Sweep of {study.spec.chip}"
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title><style>{style}</style></head><body>",
            f"<h1>{escape(title)}</h1>{_summary(study)}",
            _SECTIONS % {"gpu": _gpu_line(study), "n": escape(_points_line(study))},
            _footer(study),
            f'<script type="application/json" id="data">{embedded(_data(study))}</script>',
            f"<script>{get_plotlyjs()}</script>",
            f"<script>{script}</script></body></html>",
        ]
    )


def embedded(value: Any) -> str:
    """Return JSON that cannot end the script element it stands in."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def _summary(study: Study) -> str:
    counts = ", ".join(f"{study.counts[s]:,} {s}" for s in STATUSES if study.counts[s])
    models = "; ".join(
        f"{m.name} = {m.model} {' '.join(f'{k}={v}' for k, v in m.dims.items())} (weight {m.weight:g})"
        for m in study.spec.model
    )
    lines = [f"{units.many(sum(study.counts.values()), 'point')}: {counts or 'none'}.", f"Models: {models}."]
    if study.spec.constraints:
        lines.append(f"Constraints: {'; '.join(study.spec.constraints)}.")
    if len(study.spec.model) > 1:
        lines.append("Objectives are geometric means over the models, by weight.")
    if study.failures:
        reason, count = study.failures[0]
        lines.append(f"Most frequent failure ({count}): {reason[:300]}")
    if len(study.good) > MOST_ROWS:
        lines.append(
            f"{MOST_ROWS:,} of {len(study.good):,} good points are shown, all of the front among them."
        )
    return "".join(f"<p>{escape(line)}</p>" for line in lines)


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
    return escape(f" {study.gpu['name']}, which has no such parameters, is at {text}{band}.")


def _footer(study: Study) -> str:
    o = study.origin
    text = (
        f"mtia-emu {o['version']} (code {o['code']}), spec {study.spec.digest}, seed {o['seed']}, begun "
        f"{o['created_utc']}. "
        "Times and joules are a model's: docs/accuracy.md says how far to trust them. Area and cost are "
        "estimates."
    )
    return f"<footer>{escape(text)}</footer>"


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
