"""Values that safetensors pack: 8-bit floats with scales (DeepSeek-V3), and MXFP4 (GPT-OSS).

Names and layouts: transformers, integrations/finegrained_fp8.py and integrations/mxfp4.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import UserError
from .blocks import mxfp4
from .safetensors import CheckpointTensors

PACKINGS = ("fp8", "mxfp4")
FLOAT8 = ("F8_E4M3", "F8_E5M2")
SCALES = ("_scale_inv", "_scale")


@dataclass(frozen=True)
class PackedTensors(CheckpointTensors):
    """The tensors of a checkpoint, unpacked; `block` are rows and columns that share a scale."""

    block: list[int] | None = None

    def __getitem__(self, name: str) -> np.ndarray:
        """Return a tensor's values, fp32 where they are packed; raise `UserError` as others do."""
        if f"{name}_blocks" in self.found:
            return self._mxfp4(name)
        tensor = self.found.get(name)
        scale = next((name + end for end in SCALES if name + end in self.found), None)
        if tensor is None or tensor.dtype not in FLOAT8 or scale is None:
            return super().__getitem__(name)
        value = tensor.array().astype(np.float32)
        return value * self._spread(super().__getitem__(scale).astype(np.float32), value.shape, name)

    def _spread(self, scales: np.ndarray, shape: tuple[int, ...], name: str) -> np.ndarray:
        """Return scales of blocks, rows or a whole tensor so that they multiply its values."""
        if scales.size == 1:
            return scales.reshape(())
        if self.block and scales.ndim == len(shape) == 2:
            scales = scales.repeat(self.block[0], 0)[: shape[0]].repeat(self.block[1], 1)[:, : shape[1]]
        if scales.ndim != len(shape) or any(
            a not in (1, b) for a, b in zip(scales.shape, shape, strict=True)
        ):
            raise UserError(f"{self.folder}: scales of {name} are {list(scales.shape)} for {list(shape)}")
        return scales

    def _mxfp4(self, name: str) -> np.ndarray:
        """Return products of experts, [experts, inputs, outputs]: a byte has an element and the next."""
        blocks, scales = (self._bytes(f"{name}_{part}") for part in ("blocks", "scales"))
        if blocks.ndim != 4 or blocks.shape[:3] != scales.shape or blocks.shape[3] != 16:
            raise UserError(
                f"{self.folder}: {name}_blocks are {list(blocks.shape)}, its scales {list(scales.shape)} "
                "(right: [experts, outputs, blocks, 16] and the same without the last)"
            )
        codes = np.stack([blocks & 15, blocks >> 4], axis=-1).reshape(*blocks.shape[:3], 32)
        value = mxfp4(codes, scales)
        return value.reshape(*blocks.shape[:2], -1).swapaxes(1, 2)

    def _bytes(self, name: str) -> np.ndarray:
        tensor = self.found.get(name)
        if tensor is None or tensor.dtype != "U8":
            raise UserError(
                f"{self.folder}: {name} is {'absent' if tensor is None else tensor.dtype} (right: U8)"
            )
        return np.asarray(tensor.array())
