"""Make anew what the pages do not say by hand: tables, pictures, the output of the commands that they show.

`make docs`, or `python docs/generate.py [PAGE ...]`. Generated tables stand in a page between
`<!-- generated: NAME -->` and `<!-- end -->`; NAME is a function of this file. `CHEAP` ones are compared by
`tests/test_docs.py` with what the pages hold.
"""

from __future__ import annotations

import csv
import inspect
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import MISSING, fields
from functools import cache
from pathlib import Path
from typing import Any

import design_space
from fences import fill, runs
from markdown_table import table

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
MODELS = ROOT.parent / "shared" / "models"
SCALESIM = ROOT / "tests" / "data" / "scalesim_cycles.csv"
PICTURED = [
    ("Llama-3-8B, prefill of 2048 tokens", "zoo:llama-3-8b", {"seq": 2048}),
    ("Llama-3-8B, one token after 2048", "zoo:llama-3-8b", {"seq": 1, "past": 2048}),
    ("DLRM-DCNv2 (MLPerf), batch 512", "zoo:dlrm-mlperf", {"batch": 512}),
]
MTIA = ("mtia-fc", "mtia-tbe", "mtia-ops", "mtia-2i", "mtia-mc2", "mtia-production", "timing-order")
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


def code(words: Iterable[object]) -> str:
    """Return words as code, separated by spaces."""
    return " ".join(f"`{word}`" for word in words)


# Tables of what the code declares.


def chips() -> str:
    """Return every parameter with its unit, meaning and value on each chip; then the sources of each chip."""
    from mtia_emu.chip import chip_names
    from mtia_emu.listing import chip_parameters

    names = chip_names()
    return _parameters(names, {name: chip_parameters(name) for name in names})


def gpus() -> str:
    """Return the same for the GPUs."""
    from mtia_emu.gpu import gpu_names
    from mtia_emu.listing import gpu_parameters

    names = gpu_names()
    return _parameters(names, {name: gpu_parameters(name) for name in names})


def _parameters(names: Sequence[str], each: dict[str, list[Any]]) -> str:
    values = {name: {p.key: p for p in parameters} for name, parameters in each.items()}
    keys = {p.key: p for parameters in each.values() for p in parameters if p.key not in ("name", "text")}
    rows = [
        [f"`{key}`", p.unit, p.text, *(_value(values[name].get(key)) for name in names)]
        for key, p in keys.items()
    ]
    parts = [table(["parameter", "unit", "meaning", *names], rows)]
    for name in names:
        sources = [[f"`{p.key}`", _value(p), p.source] for p in each[name] if p.key not in ("name", "text")]
        parts += [f"## Sources of {name}", table(["parameter", "value", "source"], sources)]
    return "\n\n".join(parts)


def _value(parameter: Any) -> str:
    if parameter is None:
        return ""
    value = parameter.value
    return f"{value:g}" if isinstance(value, float) else str(value).replace("(", "[").replace(")", "]")


def ops() -> str:
    """Return the ops of the graph."""
    from mtia_emu.compiler.ops import OPS

    rows = [
        [
            f"`{op.name}`",
            str(op.arity[0]) if op.arity[0] == op.arity[1] else f"{op.arity[0]} to {op.arity[1]}",
            " ".join([code(op.attrs), *(f"`{a}`?" for a in op.optional)]).strip(),
            op.text,
        ]
        for op in sorted(OPS.values(), key=lambda op: op.name)
    ]
    return table(["op", "operands", "attributes", "meaning"], rows)


def onnx_ops() -> str:
    """Return the ONNX operators that are imported by a rule of their own."""
    from mtia_emu.compiler.frontend.control import SPECIAL
    from mtia_emu.compiler.ops import ONNX

    names = sorted([*ONNX, *SPECIAL], key=str.lower)
    standard = [n for n in names if "::" not in n]
    other = [n for n in names if "::" in n]
    return f"Standard ({len(standard)}): {code(standard)}\n\nOther domains ({len(other)}): {code(other)}"


