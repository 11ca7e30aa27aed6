"""The tutorial's sweep for architects: its table and its pictures."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from markdown_table import table

ROOT = Path(__file__).resolve().parents[1]


def sweep_store(folder: Path) -> Path:
    """Return the store of the tutorial's sweep, made in a folder."""
    from mtia_emu.sweeps.run import SweepRun, run
    from mtia_emu.sweeps.spec import load_spec, make_spec

    path = folder / "sweep.db"
    run(make_spec(load_spec(ROOT / "examples" / "sweep.toml")), SweepRun(path)).close()
    return path


@cache
def sweep_study() -> Any:
    """Return the study of the tutorial's sweep, which is made once."""
    from mtia_emu.sweeps.store import read
    from mtia_emu.sweeps.study import Study

    with tempfile.TemporaryDirectory() as folder, read(sweep_store(Path(folder))) as store:
        return Study.of(store, layers=True)


def equal_area() -> str:
    """Return what the tutorial's sweep found: the best chip for each workload at equal area."""
    study = sweep_study()
    ways = ["decode.seconds", "dlrm.seconds", "seconds", "joules", "dollars"]
    best = {way: study.good[min(range(len(study.good)), key=study.column(way).__getitem__)] for way in ways}
    rows = [["MTIA 2i", *_design(study.base)]]
    rows += [[f"least {way}", *_design(row)] for way, row in best.items()]
    head = ["chip", "SRAM", "DRAM", "array", "die", "to make", "decode", "DLRM", "joules (mean)"]
    counts = f"{len(study.good)} of {sum(study.counts.values())} chips fit the area."
    return f"{counts} MTIA 2i, and the best of them by each measure:\n\n{table(head, rows)}"


def _design(row: Any) -> list[str]:
    p, m = row.params, row.metrics
    return [
        f"{p['sram.bytes'] >> 20} MiB",
        f"{m['dram_bytes_per_s'] / 1e9:.0f} GB/s",
        f"{p['pe.matrix.rows']} x {p['pe.matrix.cols']}",
        f"{m['area_mm2']:.0f} mm2",
        f"{m['dollars']:.0f} $",
        f"{m['decode.seconds'] * 1e3:.1f} ms",
        f"{m['dlrm.seconds'] * 1e3:.3f} ms",
        f"{m['joules']:.3g}",
    ]


def pictures_into(folder: Path) -> list[Path]:
    """Draw the pictures of the tutorial's sweep into a folder; return their paths."""
    from mtia_emu.sweeps import pictures

    study = sweep_study()
    kinds = ("pareto", "sensitivity", "parallel", "energy")
    drawn = {kind: folder / f"sweep-{kind}.svg" for kind in kinds}
    pictures.pareto(study, drawn["pareto"], "area_mm2", "seconds")
    for kind in kinds[1:]:
        getattr(pictures, kind)(study, drawn[kind])
    return list(drawn.values())
