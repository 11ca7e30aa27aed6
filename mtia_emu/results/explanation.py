"""Why a model took the time that it took: plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from .report import Layer, Report
from .roofs import Roofs
from .spans import seconds_by

SCHEMA = "mtia-emu.explain.v2"
STEP = 0.1  # of a parameter, where it can be had
Kind = Literal["repriced", "retimed", "recompiled"]


@dataclass(frozen=True)
class LayerTime:
    """One layer and where its time went.

    `parts` gives cycles by name in `bounds.BOUNDS`; they sum to the layer's own. `busy` gives, for each
    resource, the share of the layer's span without its launch in which its busiest instance worked, for
    layers beside it too where they share it; `roof_share` is the least time that the layer's multiply-adds,
    DRAM bytes and SRAM bytes need at the chip's peaks, of its span. Layers with equal `block` and `band` are
    runs of the same commands.
    """

    layer: Layer
    block: int
    parts: dict[str, float]
    busy: dict[str, float]
    roof_share: float
    band: int = 0

    @property
    def cycles(self) -> float:
        """Return the layer's own cycles, its launch included."""
        return self.layer.cycles

    @property
    def seconds_by_part(self) -> dict[str, float]:
        """Return the seconds of the layer by what they were spent on."""
        return {name: self.layer.track.seconds(cycles) for name, cycles in self.parts.items()}


@dataclass(frozen=True)
class ParameterStep:
    """One parameter and its better value: a tenth more, or less where less is better.

    A whole number moves by a tenth rounded to a coarser power of two, by one at least; a power of two that is
    the shape of an array or tile is doubled; a value with a limit moves no further than that.
    """

    key: str
    unit: str
    old: float
    new: float
    kind: Kind

    @property
    def fraction(self) -> float:
        """Return how far the value moves, of the old one, with its sign."""
        return (self.new - self.old) / self.old

    @staticmethod
    def shown(value: float) -> str:
        """Return a value of the parameter as people read it."""
        return f"{value:g}" if isinstance(value, float) or value < 1 << 20 else f"{value:.4g}"


@dataclass(frozen=True)
class Effect:
    """What a step does to the whole run, as fractions of its time and energy: below 0 it helps.

    Where the changed chip or its program is refused, `refused` says why and the changes are 0.
    """

    step: ParameterStep
    seconds_change: float = 0.0
    joules_change: float = 0.0
    refused: str = ""

    def per_tenth(self, change: float) -> float:
        """Return a change of this effect in proportion to a step of a tenth."""
        return change * STEP / abs(self.step.fraction)


@dataclass(frozen=True)
class Explanation:
    """A run, where its time went layer by layer, the chip's roofs, and what a better chip would change.

    `effects` is None where they were not asked for; `left_out` names the parameters that only a new
    compilation could judge, where the model is a compiled program.
    """

    report: Report
    roofs: Roofs
    layers: tuple[LayerTime, ...]
    effects: tuple[Effect, ...] | None = None
    left_out: tuple[str, ...] = ()

    @property
    def seconds_by_part(self) -> dict[str, float]:
        """Return the seconds of the run by what they were spent on, largest first; they sum to the whole."""
        parts = ((name, x.layer.track, n) for x in self.layers for name, n in x.parts.items())
        return {name: seconds for name, seconds in seconds_by(parts).items() if seconds}

    @property
    def said(self) -> list[str]:
        """Return what there is to say of the run, as of a slowed clock, and of what was not judged."""
        refused = [e for e in self.effects or () if e.refused]
        notes = list(dict.fromkeys(self.report.notes))
        notes += [f"{e.step.key} = {e.step.shown(e.step.new)} was refused: {e.refused}" for e in refused]
        if self.left_out:
            keys = ", ".join(self.left_out)
            notes.append(f"not judged, since a compiled program cannot be compiled anew: {keys}")
        return notes


def as_json(explanation: Explanation) -> dict[str, Any]:
    """Return the documented JSON object (`docs/howto/explain-a-model.md`)."""
    report = explanation.report
    head = ("model", "machine", "dtype", "dims", "clock_hz", "seconds", "joules", "utilization")
    values = {("chip" if name == "machine" else name): getattr(report, name) for name in head}
    effects = explanation.effects
    return {
        "schema": SCHEMA,
        **values,
        "seconds_by_part": explanation.seconds_by_part,
        "roofs": asdict(explanation.roofs),
        "layers": [_layer_json(x) for x in explanation.layers],
        "effects": None if effects is None else [_effect_json(e) for e in effects],
        "left_out": list(explanation.left_out),
        "notes": list(report.notes),
    }


def _layer_json(x: LayerTime) -> dict[str, Any]:
    names = ("name", "op", "kernel", "macs", "ops", "dram_bytes", "sram_bytes", "joules", "bound_by")
    return {name: getattr(x.layer, name) for name in names} | {
        "block": x.block,
        "band": x.band,
        "launch": x.layer.launch,
        "seconds": x.layer.seconds,
        "seconds_by_part": x.seconds_by_part,
        "busy": x.busy,
        "roof_share": x.roof_share,
    }


def _effect_json(e: Effect) -> dict[str, Any]:
    changes = {"seconds_change": e.seconds_change, "joules_change": e.joules_change, "refused": e.refused}
    return asdict(e.step) | changes
