"""One parameter of a sweep: the values that it takes, as a list or as a range."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from ..errors import UserError

MOST_VALUES = 100_000  # of one parameter
LONGEST = 40  # characters of a number
_RANGE = re.compile(
    r"(?P<low>[^.\s][^\s]*?)\s*\.\.\s*(?P<high>[^.\s][^\s]*)(?:\s+step\s+(?P<times>x?)\s*(?P<step>\S+))?"
    r"(?:\s+(?P<log>log))?"
)
RIGHT = 'a list [16, 32], or a range "16..128 step 16", "16..128 step x2", "1e9..8e9", "1e9..8e9 log"'


@dataclass(frozen=True)
class Axis:
    """A parameter and its values, or (`values` empty) the range `low` to `high` that samples fall in."""

    key: str
    values: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False

    @property
    def whole(self) -> bool:
        """Return whether a range is of whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def at(self, share: float) -> Any:
        """Return the value at a share of the way along the axis, 0 <= share < 1."""
        if self.values:
            return self.values[min(int(share * len(self.values)), len(self.values) - 1)]
        if self.whole and not self.log:
            return min(int(self.low) + int(share * (int(self.high) - int(self.low) + 1)), int(self.high))
        value = (
            self.low * (self.high / self.low) ** share
            if self.log
            else self.low + share * (self.high - self.low)
        )
        value = min(max(value, self.low), self.high)
        return round(value) if self.whole else float(f"{value:.12g}")


def axis(key: str, given: Any) -> Axis:
    """Return the axis that a list, a single value or the text of a range stands for.

    Raises `UserError` for an empty list or range, a number that is not finite, or a value given twice.
    """
    if isinstance(given, str) and (match := _RANGE.fullmatch(given.strip())):
        return _range(key, given, match)
    values = tuple(given) if isinstance(given, list | tuple) else (given,)
    if not values:
        raise UserError(f"parameter '{key}' has no values (right: {RIGHT})")
    for value in values:
        if not isinstance(value, bool | int | float | str):
            raise UserError(f"parameter '{key}': {value!r} is not a value (right: {RIGHT})")
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"parameter '{key}': {value} is not a number that a chip can have")
    if len({(type(v), v) for v in values}) < len(values):
        raise UserError(f"parameter '{key}' has a value twice: {list(values)}")
    return _few(key, values)


def _few(key: str, values: tuple[Any, ...]) -> Axis:
    if len(values) > MOST_VALUES:
        raise UserError(f"parameter '{key}' has {len(values)} values, at most {MOST_VALUES} are taken")
    return Axis(key, values)


def _range(key: str, text: str, match: re.Match[str]) -> Axis:
    low, high = _number(key, text, match["low"]), _number(key, text, match["high"])
    if low > high:
        raise UserError(f"parameter '{key}': the range {text!r} is empty: {low} is above {high}")
    if match["step"] is None:
        if match["log"] and low <= 0:
            raise UserError(f"parameter '{key}': {text!r}: a logarithmic range starts above 0")
        return Axis(key, (), low, high, bool(match["log"])) if low < high else Axis(key, (low,))
    if match["log"]:
        raise UserError(f"parameter '{key}': {text!r}: a range has a step or is logarithmic (step x2: both)")
    step, times = _number(key, text, match["step"]), bool(match["times"])
    if step <= (1 if times else 0) or (times and low <= 0):
        raise UserError(f"parameter '{key}': the step of {text!r} does not lead from {low} to {high}")
    count = (math.log(high / low) / math.log(step) if times else (high - low) / step) + 1e-9
    if count > MOST_VALUES:
        raise UserError(
            f"parameter '{key}': {text!r} has {count:.3g} values, at most {MOST_VALUES} are taken"
        )
    values = [low * step**i if times else low + step * i for i in range(int(count) + 1)]
    return _few(key, tuple(v if isinstance(v, int) else float(f"{v:.12g}") for v in values))


def _number(key: str, text: str, word: str) -> Any:
    if len(word) > LONGEST:
        raise UserError(f"parameter '{key}': a number of {len(word)} characters (right: at most {LONGEST})")
    try:
        return int(word)
    except ValueError:
        pass
    try:
        value = float(word)
    except ValueError:
        raise UserError(f"parameter '{key}': {word!r} in {text!r} is not a number (right: {RIGHT})") from None
    if not math.isfinite(value):
        raise UserError(f"parameter '{key}': {word} in {text!r} is not a number that a chip can have")
    return value