def commands() -> str:
    """Return the command set, the record's fields, the multicasts and the functions of the SIMD engine."""
    from mtia_emu.isa import COMMAND, COMMANDS, POOL_MODES, REDUCTION_NAMES, Cast, Shape
    from mtia_emu.units.simd import FUNCTIONS

    rows = [[int(op), f"`{op.name.lower()}`", *text.split(": ", 1)] for op, text in COMMANDS.items()]
    record = " ".join(f"`{name}`:{COMMAND[name].name}" for name in COMMAND.names or ())
    functions = [[f"`{f.name}`", f.arity, f.passes, f.result] for f in FUNCTIONS.values()]
    return "\n\n".join(
        [
            table(["number", "command", "unit", "meaning"], rows),
            "## The record",
            f"{COMMAND.itemsize} bytes: {record}",
            "`cast`: "
            + ", ".join(f"{c.value} {c.name.lower()}" for c in Cast)
            + ". The shape of a SIMD source, two bits of `flags` each: "
            + ", ".join(f"{s.value} {s.name.lower()}" for s in Shape)
            + ".",
            f"Reductions (`fn` of `fold`): {code(REDUCTION_NAMES)}. "
            f"Pooling (`fn` of `pool`): {code(POOL_MODES)}.",
            "## SIMD functions",
            table(["function", "operands", "passes", "result"], functions),
        ]
    )


def settings() -> str:
    """Return the environment variables."""
    from mtia_emu.settings import FLAGS

    return table(
        ["variable", "default", "meaning"],
        [[f"`{f.name}`", f"`{f.default}`" if f.default else "", f.text] for f in FLAGS],
    )


def cli() -> str:
    """Return the commands of the command line with their help and options."""
    from mtia_emu.cli import main

    parts = [_help(main.help)]
    for name, command in main.commands.items():
        shown = [p for p in command.params if p.param_type_name == "option"]
        arguments = " ".join(
            p.human_readable_name.upper() if p.required else f"[{p.human_readable_name.upper()}]"
            for p in command.params
            if p.param_type_name == "argument"
        )
        parts += [f"## mtia-emu {name} {arguments}".rstrip(), _help(command.help)]
        if shown:
            parts.append(table(["option", "default", "meaning"], map(_option, shown)))
    return "\n\n".join(parts)


def _help(text: str | None) -> str:
    """Return help text as Markdown: what stands behind a backspace mark is shown as it is."""
    out = []
    for paragraph in inspect.cleandoc(text or "").split("\n\n"):
        if paragraph.startswith("\b"):
            out.append("```\n" + paragraph.lstrip("\b\n") + "\n```")
        else:
            out.append(" ".join(paragraph.split()))
    return "\n\n".join(out)


def _option(option: Any) -> list[str]:
    kind = option.type
    value = option.metavar or (
        "\\|".join(kind.choices) if hasattr(kind, "choices") else "" if option.is_flag else "INT"
    )
    default = option.default if isinstance(option.default, (int, str)) and not option.is_flag else ""
    spelt = f"`{', '.join(option.opts)}{' ' + value if value else ''}`".replace("\\|", "|")
    return [spelt, f"`{default}`" if default != "" else "", option.help or ""]


def passes() -> str:
    """Return the default pipeline in order, each pass with its options and its contract."""
    from mtia_emu.compiler import pipeline

    from mtia_emu.chip import load_chip
    from mtia_emu.types import FP16, FP32

    rows = []
    steps = (*pipeline.passes(FP32, FP16, int8=True), *pipeline.mapping_passes(load_chip("mtia-2i")))
    for number, step in enumerate(steps, start=1):
        options = [f"{f.name}={f.default}" for f in fields(step) if f.default is not MISSING]
        rows.append([number, f"`{step.name}`", code(options), " ".join((type(step).__doc__ or "").split())])
    return table(["step", "pass", "options and defaults", "contract"], rows)


# Comparisons: what the model gives beside what others give.


