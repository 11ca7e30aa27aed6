"""Make anew what the pages do not say by hand: tables, pictures, the output of the commands that they show.

`make docs`, or `python docs/generate.py [PAGE ...]`. Generated tables stand in a page between
`<!-- generated: NAME -->` and `<!-- end -->`; NAME is one of SECTIONS. `CHEAP` ones are compared by
`tests/test_docs.py` with what the pages hold.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import accuracy_silicon
import choose_system
import claims
import design_space
import fleet_pictures
import reference_tables
import scenario_tables
import score_training
import serving_pictures
import training_pictures
from fences import fill, runs
from markdown_table import table

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
MODELS = ROOT.parent / "shared" / "models"
PICTURED = [
    ("Llama-3-8B, prefill of 2048", "zoo:llama-3-8b", {"seq": 2048}),
    ("Llama-3-8B, a token after 2048", "zoo:llama-3-8b", {"seq": 1, "past": 2048}),
    ("DLRM-DCNv2 (MLPerf), batch 512", "zoo:dlrm-mlperf", {"batch": 512}),
]
MTIA = (
    "mtia-fc",
    "mtia-tbe",
    "mtia-ops",
    "mtia-lpddr",
    "mtia-2i",
    "mtia-mc2",
    "mtia-production",
    "timing-order",
)
TPU = ("tpu-v6e", "tpu-v5e")
SYSTEMS = ("nccl", "kinds", "bandwidths", "shape", "shape-scores", "step", "decode", "runtimes")
MEASURED: dict[str, tuple[str, dict[str, int]]] = {
    "prefill": ("zoo:llama-3-8b", {"seq": 2048}),
    "decode": ("zoo:llama-3-8b", {"seq": 1, "past": 2048}),
    "dlrm": ("zoo:dlrm-mlperf", {}),
}
CHECKED = [
    ("zoo:llama-tiny", {"batch": 2, "seq": 32}),
    ("zoo:llama-tiny", {"batch": 2, "seq": 1, "past": 31}),
    ("zoo:dlrm-small", {"batch": 64}),
]


def pages() -> list[Path]:
    """Return every page: the README, all Markdown below docs/, and that of the examples."""
    return [ROOT / "README.md", *sorted(DOCS.rglob("*.md")), ROOT / "examples" / "README.md"]


def outputs() -> str:
    """Return how far executed outputs are from those of onnxruntime."""
    import mtia_emu

    rows = []
    for model, dims in CHECKED:
        done = mtia_emu.run(model, "mtia-2i", dims=dims, check=True, gpu=None)
        assert done.check is not None
        given = ", ".join(f"{k}={v}" for k, v in done.report.dims.items())
        rows.append(
            [
                f"`{model}`",
                given,
                done.report.dtype,
                f"{done.check.max_rel_error:.1e}",
                f"{done.check.tolerance:g}",
            ]
        )
    return table(["model", "sizes", "runs as", "largest relative error", "tolerance"], rows)


@cache
def _verdicts() -> list[Any]:
    from mtia_emu.conformance import cases

    return cases.run(workers=os.cpu_count() or 1)


def operators() -> str:
    """Return what became of ONNX's own operator tests; a row for each operator that fails some."""
    import onnx

    from mtia_emu.conformance.tables import OPERATOR_COLUMNS, operator_rows, totals

    count = totals(_verdicts())
    summary = (
        f"onnx {onnx.__version__}: of {count['cases']} cases **{count['passed']} pass, {count['failed']} "
        f"fail, {count['unsupported']} are unsupported**. {count['bound']} of those that pass had operands "
        f"bound when compiled; {count['folded']} had nothing left to execute then."
    )
    rows = operator_rows(_verdicts())
    whole = [name for name, cases, passed, *_ in rows if cases == passed]
    names = reference_tables.code(whole)
    others = table(OPERATOR_COLUMNS, [row for row in rows if row[0] not in whole])
    return f"{summary}\n\nAll cases of {len(whole)} operators pass: {names}.\n\nThe others:\n\n{others}"


def exported_models() -> str:
    """Return what became of the exported models; what the page has where they are not beside it."""
    from mtia_emu.conformance import models
    from mtia_emu.conformance.tables import MODEL_COLUMNS, model_rows

    if not MODELS.is_dir():
        text = (DOCS / "operators.md").read_text(encoding="utf-8")
        return text.partition("<!-- generated: exported-models -->")[2].partition("<!-- end -->")[0].strip()
    return table(MODEL_COLUMNS, model_rows(models.run(MODELS)))


