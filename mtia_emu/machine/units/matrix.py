"""The matrix unit of a processing element: MTIA's dot-product engine, or a bare systolic array.

One macro-command multiplies a[m,k] by b[k,n] out of local memory. A fold is one load of the stationary
operand: a block of b (ws) or of a (is), k down the rows; under os a block of the result is summed in place.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, Field, field_validator

from ...errors import UserError
from ...types import dtype

Array = np.ndarray[Any, Any]


def _ceil(a: Array, b: int) -> Array:
    return -(-a // b)


def _sizes(m: ArrayLike, k: ArrayLike, n: ArrayLike) -> tuple[Array, Array, Array]:
    return np.asarray(m, np.int64), np.asarray(k, np.int64), np.asarray(n, np.int64)


def _unit(name: str) -> dict[str, Any]:
    return {"unit": name}


class Matrix(BaseModel):
    """The matrix unit: how long a macro-command takes it, when its result is there, what it reads."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    rows: int = Field(gt=0, description="lanes along k, for 8-bit operands", json_schema_extra=_unit("lanes"))
    cols: int = Field(gt=0, description="lanes along n of one array", json_schema_extra=_unit("lanes"))
    arrays: int = Field(
        gt=0,
        description="arrays side by side, each on output columns of its own and reading operands of its own",
        json_schema_extra=_unit("arrays"),
    )
    dataflow: Literal["ws", "os", "is"] = Field(
        description="the operand that stays in the array: weights (b), outputs or inputs (a)",
        json_schema_extra=_unit("name"),
    )
    stationary_buffers: Literal[1, 2] = Field(
        description="1: a fold's load waits for the fold before it to drain; 2: it overlaps",
        json_schema_extra=_unit("buffers"),
    )
    skewed: bool = Field(
        description="true: operands move from lane to lane, which takes rows + cols - 2 cycles to fill and "
        "drain; false: they are broadcast",
        json_schema_extra=_unit("yes or no"),
    )
    fill_cycles: int = Field(
        ge=0,
        description="depth of the arithmetic pipeline, paid once by each result besides any skew",
        json_schema_extra=_unit("cycles"),
    )
    rates: dict[str, float] = Field(
        min_length=1,
        description="multiply rate of each supported dtype, as a share of the 8-bit rate",
        json_schema_extra=_unit("share"),
    )

    @field_validator("rates")
    @classmethod
    def _known(cls, rates: dict[str, float]) -> dict[str, float]:
        for name, rate in rates.items():
            try:
                dtype(name)
            except UserError as error:
                raise ValueError(str(error)) from None
            if rate <= 0:
                raise ValueError(f"the rate of {name} must be above 0, got {rate}")
        return rates

    def supports(self, dtype: str) -> bool:
        """Return whether the unit multiplies this dtype."""
        return dtype in self.rates

    def rate(self, dtype: str) -> float:
        """Return the dtype's share of the 8-bit rate; raise `UserError` for one that is not supported."""
        if dtype not in self.rates:
            raise UserError(f"the matrix unit does not multiply {dtype} (right: {', '.join(self.rates)})")
        return self.rates[dtype]

    def lanes(self, dtype: str) -> int:
        """Return the lanes along k for this dtype (ws, is): an element takes 1 / rate 8-bit lanes."""
        return max(1, int(round(self.rows * self.rate(dtype), 9)))

    def macs_per_cycle(self, dtype: str) -> float:
        """Return the peak multiply-adds a cycle."""
        if self.dataflow == "os":
            return self.rows * self.cols * self.arrays * self.rate(dtype)
        return float(self.lanes(dtype) * self.cols * self.arrays)

    def folds(self, m: ArrayLike, k: ArrayLike, n: ArrayLike, dtype: str) -> Array:
        """Return how many folds one after another commands take, sizes of any shape; `arrays` at a time."""
        m, k, n = _sizes(m, k, n)
        down, rows = (m, self.rows) if self.dataflow == "os" else (k, self.lanes(dtype))
        return _ceil(down, rows) * _ceil(_ceil(m if self.dataflow == "is" else n, self.cols), self.arrays)

    def busy(self, m: ArrayLike, k: ArrayLike, n: ArrayLike, dtype: str) -> Array:
        """Return the cycles for which the command keeps the unit from the next one; m, k, n >= 1, broadcast.

        One buffer: a fold is loaded, streamed and, where skewed, drained before the next; one skewed array
        so takes `systolic_cycles`. Two: a fold takes the longer of its stream and the load of the next (os:
        the drain of the one before); 32x32x32 int8 takes 32 x 32 lanes 32 cycles (MTIA, ISCA 2023, 3.1.2).
        """
        load, stream = self._load(dtype), self._stream(m, k, n, dtype)
        if self.stationary_buffers == 2:
            return self.folds(m, k, n, dtype) * np.maximum(stream, load)
        if self.dataflow == "os":  # SCALE-Sim ends a fold with its last multiply-add
            load = 0
        return self.folds(m, k, n, dtype) * (load + stream + self._skew(dtype))

    def latency(self, m: ArrayLike, k: ArrayLike, n: ArrayLike, dtype: str) -> Array:
        """Return the cycles from the command's start to its last result, for sizes of any shape.

        With two buffers the first load (the last stream, where that is shorter) and the skew are hidden from
        the commands before and after but not from this one's result: a single fold is as late as with one.
        """
        busy = self.busy(m, k, n, dtype) + self.fill_cycles
        if self.stationary_buffers == 1:
            return busy
        if self.dataflow == "os":
            return busy + self._skew(dtype)
        return busy + np.minimum(self._stream(m, k, n, dtype), self._load(dtype)) + self._skew(dtype)

    def cost(self, m: ArrayLike, k: ArrayLike, n: ArrayLike, dtype: str) -> tuple[Array, Array]:
        """Return the cycles that commands keep the unit, and from then to the last result; in any shape."""
        busy = self.busy(m, k, n, dtype)
        return busy, self.latency(m, k, n, dtype) - busy

    def operand_reads(self, m: ArrayLike, k: ArrayLike, n: ArrayLike, dtype: str) -> tuple[Array, Array]:
        """Return the words of a[m,k] and of b[k,n] that the command reads from local memory.

        The stationary operand is read once, a streaming one once for each fold across its other side (as
        SCALE-Sim counts); arrays do not share a stream.
        """
        self.rate(dtype)
        m, k, n = _sizes(m, k, n)
        a_words, b_words = m * k, k * n
        if self.dataflow != "is":
            a_words = a_words * _ceil(n, self.cols)
        if self.dataflow != "ws":
            b_words = b_words * _ceil(m, self.rows if self.dataflow == "os" else self.cols)
        return a_words, b_words

    def _load(self, dtype: str) -> int:
        return self.rows if self.dataflow == "os" else self.lanes(dtype)

    def _stream(self, m: ArrayLike, k: ArrayLike, n: ArrayLike, dtype: str) -> Array:
        if self.dataflow == "os":  # a slow dtype takes several cycles at each multiply-add
            return np.ceil(np.round(np.asarray(k) / self.rate(dtype), 9)).astype(np.int64)
        return np.asarray(m if self.dataflow == "ws" else n, np.int64)

    def _skew(self, dtype: str) -> int:
        return self._load(dtype) + self.cols - 2 if self.skewed else 0
