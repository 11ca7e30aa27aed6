"""The GPU reference: what the same work takes, in seconds and joules, on a published GPU.

One kernel per `Work`, each from a closed form: tiles in waves over SMs for matmuls (`matmul.py`), bytes at
achievable bandwidth for the rest (`memory.py`), under the board's power limit (`kernel.py`). It knows no
model, no chip, no graph.
"""

from .facts import FALLBACK, Facts, Rate, Rates
from .load import gpu_names, gpu_text, load_gpu
from .machine import LAUNCHES, Gpu

__all__ = ["FALLBACK", "LAUNCHES", "Facts", "Gpu", "Rate", "Rates", "gpu_names", "gpu_text", "load_gpu"]
