"""Checkpoints as models: the decoder that a `config.json` describes, with a folder's values, or a GGUF file.

A model is written as the zoo writes its own: an ONNX file whose weights are absent where nothing is executed.
Where values are wanted they come from the folder's safetensors, or, with a `config.json` alone, are random.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .. import settings, zoo
from ..errors import UserError
from ..files.writing import valid
from ..zoo.llama import Llama
from .config import CONFIG, Config, config_file
from .families import FAMILIES, model_by, model_of
from .gguf import SUFFIX, PackedModel, packed_notes, read_gguf
from .gguf_config import config_values

if TYPE_CHECKING:
    import numpy as np

    from ..zoo.writer import Weight

__all__ = ["FAMILIES", "Checkpoint", "open_checkpoint"]


@dataclass(frozen=True)
class Checkpoint:
    """A decoder of a checkpoint, with every dimension bound; `packed` is the GGUF file that it is of."""

    name: str
    folder: Path
    model: Llama
    config: Config
    dims: dict[str, int]
    packed: PackedModel | None = None

    def build(self, folder: Path, seed: int | None) -> Path:
        """Write the ONNX file into a folder, with values where a seed is given; return its path.

        Raises `UserError` for values that are inconsistent with the config, packed, or larger than memory.
        """
        if seed is None or not self._has_values():
            return zoo.write_model(self.model, self.name, self.dims, folder, weights_seed=seed)
        writer = self.model.graph(self.name, self.dims)
        if writer.weight_bytes > settings.integer(settings.MEMORY):
            raise UserError(
                f"hf:{self.name}: executing it needs {zoo.megabytes(writer.weight_bytes)} of weights, more "
                f"than {settings.MEMORY.name} allows; leave out --check and --inputs to only time it"
            )
        from .weights import write_values

        path = writer.save(folder / f"{self.name}.onnx", None)
        write_values(folder / f"{self.name}.weights", writer.weights, self._values())
        return path

    def _has_values(self) -> bool:
        """Return whether there are values; raise `UserError` where they are in files that are not read."""
        from .safetensors import has_tensors, refuse_others

        if self.packed is not None:
            return True
        refuse_others(self.folder)
        return has_tensors(self.folder)

    def _values(self) -> Callable[[Weight], np.ndarray]:
        """Return what gives a weight's values; raise `UserError` for packings that are not read."""
        from .gguf_values import PackedValues
        from .packings import PACKINGS, PackedTensors
        from .safetensors import open_tensors
        from .weights import CheckpointValues

        if self.packed is not None:
            return PackedValues(self.packed, self.model, self.config)
        packing = self.config.quantization_config
        if packing is not None and packing.quant_method not in PACKINGS:
            raise UserError(
                f"hf:{self.name}: its values are packed by {packing.quant_method[:32]!r} and not read (read: "
                f"{', '.join(PACKINGS)}; leave out --check and --inputs to only time it)"
            )
        tensors = open_tensors(self.folder)
        if packing is not None:
            tensors = PackedTensors(tensors.folder, tensors.found, packing.weight_block_size)
        return CheckpointValues(tensors, self.model, self.config)

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what a user should know of the file: that its values are of fewer bits than are timed."""
        return packed_notes(self.packed) if self.packed else ()

    def example_inputs(self, seed: int) -> dict[str, np.ndarray]:
        """Return a random value for each graph input."""
        return self.model.example_inputs(self.dims, seed)


def open_checkpoint(name: str, dims: Mapping[str, int]) -> Checkpoint:
    """Return the decoder of a folder, a `config.json` or a GGUF file; dimensions replace its defaults.

    Raises `UserError` for what is wrong with the file, a model that we do not have, and dimensions.
    """
    place = Path(name)
    if place.suffix == SUFFIX and not place.is_dir():
        packed = read_gguf(place)
        model, config = model_by(config_values(packed), place, "GGUF")
        short = valid(place.stem)
        bound = zoo.bound_dims(model, short, dims)
        return Checkpoint(short, place.parent, model, config, bound, packed)
    path = config_file(place)
    model, config = model_of(path)
    folder = path.parent
    short = valid(_called(folder.resolve()) if path.name == CONFIG else path.stem)
    return Checkpoint(short, folder, model, config, zoo.bound_dims(model, short, dims))


def _called(folder: Path) -> str:
    """Return what a checkpoint is called: its folder's name, in the hub's cache the repository's."""
    home = folder.parent
    return home.parent.name.removeprefix("models--") if home.name == "snapshots" else folder.name or "model"
