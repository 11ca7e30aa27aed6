"""What would help: a program's time and energy on a chip on which one parameter is a tenth better."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel

from ..errors import UserError
from ..machine.chip import Chip, load_chip, put, validate
from ..results.explanation import STEP, Effect, Kind, ParameterStep
from ..results.report import Report

Vary = Callable[[str, int | float], Chip]

LESS = {"s", "cycles", "pJ", "W", "V", "C", "pF"}  # units of which less is better, also by the byte or row
# shapes of arrays and tiles: powers of two stay so, or tiles misfit
SHAPES = {"lanes", "rows", "columns", "banks", "lines"}
OUTSIDE = ("package.", "system.", "network.")  # keys of what stands beside and around the chip
PRICES = "energy."  # keys of what changes no time
# sizes that a program's tiles and addresses depend on: with those the model is compiled anew
SIZES = {"B", "PEs", "arrays", "share"} | SHAPES
FACTS = {  # of a chip as it is, or of its prices; changing them builds no other chip
    *("node_nm", "die_mm2", "typical_w"),
    "energy.price_voltage_v",
    *("power.nominal_hz", "power.threshold_v", "power.alpha", "power.least_v", "power.most_v"),
}
LIMIT = "tdp_w"  # more of it is better: no cost, though in watts
GRAIN = "_bytes"  # what a memory is divided in, such as a burst: its keys end so, a capacity is `bytes`


def steps(chip: Chip, dtypes: Collection[str]) -> tuple[ParameterStep, ...]:
    """Return a step for each numeric parameter of a chip that has room to get better, in the file's order.

    Of rates and prices that are given by dtype, those of `dtypes` and fp32, in which the SIMD engine works.
    """
    used = {*dtypes, "fp32"}
    candidates = (_step(*parameter) for parameter in _parameters(chip, "", used))
    return tuple(step for step in candidates if step is not None)


def _parameters(model: BaseModel, prefix: str, dtypes: Collection[str]) -> Iterator[tuple[str, Any, Any]]:
    """Yield key, value and field of every parameter; entries of a table by dtype apart."""
    for name, info in type(model).model_fields.items():
        key, value = prefix + name, getattr(model, name)
        if isinstance(value, BaseModel):
            yield from _parameters(value, f"{key}.", dtypes)
        elif isinstance(value, dict):
            yield from ((f"{key}.{part}", x, info) for part, x in value.items() if part in dtypes)
        else:
            yield key, value, info


def _step(key: str, old: Any, info: Any) -> ParameterStep | None:
    unit = str((info.json_schema_extra or {}).get("unit", ""))
    number = isinstance(old, (int, float)) and not isinstance(old, bool)
    chosen = getattr(info.annotation, "__origin__", None) is Literal  # a choice, not an amount
    if not number or not old or chosen or key in FACTS or key.endswith(GRAIN):
        return None
    if key.startswith(OUTSIDE):
        return None
    double = unit in SHAPES and math.log2(old).is_integer()
    new = 2 * old if double else better(old, less=less_is_better(unit) and key != LIMIT)
    most = next((m.le for m in info.metadata if hasattr(m, "le")), math.inf)
    new = min(new, most)
    return ParameterStep(key, unit, old, new, _kind(key, unit)) if new != old else None


def _kind(key: str, unit: str) -> Kind:
    if key.startswith(PRICES) or key == LIMIT:
        return "repriced"
    return "recompiled" if unit in SIZES else "retimed"


def less_is_better(unit: str) -> bool:
    """Return whether a parameter of that unit of measure is a cost."""
    return unit.partition("/")[0] in LESS


def better(old: int | float, *, less: bool) -> int | float:
    """Return a positive number a tenth larger, or smaller with `less`; `ParameterStep` has whole numbers."""
    sign = -1 if less else 1
    if isinstance(old, float):
        return float(f"{old * (1 + sign * STEP):.6g}")
    tenth = old * STEP
    grain = 1 << max(0, math.floor(math.log2(tenth)))
    return old + sign * max(grain, round(tenth / grain) * grain)


def varied(chip: str | Chip, settings: Mapping[str, object] | None = None) -> Vary:
    """Return what gives a chip with another value of one parameter, by its key.

    Of a name or file it is the chip that a run with that setting has: what the file leaves to its memory
    follows. Of a chip that was made before, all else stays as it is.
    """

    def vary(key: str, value: int | float) -> Chip:
        if not isinstance(chip, Chip):
            return load_chip(chip, {**(settings or {}), key: value})
        values = chip.model_dump()
        put(values, key, value)
        return validate(values, chip.name)

    return vary


def effects(
    todo: Sequence[ParameterStep], base: Report, found: Sequence[Report | UserError]
) -> tuple[Effect, ...]:
    """Return the effect of each step on the run that `base` reports, the largest change of time first.

    `found` are the reports of the same model on the changed chips, or what refused them. Changes are ranked
    in proportion to a step of a tenth. Equal changes of time stand in order of the change of energy, then as
    in `todo`.
    """
    seen = [_effect(step, base, report) for step, report in zip(todo, found, strict=True)]
    return tuple(
        sorted(seen, key=lambda e: [-abs(e.per_tenth(x)) for x in (e.seconds_change, e.joules_change)])
    )


def _effect(step: ParameterStep, base: Report, found: Report | UserError) -> Effect:
    if isinstance(found, UserError):
        return Effect(step, refused=str(found))
    return Effect(step, _change(base.seconds, found.seconds), _change(base.joules, found.joules))


def _change(old: float, new: float) -> float:
    return new / old - 1 if old else 0.0
