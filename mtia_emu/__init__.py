"""Compile ONNX models for an MTIA-like accelerator, execute the program, count cycles, traffic and joules.

The names below are stable; each is imported when it is first used, from its module, maybe as "module:name".
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Kernel": "compiler.user_kernels:UserKernel",
    "Outcome": "api",
    "TorchModel": "checkpoints.torch_module",
    "UserError": "errors",
    "compile_model": "api",
    "explain": "api",
    "fleet": "fleet.answer",
    "load_chip": "machine.chip",
    "load_gpu": "gpu",
    "load_program": "api",
    "run": "api",
    "save_program": "api",
    "serve": "serving.served",
    "sweep": "sweeps.run",
    "systolic_cycles": "machine.units.systolic",
    "train": "study.training",
    "training_step": "study.training",
    "use_kernels": "plugins.kernels",
}
__all__ = [
    "Kernel",
    "Outcome",
    "TorchModel",
    "UserError",
    "compile_model",
    "explain",
    "fleet",
    "load_chip",
    "load_gpu",
    "load_program",
    "run",
    "save_program",
    "serve",
    "sweep",
    "systolic_cycles",
    "train",
    "training_step",
    "use_kernels",
]

if TYPE_CHECKING:
    from mtia_emu.compiler.user_kernels import UserKernel as Kernel

    from .api import Outcome, compile_model, explain, load_program, run, save_program
    from .checkpoints.torch_module import TorchModel
    from .errors import UserError
    from .fleet.answer import fleet
    from .gpu import load_gpu
    from .machine.chip import load_chip
    from .machine.units.systolic import systolic_cycles
    from .plugins.kernels import use_kernels
    from .serving.served import serve
    from .study.training import train, training_step
    from .sweeps.run import sweep


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'mtia_emu' has no attribute {name!r}")
    module, _, own = _HOME[name].partition(":")
    return getattr(import_module(f"{__name__}.{module}"), own or name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
