"""The stretching of rotary wavelengths, by which a model is taken to longer contexts than it was trained on.

Each takes frequencies fp64[dim / 2], in radians a token, and the number of tokens in sight, and returns the
frequencies to turn by. Cosines and sines are then scaled by `wave_scale`.
Source of all: transformers, modeling_rope_utils.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np


class Stretching(Protocol):
    """What turns plain frequencies into those of a model."""

    @property
    def wave_scale(self) -> float: ...

    def __call__(self, frequencies: np.ndarray, tokens: int = 0) -> np.ndarray: ...


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """The stretching that Llama 3.1 brought (`rope_type` llama3)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_context: int
    wave_scale: float = 1.0

    def __call__(self, frequencies: np.ndarray, tokens: int = 0) -> np.ndarray:
        """Return frequencies with long waves slowed by `factor`, short ones kept, and a ramp between.

        Where both ends of the ramp are one, as in Llama 4 Scout, it is a step.
        """
        turns = self.original_context * frequencies / (2 * math.pi)
        ramp = self.high_freq_factor - self.low_freq_factor
        keep = (turns - self.low_freq_factor) / ramp if ramp else (turns >= self.low_freq_factor) * 1.0
        keep = np.clip(keep, 0.0, 1.0)
        return frequencies * (keep + (1.0 - keep) / self.factor)


@dataclass(frozen=True, kw_only=True)
class LinearScaling:
    """Positions divided by a factor (`rope_type` linear)."""

    factor: float
    wave_scale: float = 1.0

    def __call__(self, frequencies: np.ndarray, tokens: int = 0) -> np.ndarray:
        """Return all frequencies slowed by `factor`."""
        return frequencies / self.factor


@dataclass(frozen=True, kw_only=True)
class LongRope:
    """A divisor for each frequency, of which there are two sets (`rope_type` longrope, Phi-3)."""

    short: tuple[float, ...]
    long: tuple[float, ...]
    original_context: int
    wave_scale: float = 1.0
    long_wave_scale: float | None = None

    def __call__(self, frequencies: np.ndarray, tokens: int = 0) -> np.ndarray:
        """Return frequencies by the long set where more tokens are in sight than the first context had."""
        return frequencies / np.array(self.long if tokens > self.original_context else self.short)


def wave_scale_of(scaling: Stretching | None, tokens: int) -> float:
    """Return what cosines and sines are scaled by, with so many tokens in sight."""
    if isinstance(scaling, LongRope) and scaling.long_wave_scale and tokens > scaling.original_context:
        return scaling.long_wave_scale
    return scaling.wave_scale if scaling else 1.0


@dataclass(frozen=True, kw_only=True)
class Yarn:
    """The stretching by turns in the first context (`rope_type` yarn), of frequencies by `theta`.

    `score_scale` is by what DeepSeek's scores grow besides: (0.1 mscale ln(factor) + 1) squared (source:
    deepseek-ai/DeepSeek-V3 inference/model.py, MLA).
    """

    factor: float
    original_context: int
    theta: float
    fast: float = 32.0
    slow: float = 1.0
    mscale: float = 1.0
    truncate: bool = True
    wave_scale: float = 1.0

    def __call__(self, frequencies: np.ndarray, tokens: int = 0) -> np.ndarray:
        """Return frequencies [dim / 2]: those of few turns in the first context are slowed by `factor`."""
        count = len(frequencies)

        def place(turns: float) -> float:
            return count * math.log(self.original_context / (turns * 2 * math.pi)) / math.log(self.theta)

        low, high = place(self.fast), place(self.slow)
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, 2 * count - 1)
        ramp = np.clip((np.arange(count) - low) / max(high - low, 1e-3), 0.0, 1.0)
        return frequencies * (1 - ramp) + frequencies / self.factor * ramp

    @property
    def score_scale(self) -> float:
        """Return by what scores grow."""
        return growth(self.factor, self.mscale) ** 2


def growth(factor: float, mscale: float = 1.0) -> float:
    """Return 0.1 mscale ln(factor) + 1, which is 1 where nothing is stretched."""
    return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1.0 else 1.0
