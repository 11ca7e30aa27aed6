"""The indexes of the reference pages, made of what the code declares; a systolic array beside SCALE-Sim.

A page has the names, each with a line. What the command line prints in full (`mtia-emu chips NAME`,
`--help`) or the source says beside the name (the contract of a pass) is not printed a second time.
"""

from __future__ import annotations

import csv
import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_args

from markdown_table import table
from pydantic import BaseModel

MANY = 64  # operands: an op that takes so many takes any number
SCALESIM = Path(__file__).resolve().parents[1] / "tests" / "data" / "scalesim_cycles.csv"


def code(words: Iterable[object]) -> str:
    """Return words as code, separated by spaces."""
    return " ".join(f"`{word}`" for word in words)


def chips() -> str:
    """Return the parts of a chip's file, a line each."""
    from mtia_emu.machine.chip import Chip

    return _tables_of(Chip)


def gpus() -> str:
    """Return the parts of a GPU's file, a line each."""
    from mtia_emu.gpu.facts import Facts

    return _tables_of(Facts)


def _tables_of(model: type[BaseModel]) -> str:
    """Return the tables of a TOML file that is read as `model` and their keys, alike ones in a row."""
    alike: dict[tuple[int, str], list[str]] = {}
    for name, keys, text in _parts(model, ""):
        alike.setdefault((keys, text), []).append(name or "(top)")
    return table(["table", "keys", "what"], [[code(names), *facts] for facts, names in alike.items()])


def _parts(model: type[BaseModel], name: str) -> Iterator[tuple[str, int, str]]:
    """Yield the dotted name of each table, how many keys it has and the contract of its class."""
    below = {key: part for key, info in model.model_fields.items() if (part := _part(info.annotation))}
    own = len(model.model_fields) - len(below)
    if own:
        yield name, own, _first_sentence(model)
    for key, part in below.items():
        yield from _parts(part, f"{name}.{key}".lstrip("."))


def _part(annotation: Any) -> type[BaseModel] | None:
    """Return the class of a field that is a table of its own, None for a key."""
    kinds = [annotation, *get_args(annotation)]
    return next((x for x in kinds if isinstance(x, type) and issubclass(x, BaseModel)), None)


def _first_sentence(what: object) -> str:
    """Return the first sentence of a docstring."""
    return re.split(r"(?<=\.) ", inspect.cleandoc(what.__doc__ or "").replace("\n", " "))[0]


def ops() -> str:
    """Return the ops of the graph: elementwise ones by name, the others with their meaning."""
    from mtia_emu.compiler.ops import OPS

    each = sorted(OPS.values(), key=lambda op: op.name)
    simple = [op for op in each if op.text == f"{op.name}, element by element"]
    rows = [
        [f"`{op.name}`", _span(op.arity), " ".join([*op.attrs, *(f"{a}?" for a in op.optional)]), op.text]
        for op in each
        if op not in simple
    ]
    names = code(op.name for op in simple)
    return f"{table(['op', 'operands', 'attributes', 'meaning'], rows)}\n\nElement by element: {names}."


def _span(arity: tuple[int, int]) -> str:
    """Return how many operands an op takes."""
    least, most = arity
    return str(least) if least == most else f"{least} or more" if most >= MANY else f"{least} to {most}"


def commands() -> str:
    """Return the command set, the record's fields, the multicasts and the functions of the SIMD engine."""
    from mtia_emu.machine.units.simd import FUNCTIONS
    from mtia_emu.program.commands import COMMANDS
    from mtia_emu.program.isa import COMMAND, POOL_MODES, REDUCTION_NAMES, Cast, Shape

    rows = [[int(k.opcode), f"`{k.opcode.name.lower()}`", k.unit, k.text] for k in COMMANDS.values()]
    record = " ".join(f"`{name}`:{COMMAND[name].name}" for name in COMMAND.names or ())
    alike: dict[tuple[int, int, str], list[str]] = {}
    for f in FUNCTIONS.values():
        alike.setdefault((f.arity, f.passes, f.result), []).append(f.name)
    functions = [[*facts, code(names)] for facts, names in sorted(alike.items())]
    return "\n\n".join(
        [
            table(["number", "command", "unit", "meaning"], sorted(rows)),
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
            table(["operands", "passes", "result", "functions"], functions),
        ]
    )


def exits() -> str:
    """Return the exit codes."""
    from mtia_emu.cli.output import EXITS

    return table(["code", "when"], [[f"`{code}`", when] for code, when in EXITS.items()])


def settings() -> str:
    """Return the environment variables."""
    from mtia_emu.settings import FLAGS

    return table(
        ["variable", "default", "meaning"],
        [[f"`{f.name}`", f"`{f.default}`" if f.default else "", f.text] for f in FLAGS],
    )


def cli() -> str:
    """Return the commands of the command line, a line each."""
    from mtia_emu.cli.app import main

    return table(["command", "what"], [[f"`mtia-emu {n}`", c.short_help] for n, c in main.commands.items()])


def passes() -> str:
    """Return the default pipeline in order, each pass with its options and its contract."""
    from mtia_emu.compiler import formats, pipeline

    from mtia_emu.machine.chip import load_chip
    from mtia_emu.types import FP16, FP32

    rows = []
    int8 = formats.FORMATS["int8"]
    mapping = pipeline.mapping_passes(load_chip("mtia-2i"))
    steps = (*pipeline.passes(FP32, FP16, quantise=int8), *mapping)
    for number, step in enumerate(steps, start=1):
        options = [f"{f.name}={f.default}" for f in fields(step) if f.default is not MISSING]
        rows.append([number, f"`{step.name}`", code(options), _first_sentence(step)])
    return table(["step", "pass", "options and defaults", "what"], rows)


def stages() -> str:
    """Return the stages of compilation: what each takes and gives, and on what it depends."""
    from mtia_emu.compiler.stages import STAGES

    from mtia_emu.options import Options

    rows = []
    for stage in STAGES:
        options = [name.replace("_", "-") for name, _ in Options().deciding(stage.name)]
        rows.append(
            [
                f"`{stage.name}`",
                f"{code(stage.takes)} -> `{stage.gives}`".lstrip(),
                code(options),
                "all" if stage.chip == ("*",) else code(stage.chip),
                "yes" if stage.memoised else "",
                stage.does,
            ]
        )
    return table(["stage", "takes -> gives", "options", "of the chip", "memoised", "what it does"], rows)


def markings() -> str:
    """Return the passes that mark what a GPU runs as one kernel, in order, each with what it does."""
    from mtia_emu.compiler.passes.groups import GPU_PASSES

    return table(["pass", "what"], [[f"`{type(x).__name__}`", _first_sentence(x)] for x in GPU_PASSES])


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
    for f in (chips, gpus, ops, commands, exits, settings, cli, passes, markings, stages, systolic)
}
