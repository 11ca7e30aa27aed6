"""The tables of the reference pages, made of what the code declares; a systolic array beside SCALE-Sim."""

from __future__ import annotations

import csv
import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from markdown_table import table

SCALESIM = Path(__file__).resolve().parents[1] / "tests" / "data" / "scalesim_cycles.csv"


def code(words: Iterable[object]) -> str:
    """Return words as code, separated by spaces."""
    return " ".join(f"`{word}`" for word in words)


def chips() -> str:
    """Return every parameter with its unit, meaning and value on each chip; then the sources of each chip."""
    from mtia_emu.machine.chip import chip_names
    from mtia_emu.study.listing import chip_parameters

    names = chip_names()
    return _parameters(names, {name: chip_parameters(name) for name in names})


def gpus() -> str:
    """Return the same for the GPUs."""
    from mtia_emu.gpu import gpu_names
    from mtia_emu.study.listing import gpu_parameters

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
    from mtia_emu.machine.units.simd import FUNCTIONS
    from mtia_emu.program.isa import COMMAND, COMMANDS, POOL_MODES, REDUCTION_NAMES, Cast, Shape

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
    from mtia_emu.cli.app import main

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
    if option.secondary_opts and option.default is not None:  # --x / --no-x
        default = (option.opts if option.default else option.secondary_opts)[0]
    names = ", ".join((*option.opts, *option.secondary_opts))
    spelt = f"`{names}{' ' + value if value else ''}`".replace("\\|", "|")
    return [spelt, f"`{default}`" if default != "" else "", option.help or ""]


def passes() -> str:
    """Return the default pipeline in order, each pass with its options and its contract."""
    from mtia_emu.compiler import pipeline

    from mtia_emu.machine.chip import load_chip
    from mtia_emu.types import FP16, FP32

    rows = []
    int8 = pipeline.FORMATS["int8"]
    mapping = pipeline.mapping_passes(load_chip("mtia-2i"))
    steps = (*pipeline.passes(FP32, FP16, quantise=int8), *mapping)
    for number, step in enumerate(steps, start=1):
        options = [f"{f.name}={f.default}" for f in fields(step) if f.default is not MISSING]
        rows.append([number, f"`{step.name}`", code(options), " ".join((type(step).__doc__ or "").split())])
    return table(["step", "pass", "options and defaults", "contract"], rows)


def groupings() -> str:
    """Return the passes that mark what a GPU runs as one kernel, in order, each with its contract."""
    from mtia_emu.compiler.pipeline import GPU_PASSES

    rows = [[f"`{type(step).__name__}`", " ".join((type(step).__doc__ or "").split())] for step in GPU_PASSES]
    return table(["pass", "contract"], rows)


def systolic() -> str:
    """Return the comparison of a systolic array, in closed form and stepped, with SCALE-Sim."""
    from mtia_emu.machine.units.systolic import sram_words, systolic_cycles

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

    from mtia_emu.machine.units.systolic import step

    rng = np.random.default_rng(0)
    a, b = rng.integers(-9, 9, (m, k)), rng.integers(-9, 9, (k, n))
    product, cycles, _ = step(a.astype(np.int8), b.astype(np.int8), **array)
    assert np.array_equal(product, a @ b)
    return cycles


def _csv(path: Path) -> list[dict[str, str]]:
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return list(csv.DictReader(lines))


SECTIONS: dict[str, Callable[[], str]] = {
    f.__name__.replace("_", "-"): f
    for f in (chips, gpus, ops, onnx_ops, commands, settings, cli, passes, groupings, systolic)
}
