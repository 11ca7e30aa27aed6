"""A training step spread over the chips of a system."""

from __future__ import annotations

from dataclasses import dataclass

from mtia_emu.compiler.gradients.step import TrainingStep
from mtia_emu.compiler.partition.mesh import parse_parallel
from mtia_emu.compiler.partition.pieces import StepPieces
from mtia_emu.compiler.partition.step import STAGES, split_step

from ..errors import UserError
from ..machine.chip import Chip
from ..system.load import changed_system
from .partition import Partition
from .staged_training import in_pieces
from .system_machine import SystemMachine


@dataclass(frozen=True)
class Spread:
    """Chips that share a step; `zero` is the stage of ZeRO (`split_step`), 0 for none."""

    machine: SystemMachine
    zero: int = 0

    def parts(self, step: TrainingStep) -> Partition:
        """Return the step split over the chips. Raises `UserError` where it cannot be."""
        split = split_step(step, self.machine.mesh, self.zero)
        return Partition(split.split, (split.stage,))

    def pieces(self, step: TrainingStep) -> StepPieces:
        """Return the step of several stages or micro-batches so. Raises `UserError` where it cannot be."""
        return in_pieces(step, self.machine.mesh, self.zero)


@dataclass(frozen=True)
class Sharing:
    """The chips that share a step, as a caller names them; without a system there is one chip."""

    system: str | None = None
    parallel: str | None = None
    zero: int = 0

    def __post_init__(self) -> None:
        """Refuse a stage that there is not, and what is said of many chips where there is one."""
        if self.zero not in (0, *STAGES):
            raise UserError(f"--zero {self.zero!r} (right: a stage, {', '.join(map(str, STAGES))})")
        if self.system is None and (self.zero or self.parallel is not None):
            raise UserError(
                f"--{'zero' if self.parallel is None else 'parallel'} is of chips that share a step "
                "(right: --system NAME too)"
            )


def spread(sharing: Sharing, settings: dict[str, object], changed: Chip | None) -> Spread:
    """Return the chips of a system that share a step; those of no `parallel` all do, in data parallel."""
    assert sharing.system is not None
    loaded = changed_system(sharing.system, settings, changed)
    mesh = parse_parallel(sharing.parallel or f"dp={len(loaded.chips)}")
    machine = SystemMachine(loaded, mesh, settings, changed=changed)
    if machine.is_gpu:
        raise UserError(
            f"--system {sharing.system} is of GPUs, which run no programs (right: a system of chips; "
            "--gpu has one of GPUs beside it)"
        )
    if sharing.zero and mesh.sizes["dp"] == 1:
        raise UserError(f"--zero shares out over dp, of which {mesh} has none (right: as in dp=2)")
    return Spread(machine, sharing.zero)
