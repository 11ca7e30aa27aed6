"""What is computed: the same commands that are timed, one after another, on memories made of bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from .. import settings
from ..errors import UserError
from ..machine.chip import Chip
from ..machine.memories import Memory
from ..program.commands.base import Library
from ..program.isa import Binding, Block, Launch, Operand, Program
from ..program.text import dump_command
from .checked import CheckedRun
from .interpreter import BlockRun
from .lookups import Lookups
from .memory import MarkedMemory, MemoryView

if TYPE_CHECKING:
    from .traced import Held, TracedRun

Array = np.ndarray[Any, Any]
Run = TypeVar("Run", bound=BlockRun)


@dataclass
class Execution:
    """The outputs by name, in the model's own types, and what only data tell, by index of the launch.

    `lookups` are those of its POOL commands, `zero_macs` its multiply-adds with a zero operand, by
    dtype, one mapping a band of the launch's block; `turns` are the tables that its commands follow.
    """

    outputs: dict[str, Array] = field(default_factory=dict)
    lookups: dict[int, Lookups] = field(default_factory=dict)
    zero_macs: dict[int, tuple[dict[str, int], ...]] = field(default_factory=dict)
    turns: dict[int, Array] = field(default_factory=dict)


def execute(
    program: Program,
    chip: Chip,
    inputs: Mapping[str, Array],
    library: Library | None = None,
    progress: Callable[[int], None] | None = None,
    *,
    check: bool | None = None,
) -> Execution:
    """Run the program on the inputs (arrays by input name) and return its outputs.

    `library` gives the reference of each op that runs on a core; `check` poisons memory (None: as
    `settings.CHECK` says). Raises `UserError` for absent weights, missing or ill-shaped inputs, indices out
    of range, and programs larger than `settings.MEMORY`.
    """
    machine = Executor(program, chip, library or {}, check=check)
    machine.load(inputs)
    run = Execution()
    for index, launch in enumerate(program.launches):
        ran = machine.launch(launch)
        if ran.lookups:
            rows = ran.lookups
            run.lookups[index] = Lookups(np.array([len(x) for x in rows]), np.concatenate(rows))
        if ran.block.routed is not None:
            run.turns[index] = ran.block.routed.table
        if any(ran.zero_macs):
            run.zero_macs[index] = tuple(ran.zero_macs)
        if progress is not None:
            progress(index + 1)
    run.outputs = machine.outputs()
    return run


class Executor:
    """The memories of a chip, and the interpreter of commands."""

    def __init__(self, program: Program, chip: Chip, library: Library, *, check: bool | None = None) -> None:
        chip = chip.part(**program.chip.get("grid", chip.grid.model_dump()))
        self.program, self.chip, self.library = program, chip, library
        scratch, local, banks = (
            max((getattr(b, part) for b in program.blocks), default=0)
            for part in ("scratch_bytes", "local_bytes", "accumulator_bytes")
        )
        need = sum(program.memory_bytes.values()) + scratch + chip.pes * (local + banks)
        most = settings.integer(settings.MEMORY)
        if need > most:
            raise UserError(
                f"executing {program.model} needs {need} bytes of memory, at most {most} are allowed; "
                f"set {settings.MEMORY.name} higher, or only time it"
            )
        self.check = settings.integer(settings.CHECK) > 0 if check is None else check
        self.memory = {
            name: MarkedMemory.blank(size, check=self.check)
            for name, size in {**program.memory_bytes, Memory.SCRATCH: scratch}.items()
        }
        self.local = [MarkedMemory.blank(local, check=self.check) for _ in range(chip.pes)]
        self.banks = [MarkedMemory.blank(banks, check=self.check) for _ in range(chip.pes)]

    def load(self, inputs: Mapping[str, Array]) -> None:
        """Write constants and inputs to their places."""
        absent = [b.name for b in self.program.consts if b.name not in self.program.data]
        if absent:
            raise UserError(
                f"{self.program.model}: {len(absent)} weights are absent (first: %{absent[0]}); the model "
                "can be timed, not executed"
            )
        for binding in self.program.consts:
            data = self.program.data[binding.name]
            self._place(binding, data if isinstance(data, np.ndarray) else data.array(binding.name))
        missing = [b.name for b in self.program.inputs if b.name not in inputs]
        if missing:
            raise UserError(f"inputs missing: {', '.join(missing)} (given: {', '.join(inputs) or 'none'})")
        for binding in self.program.inputs:
            self._place(binding, np.asarray(inputs[binding.name]))

    def _place(self, binding: Binding, array: Array) -> None:
        if array.shape != binding.type.shape:
            raise UserError(
                f"%{binding.name}: given {array.dtype}{list(array.shape)}, compiled for {binding.model_type}"
            )
        view = self._tensor(binding)
        view.values[...] = convert(array, binding.type.dtype.numpy)
        if view.marks is not None:
            view.marks[...] = np.iinfo(view.marks.dtype).max

    def _tensor(self, binding: Binding) -> MemoryView:
        return self.memory[binding.space].operand(binding.operand, binding.address)

    def outputs(self) -> dict[str, Array]:
        """Return the outputs in the types that the model's user sees."""
        out = {}
        for binding in self.program.outputs:
            view = self._tensor(binding)
            if view.marks is not None and not view.marks.all():
                raise RuntimeError(
                    f"output %{binding.name}: {np.count_nonzero(view.marks == 0)} of {view.marks.size} "
                    "elements were never written"
                )
            with np.errstate(all="ignore"):
                out[binding.name] = view.values.astype(binding.model_type.dtype.numpy)
        return out

    def launch(self, launch: Launch) -> BlockRun:
        """Run one block; return it, with what was counted on the way."""
        return self._run(launch, CheckedRun if self.check else BlockRun)

    def trace(self, launch: Launch, hold: Mapping[int, Held]) -> TracedRun:
        """Run one block; return it, with what was noted on the way of who reads and writes what."""
        from .traced import TracedRun

        return self._run(launch, partial(TracedRun, hold=hold))

    def _run(self, launch: Launch, kind: Callable[..., Run]) -> Run:
        block = self.program.blocks[launch.block]
        views = [self._view(x, a, launch) for x, a in zip(block.operands, launch.addresses, strict=True)]
        if block.routed is not None:
            block = block.following(views[block.routed.operand].values.copy())
        run = kind(block, views, self.local, self.banks, self.chip, self.library)
        for store in (*self.local, *self.banks, self.memory[Memory.SCRATCH]):
            store.forget()
        with np.errstate(all="ignore"):  # a machine does not warn of infinities
            for index, command in enumerate(block.commands.tolist()):
                try:
                    run.step(command)
                except UserError as error:
                    raise UserError(f"{_place_of(launch)}: {error}") from None
                except (IndexError, ValueError) as error:
                    raise RuntimeError(f"{_place_of(launch)}: {_command(block, index)}: {error}") from error
        return run

    def _view(self, operand: Operand, address: int, launch: Launch) -> MemoryView:
        try:
            return self.memory[operand.space].operand(operand, address)
        except UserError as error:
            raise UserError(f"{launch.name}: {error}") from None


def _place_of(launch: Launch) -> str:
    return f"{launch.name} ({launch.op}{', ' + launch.origin if launch.origin else ''})"


def _command(block: Block, index: int) -> str:
    return f"command {index} `{dump_command(block.commands[index], block)}`"


def convert(array: Array, to: np.dtype[Any]) -> Array:
    """Return the array in another type and the same shape; a number too large for it becomes its largest."""
    with np.errstate(all="ignore"):
        out = np.asarray(array).astype(to)
    if array.dtype.kind == "f" and to.itemsize < array.dtype.itemsize and out.dtype.kind not in "iub":
        wild = np.isfinite(array) & ~np.isfinite(out.astype(np.float32))
        if wild.any():
            import ml_dtypes

            largest = np.asarray(ml_dtypes.finfo(to).max, to)
            out[wild] = np.where(array[wild] > 0, largest, -largest)
    return out
