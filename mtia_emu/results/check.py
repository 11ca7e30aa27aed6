"""How far what a program computes is from what it should: of outputs, and layer by layer. Plain data."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Distance:
    """How far one output is from the oracle's; relative to the largest finite magnitude expected.

    `cosine` is the cosine of the angle between the two outputs as vectors, `sqnr_db` ten times the logarithm
    of the ratio of the expected output's energy to the error's. Each is None where it has no finite value: of
    zeros, of outputs that are not finite, of no error.
    """

    max_abs_error: float
    max_rel_error: float
    cosine: float | None = None
    sqnr_db: float | None = None


@dataclass(frozen=True)
class WrongCommand:
    """The first wrong command of a layer: its number in the layer's block (-1: none), and why it is wrong.

    It reads what an operand should not hold or nothing has written, or writes what is wrong in the result and
    stays there. `chain` are the commands that its values come from, itself last; `unlike` is the first of
    them that what made right parts of the result has no like of: a hint where the fault may lie.
    """

    index: int
    text: str
    why: str
    chain: tuple[str, ...] = ()
    unlike: str = ""


@dataclass(frozen=True)
class LayerCheck:
    """How far one layer is from its op's reference, on what the reference says that its operands hold.

    The relative error is of the largest magnitude expected. `compared` counts elements: 0 where no value of
    the model is what the layer writes.
    """

    name: str
    op: str
    kernel: str
    launch: int
    max_abs_error: float
    max_rel_error: float
    allowed: float
    compared: int
    command: WrongCommand | None = None

    @property
    def passed(self) -> bool:
        """Return whether the layer is within what is allowed."""
        return bool(self.max_rel_error <= self.allowed)


@dataclass(frozen=True)
class Check:
    """How far outputs are from those of the oracle named, the worst over all and each by name.

    `layers` are how far each is from its reference, where that was asked for.
    """

    max_abs_error: float
    max_rel_error: float
    tolerance: float
    outputs: dict[str, Distance] = field(default_factory=dict)
    oracle: str = ""
    layers: tuple[LayerCheck, ...] = ()

    @property
    def passed(self) -> bool:
        """Return whether every output is within tolerance, and every layer that was compared."""
        return bool(self.max_rel_error <= self.tolerance) and all(x.passed for x in self.layers)

    @property
    def first_wrong(self) -> LayerCheck | None:
        """Return the first layer that is wrong by itself."""
        return next((x for x in self.layers if not x.passed), None)
