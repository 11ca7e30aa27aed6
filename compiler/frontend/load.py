"""The door of the frontend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mtia_emu.errors import UserError
from mtia_emu.types import TensorType

from ..graph import Graph
from .devices import read_devices
from .dims import bind
from .files import initializers, read
from .importer import Importer
from .notes import notes


def load(
    path: str | Path,
    dims: Mapping[str, int] | None = None,
    *,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    values: Mapping[str, np.ndarray] | None = None,
    allow_missing_weights: bool = True,
) -> Graph:
    """Return the graph of an ONNX file, with static shapes.

    `dims` gives sizes to symbolic dimensions, by name or as `input:axis`; `input_shapes` gives whole shapes,
    which win over the file's own. Inputs in `values` become constants; so do those with a default (an
    initializer of their name) that neither `values` nor `input_shapes` name. Weights whose external file is
    not there become constants without data, unless `allow_missing_weights` is false.

    Raises `UserError` for files that are not ONNX, that point outside their folder, whose dimensions are not
    all bound, and for operators that we do not have (all of them at once).
    """
    path = Path(path)
    model = read(path)
    given = InputBindings(dims or {}, input_shapes or {}, values or {})
    return import_model(model, path, given, allow_missing_weights)


@dataclass(frozen=True)
class InputBindings:
    """What is said of a model's inputs: sizes of dimensions, whole shapes, values that become constants.

    `sequences` gives the types of the tensors in each input that is a sequence, None for an empty optional.
    """

    dims: Mapping[str, int] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    values: Mapping[str, np.ndarray] = field(default_factory=dict)
    sequences: Mapping[str, Sequence[TensorType] | None] = field(default_factory=dict)


def import_model(model: Any, path: Path, given: InputBindings, allow_missing_weights: bool = False) -> Graph:
    """Return the graph of a ModelProto; `path` is where its external data would be. See `load`."""
    shapes = dict(given.shapes) | {name: array.shape for name, array in given.values.items()}
    stored = (initializers(model.graph).keys() - shapes.keys()) | set(given.sequences)
    inputs = [i for i in model.graph.input if i.name not in stored]
    types = bind(inputs, dict(given.dims), shapes)
    importer = Importer(model, path, allow_missing_weights)
    try:
        graph = importer.run(types, given.values, given.sequences)
    except RecursionError:
        raise UserError(f"{path}: graphs are nested too deeply") from None
    return graph.with_notes((*graph.notes, *notes(model, types))).with_devices(read_devices(model))