def systolic() -> str:
    """Return the comparison of a systolic array, in closed form and stepped, with SCALE-Sim."""
    from mtia_emu.units.systolic import sram_words, systolic_cycles

    rows: dict[str, list[int]] = {}
    for row in _csv(SCALESIM):
        m, k, n = (int(row[name]) for name in "MKN")
        array: dict[str, Any] = {
            "rows": int(row["array_rows"]),
            "cols": int(row["array_cols"]),
            "dataflow": row["dataflow"],
        }
        cycles = int(row["compute_cycles"]) + 1
        reads = int(row["sram_ifmap_reads"]), int(row["sram_filter_reads"])
        equal = (
            systolic_cycles(m, k, n, **array) == cycles,
            _stepped_cycles(m, k, n, array) == cycles,
            sram_words(m, k, n, **array)[:2] == reads,
        )
        group = rows.setdefault(f"{array['rows']} x {array['cols']} {array['dataflow']}", [0, 0, 0, 0])
        group[:] = [old + new for old, new in zip(group, (1, *equal), strict=True)]
    total = [sum(x) for x in zip(*rows.values(), strict=True)]
    body = [[name, *counts] for name, counts in rows.items()] + [["all", *total]]
    return table(["array", "products", "closed form equal", "stepped array equal", "words read equal"], body)


def _stepped_cycles(m: int, k: int, n: int, array: dict[str, Any]) -> int:
    """Return the cycles of the stepped array; its product is checked."""
    import numpy as np

    from mtia_emu.units.systolic import step

    rng = np.random.default_rng(0)
    a, b = rng.integers(-9, 9, (m, k)), rng.integers(-9, 9, (k, n))
    product, cycles, _ = step(a.astype(np.int8), b.astype(np.int8), **array)
    assert np.array_equal(product, a @ b)
    return cycles


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


def _csv(path: Path) -> list[dict[str, str]]:
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return list(csv.DictReader(lines))


@cache
def _verdicts() -> list[Any]:
    from mtia_emu.conformance import cases

    return cases.run(workers=os.cpu_count() or 1)


def operators() -> str:
    """Return what became of ONNX's own operator tests, by operator."""
    import onnx

    from mtia_emu.conformance.tables import OPERATOR_COLUMNS, operator_rows, totals

    count = totals(_verdicts())
    summary = (
        f"onnx {onnx.__version__}: of {count['cases']} cases **{count['passed']} pass, {count['failed']} "
        f"fail, {count['unsupported']} are unsupported**. {count['bound']} of those that pass had operands "
        f"bound when compiled; {count['folded']} had nothing left to execute then."
    )
    return summary + "\n\n" + table(OPERATOR_COLUMNS, operator_rows(_verdicts()))


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
        pairs.append((replace(done.report, model=title), done.gpu))
    drawn = [folder / "summary.svg", folder / "roofline.svg"]
    summary(pairs, drawn[0])
    report = pairs[0][0]
    roofline(report, roofs(mtia_emu.load_chip("mtia-2i"), dtype(report.dtype)), drawn[1])
    return drawn + design_space.pictures_into(folder)


def _mtia(name: str) -> Callable[[], str]:
    """Return a section of `accuracy/mtia.py`."""

    def section() -> str:
        sys.path[:0] = [str(DOCS), str(DOCS / "accuracy")]
        import mtia

        return str(mtia.SECTIONS[name]())

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
        from mtia_emu.compiler.frontend import load

        from mtia_emu import api, measure
        from mtia_emu.chip import load_chip
        from mtia_emu.types import FP16

        chip = load_chip("mtia-2i")
        steps = (*pipeline.passes(FP16, FP16), *pipeline.mapping_passes(chip))
        with api.open_model(model, dims) as source:
            found = list(measure.rows(measure.measure(load(source.path), steps, chip)))
        return table(measure.COLUMNS, found)

    return section


CHEAP: dict[str, Callable[[], str]] = {
    f.__name__.replace("_", "-"): f
    for f in (chips, gpus, ops, onnx_ops, commands, settings, cli, passes, systolic)
}
SECTIONS: dict[str, Callable[[], str]] = CHEAP | {
    f.__name__.replace("_", "-"): f for f in (outputs, operators, exported_models)
}
SECTIONS |= {"equal-area": design_space.equal_area}
SECTIONS |= {f"passes-{name}": _measured(*case) for name, case in MEASURED.items()}
SECTIONS |= {f"energy-{name}": _energy(name) for name in ("power", "gap", "gpu", "peaks", "gemm", "add")}
SECTIONS |= {name: _mtia(name) for name in MTIA}


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
