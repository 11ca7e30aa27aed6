"""Modelled collectives beside published and measured ones.

    python docs/accuracy_systems.py        # print all tables
    python docs/generate.py docs/accuracy-systems.md    # write them into the page

Needs the reference folder; the measured tables of NCCL and of serving runtimes are read from the package
`aiconfigurator-core` (`pip install 'mtia-emu[accuracy]'`).
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from accuracy import system_models as models
from accuracy import tables
from accuracy.score import Score, halves, score
from markdown_table import table

from mtia_emu.system.collectives import Collective, CollectiveTime, timed
from mtia_emu.system.library import load_library
from mtia_emu.system.load import load_system
from mtia_emu.system.topology import System

FOLDER = tables.REFERENCE / "serving"
SHAPE = {"AllGather": "all_gather", "AllReduce": "all_reduce", "AllToAll": "all_to_all"}
SHOWN = [10, 13, 16, 20, 22, 24, 26, 28, 30, 31]  # powers of two of bytes
DECODE = [1 << e for e in (13, 14, 16, 18, 20, 22)]
SYSTEM_OF = {"MTIA 300": "mtia-300-rack", "H100": "dgx-h100*2"}
STEP = {"MTIA 300": ("mtia-300-rack*3", "mtia300_ms"), "H100": ("dgx-h100*5", "h100_ms")}


def published(name: str) -> list[dict[str, str]]:
    """Return the rows of a table of the reference folder; leave, saying so, where it is absent."""
    path = FOLDER / name
    if not path.is_file():
        sys.exit(f"no reference data at {path}")
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _cells(s: Score) -> list[str]:
    return [f"{s.median:.1%}", f"{s.ninth:.1%}", f"{s.bias:+.1%}"]


@cache
def _nccl(name: str) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray]:
    """Return a GPU's rows, which were fitted, and seconds by its library and by NCCL's own model."""
    rows = models.rows(name)
    if rows is None:
        sys.exit("no measured collectives: neither the package of tables nor the reference folder is there")
    mine = halves(list(zip(rows.kind, rows.bytes, strict=True)))
    library = models.NCCL[name][1]
    both = [models.modelled(models.alone(name, load_library(x)), rows) for x in (library, f"{library}-own")]
    return rows, mine, both[0], both[1]


def _measured() -> list[str]:
    """Return the GPUs whose rows are there: the package of tables has more than the reference folder."""
    return [name for name in models.NCCL if (rows := models.rows(name)) is None or len(rows)]


def nccl() -> str:
    """Return the scores of NCCL's collectives: of the fitted half, of the other, and with nothing fitted."""
    out = []
    for name in _measured():
        rows, mine, ours, own = _nccl(name)
        took = rows.seconds.to_numpy()
        for what, times, which in (
            ("fitted half", ours, mine),
            ("other half", ours, ~mine),
            ("nothing fitted: NCCL's own model", own, np.ones(len(rows), bool)),
        ):
            out.append([name, what, str(int(which.sum())), *_cells(score(times[which], took[which]))])
    return table(["GPU", "rows", "number", "median error", "90 % below", "bias"], out)


def kinds() -> str:
    """Return the scores of the half that was not fitted, by kind of collective."""
    out = []
    for name in _measured():
        rows, mine, ours, _ = _nccl(name)
        took = rows.seconds.to_numpy()
        cells = [name]
        for kind in ("all_reduce", "all_gather", "reduce_scatter", "all_to_all"):
            which = (rows.kind == kind).to_numpy() & ~mine
            cells.append(f"{score(ours[which], took[which]).median:.1%}")
        out.append(cells)
    return table(["GPU", "all_reduce", "all_gather", "reduce_scatter", "all_to_all"], out)


def bandwidths() -> str:
    """Return published bus bandwidths beside ours; none of them was fitted."""
    out = []
    for row in published("published_collectives.csv"):
        found = _bandwidth(row)
        if found is not None:
            want = float(row["bus_GBps"])
            have = found.bus_bytes_per_s / 1e9
            what = [
                row["collective"],
                row["device"],
                row["ranks"],
                _size(float(row["bytes"])),
                row["variant"],
            ]
            out.append([*what, f"{want:.1f}", f"{have:.1f}", f"{have / want - 1:+.1%}", found.algorithm])
    errors = [abs(float(cells[7].rstrip("%"))) for cells in out]
    head = ["collective", "device", "ranks", "bytes", "variant", "GB/s", "here", "error", "by"]
    return f"{table(head, out)}\n\nMedian error {np.median(errors):.1f} % of {len(out)} rows."


def _bandwidth(row: dict[str, str]) -> CollectiveTime | None:
    """Return the time of a row that is of a system that ships and says its size; None for others."""
    if row["device"] in GPU_OF and row["nodes"] == "1" and row["bytes"].isdigit():
        size, ranks = float(row["bytes"]), tuple(range(int(row["ranks"])))
        algorithm = "ring" if row["variant"].startswith("ring") else "auto"
        system = models.alone(GPU_OF[row["device"]], load_library(models.NCCL[GPU_OF[row["device"]]][1]))
        return timed(system, Collective(row["collective"], size, ranks), algorithm)
    return None


GPU_OF = {"H200 SXM": "h200-sxm", "B200 SXM": "b200", "A100 SXM": "a100-sxm-80gb"}


def _size(size: float) -> str:
    return f"{size / (1 << 30):g} GiB" if size >= 1 << 30 else f"{size / (1 << 20):g} MiB" \
        if size >= 1 << 20 else f"{size / 1024:g} KiB"  # fmt: skip


