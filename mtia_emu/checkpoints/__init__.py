"""Checkpoints of transformers as models: the decoder that a `config.json` describes, with a folder's values.

A model is written as the zoo writes its own: an ONNX file whose weights are absent where nothing is executed.
Where values are wanted they come from the folder's safetensors, or, with a `config.json` alone, are random.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .. import settings, zoo
from ..errors import UserError
from ..files.writing import valid
from ..zoo.llama import Llama
from .config import CONFIG, Config, config_file
from .families import FAMILIES, model_of

if TYPE_CHECKING:
    import numpy as np

__all__ = ["FAMILIES", "Checkpoint", "open_checkpoint"]


@dataclass(frozen=True)
class Checkpoint:
    """A decoder of a checkpoint, with every dimension bound."""

    name: str
    folder: Path
    model: Llama
    config: Config
    dims: dict[str, int]

    def build(self, folder: Path, seed: int | None) -> Path:
        """Write the ONNX file into a folder, with values where a seed is given; return its path.

        Raises `UserError` for values that are inconsistent with the config, packed, or larger than memory.
        """
        from .safetensors import has_tensors, open_tensors, refuse_others
        from .weights import CheckpointValues, write_values

        if seed is not None:
            refuse_others(self.folder)
        if seed is None or not has_tensors(self.folder):
            return zoo.write_model(self.model, self.name, self.dims, folder, weights_seed=seed)
        packed = self.config.quantization_config
        if packed is not None:
            raise UserError(
                f"hf:{self.name}: its values are packed by {packed.quant_method[:32]!r} and not read (right: "
                "leave out --check and --inputs to only time it, or give its config.json alone)"
            )
        writer = self.model.graph(self.name, self.dims)
        if writer.weight_bytes > settings.integer(settings.MEMORY):
            raise UserError(
                f"hf:{self.name}: executing it needs {zoo.megabytes(writer.weight_bytes)} of weights, more "
                f"than {settings.MEMORY.name} allows; leave out --check and --inputs to only time it"
            )
        path = writer.save(folder / f"{self.name}.onnx", None)
        values = CheckpointValues(open_tensors(self.folder), self.model, self.config)
        write_values(folder / f"{self.name}.weights", writer.weights, values)
        return path

    def example_inputs(self, seed: int) -> dict[str, np.ndarray]:
        """Return a random value for each graph input."""
        return self.model.example_inputs(self.dims, seed)


def open_checkpoint(name: str, dims: Mapping[str, int]) -> Checkpoint:
    """Return the decoder of a folder, or of a `config.json`, with dimensions in place of its defaults.

    Raises `UserError` for what is wrong with the file, a model that we do not have, and dimensions.
    """
    place = Path(name)
    path = config_file(place)
    model, config = model_of(path)
    folder = path.parent
    short = valid(_called(folder.resolve()) if path.name == CONFIG else path.stem)
    return Checkpoint(short, folder, model, config, zoo.bound_dims(model, short, dims))


def _called(folder: Path) -> str:
    """Return what a checkpoint is called: its folder's name, in the hub's cache the repository's."""
    home = folder.parent
    return home.parent.name.removeprefix("models--") if home.name == "snapshots" else folder.name or "model"
