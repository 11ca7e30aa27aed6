"""How SRAM serves models that run again and again, beside what is published; and how much of it helps."""

from __future__ import annotations

import sys
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from markdown_table import table

from mtia_emu import api
from mtia_emu.engine.lookups import from_inputs
from mtia_emu.machine.chip import load_chip
from mtia_emu.program.inputs import typed_inputs
from mtia_emu.results.report import Report
from mtia_emu.sources import Source
from mtia_emu.streams import Popularity, draw, parse

DLRM, TOKEN = "zoo:dlrm-mlperf", {"seq": 1, "past": 2048}
DENSE, SPARSE = "above 95 %", "40 to 60 %"  # ISCA 2025, 4.2
MODELS: list[tuple[str, dict[str, int]]] = [
    (DLRM, {}),
    ("zoo:dlrm-mc2", {}),
    ("zoo:dlrm-small", {}),
    ("zoo:llama-3.2-1b", TOKEN),
]
SIZES = (64, 128, 256, 512, 1024)  # MB of 2^20 B
LAWS = ("uniform", "histogram:dlrm-2021", "histogram:dlrm-2022")


@cache
def run(
    model: str, dims: tuple[tuple[str, int], ...], state: str, size: int = 256, law: str = LAWS[0]
) -> Report:
    """Return the report of a model on mtia-2i with so much SRAM, its rows looked up by a law."""
    chip = load_chip("mtia-2i", {"sram.bytes": size << 20})
    with api.open_model(model, dict(dims)) as source:
        program = api.compile_stages(source, chip, state=state).program
        known: Any = typed_inputs(_indices(source, law), program.inputs) if source.examples else {}
        lookups = from_inputs(program, known, Popularity(parse(law)))
        return api.run_program(program, chip, lookups=lookups, gpu=None).report


def _indices(source: Source, law: str) -> dict[str, Any]:
    """Return a model's inputs with rows drawn by a law in the place of even ones."""
    assert source.examples is not None
    given = source.examples(0)
    if law == "uniform":
        return given
    rows = _rows(source)
    return given | {
        name: draw(parse(law), np.random.default_rng([0, n]), rows[name], given[name].shape)
        for n, name in enumerate(sorted(rows))
    }


def _rows(source: Source) -> dict[str, int]:
    """Return the rows of the table that each input of DLRM looks up."""
    from mtia_emu.zoo.models import MODELS as ZOO

    model: Any = ZOO[source.name.removeprefix("zoo:")]
    return {f"indices_{table}": rows for table, rows in enumerate(model.rows)}


def percent(rate: float | None) -> str:
    """Return a hit rate as text."""
    return "-" if rate is None else f"{100 * rate:.1f} %"


def anchors() -> str:
    """Return the hit rates of warm runs beside the published ones, and their times."""
    lines = []
    for model, dims in MODELS[:3]:
        served = run(model, tuple(dims.items()), "warm").served
        assert served is not None
        lines.append([f"{model}: dense tiles", DENSE, percent(served.dense_hit_rate)])
    for law in LAWS:
        served = run(DLRM, (), "warm", law=law).served
        assert served is not None
        lines.append([f"{DLRM}: rows, {law}", SPARSE, percent(served.row_hit_rate)])
    for law in LAWS[:2]:
        cold, warm = (run(DLRM, (), state, law=law).seconds * 1e6 for state in ("cold", "warm"))
        lines.append([f"{DLRM}: cold, then warm, {law}", "-", f"{cold:.0f}, {warm:.0f} us"])
    return table(["mtia-2i, 256 MB", "published", "here"], lines)


def sweep() -> str:
    """Return time and energy of warm runs by the size of SRAM, with the cold run of 256 MB."""
    lines = []
    for model, dims in MODELS:
        each = partial(run, model, tuple(dims.items()))
        reports = [each("cold"), *(each("warm", size) for size in SIZES)]
        lines.append([f"`{model}`, us", *(f"{r.seconds * 1e6:.4g}" for r in reports)])
        lines.append([f"`{model}`, mJ", *(f"{r.joules * 1e3:.4g}" for r in reports)])
    return table(["", "cold, 256 MB", *(f"warm, {size} MB" for size in SIZES)], lines)


SECTIONS = {"steady-hits": anchors, "steady-sweep": sweep}