@cache
def _shape_system(device: str) -> System:
    """Return the system of figure 15; HCCL without the writes that PEs post, which are later than it."""
    system = load_system(SYSTEM_OF[device])
    if device == "H100":
        return system
    kept = tuple(p for p in system.library.protocols if p.launches)
    return replace(system, library=system.library.model_copy(update={"protocols": kept}))


def _shapes() -> Iterator[tuple[str, str, float, float, float]]:
    """Yield (collective, device, bytes, published, here): times over H100's of 2^31 bytes, 16 ranks."""
    ranks = tuple(range(16))
    for row in published("mtia300_collectives_normalised.csv"):
        if row["below_resolution"] == "False":
            kind, size = SHAPE[row["collective"]], float(row["bytes"])
            here = timed(_shape_system(row["device"]), Collective(kind, size, ranks)).seconds
            whole = timed(_shape_system("H100"), Collective(kind, 2.0**31, ranks)).seconds
            yield kind, row["device"], size, float(row["normalised_time"]), here / whole


def shape() -> str:
    """Return MTIA 300's collectives of 16 ranks by size, over H100's of 2 GiB; nothing fitted."""
    found = [x for x in _shapes() if x[1] == "MTIA 300"]
    out = []
    for size in SHOWN:
        cells = [_size(2.0**size)]
        for kind in SHAPE.values():
            pair = next((f"{p:.4f}, {h:.4f}" for k, _, s, p, h in found if k == kind and s == 2.0**size), "")
            cells.append(pair)
        out.append(cells)
    return table(["bytes", *(f"{kind}: published, here" for kind in SHAPE.values())], out)


def shape_scores() -> str:
    """Return how far shapes are off: a device by its own 2 GiB; and the ratio between devices."""
    found = list(_shapes())
    out = []
    for device in SYSTEM_OF:
        for kind in SHAPE.values():
            mine = [(s, p, h) for k, d, s, p, h in found if k == kind and d == device]
            _, last_p, last_h = mine[-1]
            errors = [abs((h / last_h) / (p / last_p) - 1) for s, p, h in mine if s >= 1 << 20]
            small = [abs((h / last_h) / (p / last_p) - 1) for s, p, h in mine if s < 1 << 20]
            ends = "" if device == "H100" else f"{last_p:.3f}, {last_h:.3f} ({last_h / last_p - 1:+.0%})"
            out.append([device, kind, f"{np.median(errors):.0%}", f"{np.median(small):.0%}", ends])
    head = [
        "device",
        "collective",
        "median error of shape, from 1 MiB",
        "below",
        "2 GiB over H100: published, here",
    ]
    return table(head, out)


def step() -> str:
    """Return the large collectives of a production training step on 40 accelerators; nothing fitted."""
    rows = {row["collective"]: row for row in published("mtia300_dlrm_training_collectives.csv")}
    out = []
    for name, kind in (
        ("AllReduce", "all_reduce"),
        ("AllGather", "all_gather"),
        ("AllToAllv#29", "all_to_all"),
    ):
        row = rows[name]
        size = 1e6 * float(row["out_avg_MB"])
        cells = [f"{name}, {size / 1e6:,.0f} MB"]
        took = {}
        for device, (system, column) in STEP.items():
            what = Collective(kind, size, tuple(range(40)))
            took[device] = (float(row[column]), 1e3 * timed(load_system(system), what).seconds)
            cells.append(f"{took[device][0]:.1f}, {took[device][1]:.1f}")
        pub, here = (took["MTIA 300"][i] / took["H100"][i] for i in (0, 1))
        out.append([*cells, f"{pub:.2f}, {here:.2f}"])
    return table(["collective", "MTIA 300, ms: published, here", "H100, ms", "ratio"], out)


def decode() -> str:
    """Return all-reduces of decode's sizes on eight GPUs: the kernels of serving runtimes beside NCCL."""
    out = []
    for name, (system, library) in models.NCCL.items():
        ranks = tuple(range(8))
        alone = models.alone(name, load_library(library))
        cells = [name]
        for size in DECODE:
            what = Collective("all_reduce", float(size), ranks)
            both, by_nccl = timed(load_system(system), what), timed(alone, what)
            cells.append(f"{1e6 * both.seconds:.1f}, {1e6 * by_nccl.seconds:.1f}")
        out.append(cells)
    return table(["GPU", *(f"{_size(s)}: fastest, NCCL" for s in DECODE)], out)


def runtimes() -> str:
    """Return scores of serving runtimes' all-reduces on sizes that were not fitted, and of another."""
    out = []
    for name in models.NCCL:
        for runtime in tables.DIRECT[name]:
            rows = tables.direct(name, runtime)
            rows = rows[rows.num_gpus.isin([2, 4, 8])]
            if runtime == "trtllm":
                rows = rows[~halves(list(rows.message_size))]
            system = load_system(models.NCCL[name][0])
            found = models.modelled(system, rows.assign(kind="all_reduce"))
            out.append([name, runtime, str(len(rows)), *_cells(score(found, rows.seconds.to_numpy()))])
    return table(["GPU", "runtime", "rows", "median error", "90 % below", "bias"], out)


SECTIONS: dict[str, Callable[[], str]] = {
    "systems-nccl": nccl,
    "systems-kinds": kinds,
    "systems-bandwidths": bandwidths,
    "systems-shape": shape,
    "systems-shape-scores": shape_scores,
    "systems-step": step,
    "systems-decode": decode,
    "systems-runtimes": runtimes,
}

if __name__ == "__main__":
    for title, section in SECTIONS.items():
        print(f"\n{title}\n\n{section()}")