def pictures(folder: Path) -> list[Path]:
    """Draw every picture of the pages into a folder; return their paths."""
    from dataclasses import replace

    import mtia_emu
    from mtia_emu.engine.bounds import roofs
    from mtia_emu.types import dtype
    from mtia_emu.view.plot import roofline, summary

    pairs = []
    for title, model, dims in PICTURED:
        done = mtia_emu.run(model, "mtia-2i", dims=dims, gpu="h100-sxm")
        pairs.append((replace(done.report, model=title, dims={}), done.gpu))  # the title has the sizes
    drawn = [folder / "summary.svg", folder / "roofline.svg"]
    summary(pairs, drawn[0])
    report = pairs[0][0]
    roofline(report, roofs(mtia_emu.load_chip("mtia-2i"), dtype(report.dtype)), drawn[1])
    more = (design_space, fleet_pictures, training_pictures, choose_system, serving_pictures)
    return drawn + [path for module in more for path in module.pictures_into(folder)]


def _compared(module: str, name: str) -> Callable[[], str]:
    """Return a section of a module of `accuracy/`."""

    def section() -> str:
        sys.path[:0] = [str(DOCS), str(DOCS / "accuracy")]
        return str(importlib.import_module(module).SECTIONS[name]())

    return section


def _energy(name: str) -> Callable[[], str]:
    """Return a section made of a table of `accuracy_energy.py`."""

    def section() -> str:
        import accuracy_energy

        return table(*accuracy_energy.SECTIONS[name]())

    return section


def _measured(model: str, dims: dict[str, int]) -> Callable[[], str]:
    """Return a section that says what each pass does to the cycles of a model on mtia-2i."""

    def section() -> str:
        from mtia_emu.compiler import pipeline

        from mtia_emu import api
        from mtia_emu.machine.chip import load_chip
        from mtia_emu.study import measure
        from mtia_emu.types import FP16

        chip = load_chip("mtia-2i")
        steps = (*pipeline.passes(FP16, FP16), *pipeline.mapping_passes(chip))
        with api.open_model(model, dims) as source:
            lookups = partial(api.example_lookups, source)
            rows = list(measure.rows(measure.measure(source.graph(), steps, chip, lookups=lookups)))
        return table(measure.COLUMNS, changed(rows))

    return section


def changed(rows: Sequence[Sequence[str]]) -> list[Sequence[str]]:
    """Return the first row and those that differ from the one before in more than the pass and the change."""
    pairs = pairwise(rows)
    return [*rows[:1], *(row for before, row in pairs if (before[1], *before[3:]) != (row[1], *row[3:]))]


CHEAP = reference_tables.SECTIONS | accuracy_silicon.SECTIONS | claims.SECTIONS | scenario_tables.SECTIONS
SECTIONS: dict[str, Callable[[], str]] = CHEAP | {
    f.__name__.replace("_", "-"): f for f in (outputs, operators, exported_models)
}
SECTIONS |= {"equal-area": design_space.equal_area}
SECTIONS |= {f"passes-{name}": _measured(*case) for name, case in MEASURED.items()}
SECTIONS |= {f"energy-{name}": _energy(name) for name in ("power", "gap", "gpu", "peaks", "gemm", "add")}
SECTIONS |= {name: _compared("steady", name) for name in ("steady-hits", "steady-sweep")}
SECTIONS |= {name: _compared("mtia", name) for name in MTIA}
SECTIONS |= {name: _compared("tpu", name) for name in TPU}
SECTIONS |= score_training.SECTIONS
SECTIONS |= {f"systems-{name}": _compared("accuracy_systems", f"systems-{name}") for name in SYSTEMS}


def refresh(page: Path) -> None:
    """Make a page's tables and shown outputs anew, in place; its blocks run in a process of their own."""
    text = fill(page.read_text(encoding="utf-8"), SECTIONS)
    page.write_text(text, encoding="utf-8")
    if runs(text):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, DOCS / "fences.py", page, folder]
            page.write_bytes(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def examples() -> list[Path]:
    """Run every example that has an output beside it; return the outputs, made anew."""
    found = sorted((ROOT / "examples").glob("*.out"))
    for path in found:
        done = subprocess.run([sys.executable, path.with_suffix(".py")], check=True, stdout=subprocess.PIPE)
        path.write_bytes(done.stdout)
    return found


def main(names: Sequence[str]) -> None:
    """Refresh the named pages, or all pages, pictures and outputs of examples."""
    chosen = [Path(name).resolve() for name in names] or pages()
    for page in chosen:
        print(page.relative_to(ROOT))
        refresh(page)
    if not names:
        for path in (*pictures(DOCS / "pictures"), *examples()):
            print(path.relative_to(ROOT))


if __name__ == "__main__":
    main(sys.argv[1:])
