"""Checkpoints of tiny models as folders, and what transformers computed for them (`make_oracle.py`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from tensor_values import tensor_values

ORACLE = np.load(Path(__file__).parents[1] / "data" / "transformers.npz")
NAMES = [key.removesuffix("/about") for key in ORACLE if key.endswith("/about")]


def about(name: str) -> dict[str, Any]:
    """Return a model's `config`, and `tensors`: the shapes of its checkpoint."""
    found: dict[str, Any] = json.loads(str(ORACLE[f"{name}/about"]))
    return found


TYPES = {
    "float32": "F32", "float16": "F16", "bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3", "uint8": "U8",
}  # fmt: skip


def save_mixed(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """Write a safetensors file of tensors of several types."""
    header, start = {}, 0
    for name, value in tensors.items():
        places = [start, start + value.nbytes]
        header[name] = {"dtype": TYPES[value.dtype.name], "shape": value.shape, "data_offsets": places}
        start += value.nbytes
    text = json.dumps(header).encode()
    data = b"".join(value.tobytes() for value in tensors.values())
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def save_tensors(path: Path, tensors: dict[str, np.ndarray], dtype: str = "F16") -> None:
    """Write a safetensors file, as its format says: a length, a header, the data."""
    header, start = {}, 0
    for name, value in tensors.items():
        header[name] = {"dtype": dtype, "shape": value.shape, "data_offsets": [start, start + value.nbytes]}
        start += value.nbytes
    text = json.dumps(header).encode()
    data = b"".join(value.tobytes() for value in tensors.values())
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def save_checkpoint(name: str, folder: Path) -> Path:
    """Write a model's folder."""
    found = about(name)
    (folder / "config.json").write_text(json.dumps(found["config"]))
    tensors = {key: tensor_values(key, shape) for key, shape in found["tensors"].items()}
    save_tensors(folder / "model.safetensors", tensors)
    return folder
