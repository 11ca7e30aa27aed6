"""The ranges of values over sample inputs, from which activations get fixed scales."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mtia_emu.errors import UserError
from mtia_emu.files.npz import read_npz

from ..graph import Graph
from ..reference import evaluate
from .samples import random_inputs

Array = np.ndarray[Any, Any]
MOST_SAMPLES = 1024
OCTAVE = 32  # bins of a histogram for each doubling
LOWEST, HIGHEST = -48, 128  # powers of two that its bins span; what is smaller is as good as zero
MOST_CLIPPED = 1 / 8  # the least top that is tried, beside the largest magnitude


@dataclass
class Magnitudes:
    """How often finite magnitudes occur, in bins of equal ratio, and the largest of them."""

    largest: float = 0.0
    counts: Array = field(default_factory=lambda: np.zeros((HIGHEST - LOWEST) * OCTAVE))

    def add(self, values: Array) -> None:
        """Count the finite values of an array of any shape; zeros, which nothing rounds, are left out."""
        wide = np.abs(values.astype(np.float64))
        wide = wide[np.isfinite(wide) & (wide > 0)]
        self.largest = max(self.largest, float(wide.max(initial=0.0)))
        bins = np.floor((np.log2(wide) - LOWEST) * OCTAVE).astype(np.int64)
        np.add.at(self.counts, np.clip(bins, 0, len(self.counts) - 1), 1)

    def top(self, codes: int) -> float:
        """Return the magnitude which, as the largest of so many codes, makes the squared error least.

        What is larger is cut off, what is smaller is rounded: by its own size where it becomes 0, else by a
        step's uniform error, step^2 / 12.
        """
        (used,) = np.nonzero(self.counts)
        if not used.size:
            return self.largest
        counts, sizes = self.counts[used], 2.0 ** ((used + 0.5) / OCTAVE + LOWEST)
        tops = self.largest * np.linspace(1.0, MOST_CLIPPED, 113)
        steps = (tops / codes)[:, None]
        rounded = np.where(sizes < steps / 2, sizes, steps / np.sqrt(12))
        error = np.where(sizes > tops[:, None], sizes - tops[:, None], rounded) ** 2
        return float(tops[np.argmin(error @ counts)])


def magnitudes(
    graph: Graph, values: Collection[str], samples: Iterator[Mapping[str, Array]]
) -> dict[str, Magnitudes]:
    """Return the magnitudes that each value has over the samples, each one a set of inputs."""
    absent = [name for name, const in graph.consts.items() if not const.present]
    if absent:
        raise UserError(
            f"{len(absent)} weights are absent (first: %{absent[0]}), so nothing can be calibrated"
        )
    ranges = {name: Magnitudes() for name in values}

    def note(name: str, array: Array) -> None:
        if name in ranges:
            ranges[name].add(array)

    for inputs in samples:
        for name, array in inputs.items():
            note(name, array)
        evaluate(graph, inputs, note)
    return ranges


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
    from mtia_emu.program.inputs import input_arrays

    given, typed = input_arrays(arrays), {}
    for name, kind in graph.inputs.items():
        if name not in given or given[name].shape != kind.shape:
            got = f"has {list(given[name].shape)}" if name in given else "is not there"
            raise UserError(f"calibrate {spelling}: input {name} : {kind} {got}")
        if kind.dtype.is_float and np.isnan(given[name].astype(np.float32)).any():
            raise UserError(f"calibrate {spelling}: input {name} holds NaN (right: numbers)")
        typed[name] = given[name].astype(kind.dtype.numpy)
    return typed
