"""PyTorch modules as models, by torch's own exporter to ONNX.

torch and onnxscript are an extra (`mtia-emu[torch]`) and imported where they are used.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError

Array = np.ndarray[Any, Any]
MISSING = "exporting a torch module needs {}: pip install 'mtia-emu[torch]'"
MOST_WORDS = 300  # characters of what torch says of a failure


@dataclass(frozen=True)
class TorchModel:
    """A module of torch and the arguments that it is called with: what is exported, and a check runs on.

    The module is taken as it is, its mode of training or evaluation included. Parameters on the device `meta`
    have no values: such a model can be timed.
    """

    module: Any
    args: Sequence[Any]

    @property
    def name(self) -> str:
        """Return the name of the module's class."""
        return type(self.module).__name__


def export_module(model: TorchModel, folder: Path) -> tuple[Path, dict[str, Array]]:
    """Write a module as ONNX; return the file and the value of each of its inputs, none where there are none.

    Raises `UserError` where the extra is not installed, or torch cannot export the module.
    """
    try:
        import torch
    except ImportError:
        raise UserError(MISSING.format("torch")) from None
    module, args, name = model.module, model.args, model.name
    if not isinstance(module, torch.nn.Module) or not isinstance(args, Sequence):
        raise UserError(f"TorchModel of {name}: right is a torch module and its arguments, (tensor, ...)")
    tensors = (*module.parameters(), *module.buffers())
    absent = any(tensor.is_meta for tensor in tensors)
    program = _exported(torch, module, tuple(args), name, absent)
    path = folder / "module.onnx"
    if absent:
        _without_values(program.model)
    program.save(str(path), external_data=not absent)
    return path, {} if absent else _inputs(torch, program.model, args, name)


def _exported(torch: Any, module: Any, args: tuple[Any, ...], name: str, absent: bool) -> Any:
    try:
        with _quietly():
            return torch.onnx.export(module, args, dynamo=True, verbose=False, optimize=not absent)
    except ImportError as error:
        raise UserError(MISSING.format(error.name or "onnxscript")) from None
    except Exception as error:  # whatever a module of the user's or torch's exporter may raise
        said = " ".join(str(error).split())[:MOST_WORDS]
        raise UserError(f"{name}: torch cannot export it: {type(error).__name__}: {said}") from None


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Leave out what the exporter says of packages that it does not find."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def _without_values(model: Any) -> None:
    """Let weights lie in a file that nobody writes."""
    import onnx_ir

    offset = 0
    for name, value in model.graph.initializers.items():
        kind = value.const_value
        place = {"location": "absent.weights", "offset": offset, "length": kind.nbytes}
        value.const_value = onnx_ir.ExternalTensor(**place, dtype=kind.dtype, shape=kind.shape, name=name)
        offset += kind.nbytes


def _inputs(torch: Any, model: Any, args: Sequence[Any], name: str) -> dict[str, Array]:
    """Return the tensors in `args`, in order, by the names of the model's inputs."""
    flat = torch.utils._pytree.tree_leaves(tuple(args))
    tensors = [x for x in flat if isinstance(x, torch.Tensor)]
    names = [value.name for value in model.graph.inputs]
    if len(tensors) != len(names):
        raise UserError(
            f"{name}: the exported model has {len(names)} inputs ({', '.join(names)}), args {len(tensors)} "
            "tensors (right: tensors that the module uses)"
        )
    return {n: x.detach().cpu().numpy() for n, x in zip(names, tensors, strict=True)}
