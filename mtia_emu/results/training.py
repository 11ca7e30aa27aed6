"""What training a model on a machine comes to: plain data."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .report import Layer, Report
from .whole_run import WholeRun

BACKWARD, OPTIMISER = (
    " (backward)",
    " (optimizer)",
)  # end the names of layers that are not of the forward pass
LINKS = "links"  # what bounds an exchange between chips
PHASES = ("forward", "backward", "optimizer")
SPREADS = 2.0  # estimate: sums in another order round at more places than first weights do


@dataclass(frozen=True)
class PeakMemory:
    """Bytes of memory by what they hold, at the moment of a step at which most is held.

    `activations` are what the forward pass made, `gradients` what came after it, `optimizer` its states with
    the masters of weights and sums of micro-batches, `data` the batch and constants. `capacity` is the memory
    that the machine has.
    """

    weights: int
    optimizer: int
    gradients: int
    activations: int
    data: int
    capacity: int

    @property
    def total(self) -> int:
        """Return the bytes of all kinds together."""
        return self.weights + self.optimizer + self.gradients + self.activations + self.data

    @property
    def fits(self) -> bool:
        """Return whether the machine has as much memory."""
        return self.total <= self.capacity


@dataclass(frozen=True)
class StagePeak:
    """Memory of a chip of a pipeline at its peak.

    `alive` are the most micro-batches that its stages hold at once, from forward to back, and `kept` the
    bytes that they hold of these; at the peak of all bytes it may be fewer.
    """

    name: str
    alive: int
    kept: int
    memory: PeakMemory


@dataclass(frozen=True)
class PipelineUse:
    """A step over the stages of a pipeline: `chips` one behind another, each with `chunks` stages.

    `idle_s` is what an average chip waits for others of the pipeline, of `busy_s` and that together.
    """

    schedule: str
    chips: int
    chunks: int
    batches: int
    busy_s: float
    idle_s: float
    peaks: tuple[StagePeak, ...]

    @property
    def bubble(self) -> float:
        """Return the time that chips wait, as a share of that in which they work."""
        return self.idle_s / self.busy_s if self.busy_s else 0.0

    @property
    def even_bubble(self) -> float:
        """Return the same of stages that are alike: (p - 1) / (m v) (Narayanan et al., 2021)."""
        return (self.chips - 1) / (self.batches * self.chunks)


@dataclass(frozen=True)
class Losses:
    """The losses of executed steps, beside those of an oracle where there is one.

    `tolerance` is of the largest loss expected. `skipped` are the steps, from 1, whose gradients were not
    finite: they changed nothing. `spread` is how far the oracle's own losses move where its first weights
    change by their last digit, of each step: asked where losses are beyond the tolerance.
    """

    losses: tuple[float, ...]
    expected: tuple[float, ...] = ()
    oracle: str = ""
    tolerance: float = 0.0
    skipped: tuple[int, ...] = ()
    spread: tuple[float, ...] = ()

    @property
    def error(self) -> float:
        """Return the largest difference from the oracle, as a share of its largest loss.

        It is infinite where a loss is not finite: no training goes on from there.
        """
        if not all(map(math.isfinite, (*self.losses, *self.expected))):
            return math.inf
        pairs = zip(self.losses, self.expected, strict=False)
        return max((abs(a - b) for a, b in pairs), default=0.0) / self.largest

    @property
    def largest(self) -> float:
        """Return the largest loss expected."""
        return max(map(abs, self.expected), default=0.0) or 1.0

    @property
    def within(self) -> bool:
        """Return whether no step is further from the oracle than the tolerance."""
        return bool(self.error <= self.tolerance)

    @property
    def chaotic(self) -> tuple[int, ...]:
        """Return the steps, from 1, whose loss a last digit of the weights moves beyond the tolerance."""
        return tuple(i for i, x in enumerate(self.spread, 1) if not x <= self.tolerance * self.largest)

    @property
    def passed(self) -> bool:
        """Return whether each step is as near to the oracle as allowed, or as what rounding does to it."""
        if self.within:
            return True
        if not self.spread or self.error == math.inf:
            return False
        limits = [self.tolerance * self.largest + SPREADS * x for x in self.spread]
        pairs = zip(self.losses, self.expected, limits, strict=True)
        return all(abs(a - b) <= limit for a, b, limit in pairs)


@dataclass(frozen=True)
class Training:
    """A training step on a machine, all its micro-batches together, and executed steps where there were any.

    `forward_macs` are the multiply-adds of the forward passes; `items` counts what a step learns from:
    `counted` says what that is, tokens or samples. `whole` is all of the training, where it was asked for.
    """

    report: Report
    gpu: Report | None
    memory: PeakMemory
    forward_macs: int
    parameters: int
    items: int
    counted: str
    losses: Losses | None = None
    whole: WholeRun | None = None
    pipeline: PipelineUse | None = None

    @property
    def items_per_s(self) -> float:
        """Return tokens (or samples) a second."""
        return self.items / self.report.seconds if self.report.seconds else 0.0

    @property
    def joules_per_item(self) -> float:
        """Return joules a token (or sample)."""
        return self.report.joules / self.items if self.items else 0.0

    @property
    def mfu(self) -> float:
        """Return model FLOP utilization: three times the forward pass, as a share of the peak in that time.

        That is what a step needs at least, without anything computed again (Chowdhery et al., PaLM, 2022).
        """
        return 3 * self.forward_macs / self.report.peak_macs if self.report.peak_macs else 0.0

    @property
    def hfu(self) -> float:
        """Return hardware FLOP utilization: what was multiplied, recomputation included, as that share."""
        return self.report.utilization

    @property
    def phases(self) -> dict[str, float]:
        """Return the seconds of each phase on a chip, the mean of a pipeline's, without exchanges."""
        chips = 1 if self.pipeline is None else self.pipeline.chips
        return {name: sum(x.seconds for x in self.layers_of(name)) / chips for name in PHASES}

    def layers_of(self, phase: str) -> list[Layer]:
        """Return the layers of a phase on a chip."""
        return [x for x in self.report.layers if x.bound_by != LINKS and phase_of(x.name) == phase]


def phase_of(layer: str) -> str:
    """Return which phase of a step a layer is of, by its name."""
    if layer.endswith(BACKWARD):
        return "backward"
    return "optimizer" if layer.endswith(OPTIMISER) else "forward"
