"""A step table for tests whose costs can be worked out by hand."""

from __future__ import annotations

import numpy as np

from mtia_emu.serving.step_table import GroupedSteps, TableFacts
from mtia_emu.serving.surfaces import Curve, MixedRatio, Surface

FACTS = TableFacts("toy", "toy-model", "fp16", "by hand", 1 << 20, 1 << 10, 16, 1 << 9, 5.0)
CHUNKS, PASTS = np.array([1.0, 16, 64]), np.array([0.0, 64, 256])
DECODES, CONTEXTS = np.array([1.0, 8, 32]), np.array([1.0, 64, 512])


def columns(seconds: np.ndarray) -> np.ndarray:
    """Return seconds, 10 J each of them, and errors of 1 % of them."""
    return np.stack([seconds, 10 * seconds, 0.01 * seconds], axis=-1)


def toy_table(mixed: MixedRatio | None = None) -> GroupedSteps:
    """Return a table: 1 + tokens, 2 x sequences, chunk x past, and a key a second of decodes."""
    tokens, sequences = np.array([1.0, 32, 128]), np.array([1.0, 32])
    return GroupedSteps(
        FACTS,
        Curve(tokens, columns(1 + tokens)),
        Curve(sequences, columns(2 * sequences)),
        Surface(CHUNKS, PASTS, columns(np.outer(CHUNKS, PASTS + 1))),
        Surface(DECODES, CONTEXTS, columns(np.outer(DECODES, CONTEXTS))),
        mixed,
    )


def constant_ratio(ratio: float) -> MixedRatio:
    """Return a mixed ratio that is the same everywhere."""
    return MixedRatio((CHUNKS, PASTS, DECODES, CONTEXTS), np.full((3, 3, 3, 3), ratio))
