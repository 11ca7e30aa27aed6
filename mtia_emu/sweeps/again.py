"""The command lines that do one design point again, outside of its sweep."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from typing import Any

from ..options import Options, declared, spelled
from .row import Row
from .spec import NO_SYSTEM, OVER, PARALLEL, SYSTEM, Spec, Workload

USES = {"compile", "run", "system"}  # of options that `mtia-emu run` takes


def commands(spec: Spec, row: Row) -> dict[str, str]:
    """Return, by a model's name, the command that runs it on a row's chip: time and joules are the row's.

    Paths are as in the spec, of the folder in which the sweep was begun. A chip that stands in a system in
    place of its own has the system's name and `--set` alone: where the sweep's base chip is another file's
    than the system's, the command says what the system's own comes to.
    """
    return {model.name: shlex.join(_words(spec, model, row)) for model in spec.model}


def _words(spec: Spec, model: Workload, row: Row) -> Iterator[str]:
    yield from ("mtia-emu", "run", model.model)
    for name, size in model.dims.items():
        yield from ("--dim", f"{name}={size}")
    over = str(row.params.get(SYSTEM, NO_SYSTEM)) != NO_SYSTEM
    if over:
        yield from (
            "--system",
            str(row.params[SYSTEM]),
            "--parallel",
            str(row.params.get(PARALLEL, OVER[PARALLEL])),
        )
    else:
        yield from ("--chip", spec.chip)
    for key, value in row.params.items():
        if key not in OVER:
            yield from ("--set", f"{key}={as_text(value)}")
    yield from _flags(spec.options(model))
    yield from ("--gpu", spec.gpu)


def _flags(options: Options) -> Iterator[str]:
    """Yield the flags of options that are not as `run` has them without."""
    for f, told in declared():
        value = getattr(options, f.name)
        if value == f.default or not USES & set(told.uses):
            continue
        on, _, off = spelled(f).partition("/")
        if isinstance(value, bool):
            yield on if value != told.negated else off or on
        else:
            yield from (on, str(value))


def as_text(value: Any) -> str:
    """Return a parameter's value as `--set` reads it."""
    return value if isinstance(value, str) else json.dumps(value)
