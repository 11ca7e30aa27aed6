"""Models that are written rather than downloaded: ordinary ONNX files, with or without weights.

A full-size model is written without its weights: its initializers point into a data file that does not exist,
so Llama-3-70B is a file of under a megabyte that can be compiled and timed. A small one can also be written
with random weights, and then runs anywhere that ONNX runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError, refuse_unknown
from ..streams import Popularity
from .bags import BagTables
from .llama import SCORED, Llama
from .models import MODELS, ZooModel
from .writer import Fact, megabytes

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "Fact",
    "Popularity",
    "bound_dims",
    "build",
    "describe",
    "dims",
    "example_inputs",
    "input_shapes",
    "megabytes",
    "popularity",
    "write_model",
    "zoo_names",
]

MAX_STORED_BYTES = 512 * 2**20  # a file with weights must stay under protobuf's 2 GB, and on anyone's disk
MAX_DIM = 2**31 - 1


def zoo_names() -> list[str]:
    """Return the names of the models, smallest first within a family."""
    return list(MODELS)


def describe(name: str) -> dict[str, Fact]:
    """Return each parameter of a model with its value, its unit and where the value comes from."""
    return _model(name).facts()


def dims(name: str) -> dict[str, int]:
    """Return the dimensions that `build` binds, with the values it takes when they are not given."""
    return _model(name).default_dims()


def build(name: str, dims: Mapping[str, int], folder: Path, *, weights_seed: int | None = None) -> Path:
    """Write the model with these dimensions into `folder` and return the path of its ONNX file (opset 20).

    Dimensions that are not given take their default. The file name carries the dimensions and the seed.
    Without `weights_seed` the weights are absent; with it the file holds random ones, the same for all
    dimensions. Raise `UserError` for an unknown name or dimension, a size that cannot be, and more than
    512 MB of weights to store.
    """
    return write_model(_model(name), name, _bind(name, dims), folder, weights_seed=weights_seed)


def write_model(
    model: ZooModel, name: str, sizes: Mapping[str, int], folder: Path, *, weights_seed: int | None = None
) -> Path:
    """Write any model of a family of the zoo, with all its dimensions bound: see `build`."""
    writer = model.graph(name, dict(sizes))
    if weights_seed is not None:
        _check_storable(name, weights_seed, writer.weight_bytes)
    parts = [name, *(f"{dim}{size}" for dim, size in sizes.items())]
    if weights_seed is not None:
        parts.append(f"seed{weights_seed}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return writer.save(folder / f"{'-'.join(parts)}.onnx", weights_seed)


def example_inputs(name: str, dims: Mapping[str, int], seed: int = 0) -> dict[str, np.ndarray]:
    """Return a random value, of its type's shape and range, for each graph input of a model."""
    return _model(name).example_inputs(_bind(name, dims), seed)


def training_dims(name: str, dims: Mapping[str, int]) -> dict[str, int]:
    """Return dimensions for training: a language model's logits are those of all tokens, not of the last."""
    sizes = _bind(name, dims)
    return {SCORED: sizes["seq"], **dims} if isinstance(_model(name), Llama) else dict(dims)


def popularity(name: str) -> Popularity | None:
    """Return how unevenly a model's tables are looked up; None: every row alike, or there are none."""
    model = _model(name)
    return model.popularity if isinstance(model, BagTables) else None


def input_shapes(name: str, dims: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Return the shape of each graph input of the model built with these dimensions."""
    return {port.name: port.shape for port in _model(name).graph(name, _bind(name, dims)).inputs}


def _model(name: str) -> ZooModel:
    if name not in MODELS:
        raise refuse_unknown("model", name, MODELS)
    return MODELS[name]


def _bind(name: str, dims: Mapping[str, int]) -> dict[str, int]:
    return bound_dims(_model(name), name, dims)


def bound_dims(model: ZooModel, name: str, dims: Mapping[str, int]) -> dict[str, int]:
    """Return the default dimensions of a model with the given ones in their place, all checked."""
    sizes = model.default_dims()
    for dim, size in dims.items():
        known = sizes | (model.further_dims() if isinstance(model, Llama) else {})
        if dim not in known:
            raise refuse_unknown(f"dimension of {name}", dim, known)
        low = model.least_dims().get(dim, 1)
        if isinstance(size, bool) or not isinstance(size, int) or not low <= size <= MAX_DIM:
            right = f"an integer from {low} to {MAX_DIM}"
            raise UserError(f"{name}: dimension '{dim}' is {size!r}: it must be {right}")
        sizes[dim] = size
    return sizes


def _check_storable(name: str, seed: int, weight_bytes: int) -> None:
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise UserError(f"{name}: weights_seed is {seed!r}: it must be an integer of at least 0")
    if weight_bytes > MAX_STORED_BYTES:
        raise UserError(
            f"{name}: executing it needs {megabytes(weight_bytes)} of random weights, and at most "
            f"{megabytes(MAX_STORED_BYTES)} are made; only time it, or take llama-tiny or dlrm-small"
        )
