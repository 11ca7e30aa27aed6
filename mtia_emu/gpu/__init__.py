"""The GPU reference: what the same work takes, in seconds and joules, on a published GPU.

Kernels from closed forms: tiles in waves over SMs for matmuls (`matmul.py`), fused attention
(`attention.py`), bytes at achievable bandwidth for the rest (`memory.py`), collectives (`collectives.py`),
under the board's power limit (`kernel.py`). Which nodes of a model are one kernel, the compiler says
(`types.WorkGroup`). It knows no model, no chip, no graph.
"""

from ..options import LAUNCHES, Mode
from .collectives import PASSES
from .facts import FALLBACK, Bands, Facts, Rate, Rates
from .load import gpu_names, gpu_text, load_gpu
from .machine import Gpu

__all__ = [
    "FALLBACK", "LAUNCHES", "PASSES", "Bands", "Facts", "Gpu", "Mode", "Rate", "Rates", "gpu_names",
    "gpu_text", "load_gpu",
]  # fmt: skip
