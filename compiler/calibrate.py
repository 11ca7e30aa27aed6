"""The ranges of values over sample inputs, from which activations get fixed scales."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from mtia_emu.arrays import read_npz
from mtia_emu.errors import UserError

from .graph import Graph
from .reference import evaluate
from .samples import random_inputs

Array = np.ndarray[Any, Any]
MOST_SAMPLES = 1024


def ranges(graph: Graph, values: Collection[str], samples: Iterator[Mapping[str, Array]]) -> dict[str, float]:
    """Return the largest finite magnitude that each value has over the samples, each one a set of inputs."""
    absent = [name for name, const in graph.consts.items() if not const.present]
    if absent:
        raise UserError(
            f"{len(absent)} weights are absent (first: %{absent[0]}), so nothing can be calibrated"
        )
    tops = dict.fromkeys(values, 0.0)

    def note(name: str, array: Array) -> None:
        if name in tops:
            wide = np.abs(array.astype(np.float32))
            tops[name] = max(tops[name], float(wide[np.isfinite(wide)].max(initial=0.0)))

    for inputs in samples:
        for name, array in inputs.items():
            note(name, array)
        evaluate(graph, inputs, note)
    return tops


def samples_of(graph: Graph, spelling: str) -> Iterator[Mapping[str, Array]]:
    """Yield sets of inputs: as many seeded random ones as a number says, or the one in a file `.npz`.

    Raises `UserError` for other text, and for arrays that do not fit the graph's inputs.
    """
    if spelling.isascii() and spelling.isdigit():
        count = int(spelling)
        if not 1 <= count <= MOST_SAMPLES:
            raise UserError(f"calibrate {spelling}: not a number of samples (right: 1 to {MOST_SAMPLES})")
        yield from (random_inputs(graph, seed) for seed in range(count))
        return
    if not spelling.endswith(".npz"):
        raise UserError(f"calibrate {spelling!r}: neither a number of samples nor a file .npz")
    yield _typed(graph, read_npz(spelling), spelling)


def _typed(graph: Graph, arrays: Mapping[str, Array], spelling: str) -> dict[str, Array]:
    """Return the inputs in the types that the graph has by now; raise `UserError` where one does not fit."""
    from mtia_emu.arrays import input_arrays

    given, found = input_arrays(arrays), {}
    for name, kind in graph.inputs.items():
        if name not in given or given[name].shape != kind.shape:
            got = f"has {list(given[name].shape)}" if name in given else "is not there"
            raise UserError(f"calibrate {spelling}: input {name} : {kind} {got}")
        found[name] = given[name].astype(kind.dtype.numpy)
    return found
