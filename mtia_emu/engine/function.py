"""What is computed: the same commands that are timed, one after another, on memories made of bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import settings
from ..chip import Chip
from ..errors import UserError
from ..isa import (
    COMMAND, FIRST, FUNCTION_NAMES, IMMEDIATE, POOL_MODES, REDUCTION_NAMES, VECTOR, Binding, Block, Cast, Launch, Op,
    Operand, Program, dump_command,
)
from ..numerics import tile_matmul
from ..units.simd import REDUCTIONS, compute

Array = np.ndarray[Any, Any]
Library = Mapping[str, Callable[[Sequence[Array], Mapping[str, Any]], Sequence[Array]]]
FIELDS = {name: i for i, name in enumerate(COMMAND.names or ())}
POISON = 0xA5


@dataclass
class Execution:
    """The outputs by name, in the model's own types, and what only data can tell: look-ups of each POOL command."""

    outputs: dict[str, Array] = field(default_factory=dict)
    lookups: dict[int, Array] = field(default_factory=dict)  # launch index -> look-ups of its POOL commands


def execute(
    program: Program, chip: Chip, inputs: Mapping[str, Array], library: Library | None = None,
    progress: Callable[[int], None] | None = None,
) -> Execution:
    """Run the program on the inputs (arrays by input name) and return its outputs.

    `library` gives the reference of each op that runs on a core. Raises `UserError` for absent weights, missing or
    ill-shaped inputs, indices out of range, and programs larger than `settings.MEMORY`.
    """
    machine = Machine(program, chip, library or {})
    machine.load(inputs)
    run = Execution()
    for index, launch in enumerate(program.launches):
        lookups = machine.launch(launch)
        if lookups:
            run.lookups[index] = np.array(lookups)
        if progress is not None:
            progress(index + 1)
    run.outputs = machine.outputs()
    return run


class Machine:
    """The memories of a chip, and the interpreter of commands."""

    def __init__(self, program: Program, chip: Chip, library: Library) -> None:
        need, most = program.dram_bytes + program.sram_bytes, settings.integer(settings.MEMORY)
        if need > most:
            raise UserError(f"executing {program.model} needs {need} bytes of memory, at most {most} are allowed; "
                            f"set {settings.MEMORY.name} higher, or only time it")
        self.program, self.chip, self.library = program, chip, library
        self.check = settings.integer(settings.CHECK) > 0
        self.memory = {"dram": self._blank(program.dram_bytes), "sram": self._blank(program.sram_bytes)}
        self.scratch = self._blank(max((b.scratch_bytes for b in program.blocks), default=0))
        locals_ = max((b.local_bytes for b in program.blocks), default=0)
        banks = max((b.accumulator_bytes for b in program.blocks), default=0)
        self.local = [self._blank(locals_) for _ in range(chip.pes)]
        self.banks = [self._blank(banks) for _ in range(chip.pes)]

    def _blank(self, size: int) -> Array:
        return np.full(size, POISON, np.uint8) if self.check else np.zeros(size, np.uint8)

    def load(self, inputs: Mapping[str, Array]) -> None:
        """Write constants and inputs to their places."""
        absent = [b.name for b in self.program.consts if b.name not in self.program.data]
        if absent:
            raise UserError(f"{self.program.model}: {len(absent)} weights are absent (first: %{absent[0]}); the model can "
                            "be timed, not executed")
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
            raise UserError(f"%{binding.name}: given {array.dtype}{list(array.shape)}, compiled for {binding.model_type}")
        self._tensor(binding)[...] = convert(array, binding.type.dtype.numpy)

    def _tensor(self, binding: Binding) -> Array:
        raw = self.memory[binding.space][binding.address : binding.address + binding.type.bytes]
        return raw.view(binding.type.dtype.numpy).reshape(binding.type.shape)

    def outputs(self) -> dict[str, Array]:
        """Return the outputs in the types that the model's user sees."""
        return {b.name: self._tensor(b).astype(b.model_type.dtype.numpy) for b in self.program.outputs}

    def launch(self, launch: Launch) -> list[int]:
        """Run one block; return the look-ups of its POOL commands."""
        block = self.program.blocks[launch.block]
        run = _BlockRun(self, block, [self._view(x, a, launch) for x, a in zip(block.operands, launch.addresses, strict=True)])
        for index, command in enumerate(block.commands.tolist()):
            try:
                run.step(command)
            except UserError as error:
                raise UserError(f"{launch.name} ({launch.op}{', ' + launch.origin if launch.origin else ''}): {error}") from None
            except (IndexError, ValueError) as error:
                text = dump_command(block.commands[index], block)
                raise RuntimeError(f"{launch.name}: command {index} `{text}`: {error}") from error
        return run.lookups

    def _view(self, operand: Operand, address: int, launch: Launch) -> Array:
        """Return the operand as an array over the bytes of its memory."""
        memory = self.scratch if operand.space == "scratch" else self.memory[operand.space]
        end = address + operand.extent_bytes
        if address < 0 or end > len(memory):
            raise UserError(f"{launch.name}: operand {operand} at {address} ends at {end}, beyond {len(memory)} bytes")
        raw = memory[address:end].view(operand.dtype.numpy) if end > address else np.zeros(0, operand.dtype.numpy)
        strides = tuple(s * operand.dtype.bytes for s in operand.strides)
        return np.lib.stride_tricks.as_strided(raw, operand.shape, strides)


def convert(array: Array, to: np.dtype[Any]) -> Array:
    """Return the array in another type; finite values too large for a narrower float become its largest one."""
    with np.errstate(all="ignore"):
        out = np.asarray(array).astype(to)
    if array.dtype.kind == "f" and to.itemsize < array.dtype.itemsize and out.dtype.kind not in "iub":
        wild = np.isfinite(array) & ~np.isfinite(out.astype(np.float32))
        if wild.any():
            import ml_dtypes

            largest = np.asarray(ml_dtypes.finfo(to).max, to)
            out[wild] = np.where(array[wild] > 0, largest, -largest)
    return out


class _BlockRun:
    """One block in execution: operands as arrays, slots as views of local memory made when first touched."""

    def __init__(self, machine: Machine, block: Block, views: list[Array]) -> None:
        self.machine, self.block, self.views = machine, block, views
        self.slots: dict[tuple[int, int], Array] = {}
        self.lookups: list[int] = []
        unit = machine.chip.pe.matrix
        self.chunk = {s.dtype.name: unit.lanes(s.dtype.name) for s in block.slots if unit.supports(s.dtype.name)}
        if unit.dataflow == "os":
            self.chunk = {}
        self.actions = {
            Op.LOAD: self.load, Op.STORE: self.store, Op.STAGE: self.stage, Op.GATHER: self.gather, Op.POOL: self.pool,
            Op.MATMUL: self.matmul, Op.REDUCE: self.reduce, Op.SIMD: self.simd, Op.FOLD: self.fold,
            Op.SCALAR: self.scalar,
        }

    def step(self, c: tuple[Any, ...]) -> None:
        """Execute one command, given as a tuple of the record's fields."""
        self.actions[c[0]](c)  # type: ignore[index]

    def slot(self, pe: int, index: int, rows: int, cols: int) -> Array:
        """Return slot `index` of a PE as a [rows, cols] array."""
        flat = self.slots.get((pe, index))
        if flat is None:
            s = self.block.slots[index]
            memory = self.machine.banks[pe] if s.accumulator else self.machine.local[pe]
            flat = self.slots[pe, index] = memory[s.offset : s.offset + s.bytes].view(s.dtype.numpy)
        return flat[: rows * cols].reshape(rows, cols)

    def tile(self, operand: int, row: int, rows: int, col: int, cols: int) -> Array:
        """Return a tile of an operand; a copy when the tile is not one strided piece."""
        view = self.views[operand]
        lead = view.shape[:-1]
        if len(lead) == 0:
            return view[None, col : col + cols]
        inner = lead[-1]
        if row % inner + rows <= inner:
            at = np.unravel_index(row // inner, lead[:-1]) if len(lead) > 1 else ()
            return view[at][row % inner : row % inner + rows, col : col + cols]
        index = np.unravel_index(np.arange(row, row + rows), lead)
        return view[index][:, col : col + cols]

    def put(self, operand: int, row: int, col: int, data: Array) -> None:
        """Write a tile of an operand."""
        rows, cols = data.shape
        view = self.views[operand]
        lead = view.shape[:-1]
        if len(lead) == 0:
            view[col : col + cols] = data[0]
        elif row % lead[-1] + rows <= lead[-1]:
            self.tile(operand, row, rows, col, cols)[...] = data
        else:
            index = np.unravel_index(np.arange(row, row + rows), lead)
            view[(*index, slice(col, col + cols))] = data

    def receivers(self, pe: int, cast: int) -> range:
        """Return the PEs that a load feeds."""
        grid = self.machine.chip.grid
        if cast == Cast.ROW:
            return range(pe // grid.cols * grid.cols, (pe // grid.cols + 1) * grid.cols)
        if cast == Cast.COL:
            return range(pe % grid.cols, grid.rows * grid.cols, grid.cols)
        return range(grid.rows * grid.cols) if cast == Cast.ALL else range(pe, pe + 1)

    def load(self, c: tuple[Any, ...]) -> None:
        rows, cols = c[FIELDS["rows"]], c[FIELDS["cols"]]
        data = self.tile(c[FIELDS["operand"]], c[FIELDS["row"]], rows, c[FIELDS["col"]], cols)
        for pe in self.receivers(c[FIELDS["pe"]], c[FIELDS["cast"]]):
            self.slot(pe, c[FIELDS["dst"]], rows, cols)[...] = data

    def store(self, c: tuple[Any, ...]) -> None:
        data = self.slot(c[FIELDS["pe"]], c[FIELDS["src0"]], c[FIELDS["rows"]], c[FIELDS["cols"]])
        self.put(c[FIELDS["operand"]], c[FIELDS["row"]], c[FIELDS["col"]], data)

    def stage(self, c: tuple[Any, ...]) -> None:
        data = self.tile(c[FIELDS["operand"]], c[FIELDS["row"]], c[FIELDS["rows"]], c[FIELDS["col"]], c[FIELDS["cols"]])
        self.put(c[FIELDS["operand2"]], c[FIELDS["row2"]], c[FIELDS["col2"]], data)

    def matmul(self, c: tuple[Any, ...]) -> None:
        pe, m, n, k = (c[FIELDS[x]] for x in ("pe", "rows", "cols", "k"))
        acc = self.slot(pe, c[FIELDS["dst"]], m, n)
        if c[FIELDS["flags"]] & FIRST:
            acc[...] = 0
        a, b = self.slot(pe, c[FIELDS["src0"]], m, k), self.slot(pe, c[FIELDS["src1"]], k, n)
        kind = self.block.slots[c[FIELDS["src0"]]].dtype.name
        chunk = k if c[FIELDS["flags"]] & VECTOR else self.chunk.get(kind, k)
        tile_matmul(a, b, acc, max(1, chunk))

    def reduce(self, c: tuple[Any, ...]) -> None:
        rows, cols, slot = c[FIELDS["rows"]], c[FIELDS["cols"]], c[FIELDS["dst"]]
        acc = self.slot(c[FIELDS["pe"]], slot, rows, cols)
        acc += self.slot(c[FIELDS["src_pe"]], slot, rows, cols)

    def sources(self, c: tuple[Any, ...]) -> list[Array]:
        """Return the SIMD operands, each in its own shape."""
        pe, rows, cols, flags = (c[FIELDS[x]] for x in ("pe", "rows", "cols", "flags"))
        out = []
        for i, name in enumerate(("src0", "src1", "src2")):
            index, shape = c[FIELDS[name]], flags >> (2 * i) & 3
            if index == IMMEDIATE:
                out.append(np.float32(c[FIELDS["imm"]]).reshape(1, 1))
            elif index >= 0:
                out.append(self.slot(pe, index, rows if shape % 2 == 0 else 1, cols if shape <= 1 else 1))
        return out

    def simd(self, c: tuple[Any, ...]) -> None:
        out = self.slot(c[FIELDS["pe"]], c[FIELDS["dst"]], c[FIELDS["rows"]], c[FIELDS["cols"]])
        out[...] = compute(FUNCTION_NAMES[c[FIELDS["fn"]]], self.sources(c), out.dtype)

    def fold(self, c: tuple[Any, ...]) -> None:
        (x,) = self.sources(c)
        out = self.slot(c[FIELDS["pe"]], c[FIELDS["dst"]], c[FIELDS["rows"]], 1)
        wide = x if x.dtype.kind in "iu" else x.astype(np.float32)
        out[...] = REDUCTIONS[REDUCTION_NAMES[c[FIELDS["fn"]]]](wide, axis=1, keepdims=True)

    def indices(self, operand: int, start: int, stop: int, axis: int) -> Array:
        """Return indices start..stop of a one-row operand, counted from 0; refuse those outside the axis."""
        found = self.views[operand].reshape(-1)[start:stop].astype(np.int64)
        wrong = (found < -axis) | (found >= axis)
        if wrong.any():
            raise UserError(f"index {found[wrong][0]} at position {start + int(np.argmax(wrong))} is outside 0 .. {axis - 1}")
        return np.where(found < 0, found + axis, found)

    def gather(self, c: tuple[Any, ...]) -> None:
        rows, cols, col, first = (c[FIELDS[x]] for x in ("rows", "cols", "col", "row2"))
        view = self.views[c[FIELDS["operand"]]]
        at = self.indices(c[FIELDS["operand2"]], first, first + rows, c[FIELDS["k"]]) + c[FIELDS["row"]]
        lead = np.unravel_index(at, view.shape[:-1])
        self.slot(c[FIELDS["pe"]], c[FIELDS["dst"]], rows, cols)[...] = view[lead][:, col : col + cols]

    def pool(self, c: tuple[Any, ...]) -> None:
        row, rows, cols, weights = (c[FIELDS[x]] for x in ("row", "rows", "cols", "row2"))
        table, offsets = self.views[c[FIELDS["operand"]]], self.views[2].reshape(-1)[row : row + rows + 1].astype(np.int64)
        count = self.views[c[FIELDS["operand2"]]].size
        if (np.diff(offsets) < 0).any() or offsets[0] < 0 or offsets[-1] > count:
            raise UserError(f"offsets of bags {row} .. {row + rows} must rise from 0 to at most {count}, got {offsets[:8]}")
        at = self.indices(c[FIELDS["operand2"]], int(offsets[0]), int(offsets[-1]), table.shape[0])
        values = _rows_of(table, at, cols, quantised=bool(c[FIELDS["flags"]]))
        if weights >= 0:
            values = values * self.views[weights].reshape(-1)[offsets[0] : offsets[-1]].astype(np.float32)[:, None]
        self.lookups.append(len(at))
        out = self.slot(c[FIELDS["pe"]], c[FIELDS["dst"]], rows, cols)
        out[...] = _pool(values, offsets - offsets[0], POOL_MODES[c[FIELDS["fn"]]])

    def scalar(self, c: tuple[Any, ...]) -> None:
        name, attrs = self.block.scalar
        if name not in self.machine.library:
            raise UserError(f"op {name} has no reference to run on a core")
        reads = [v for v, x in zip(self.views, self.block.operands, strict=True) if not x.written]
        writes = [v for v, x in zip(self.views, self.block.operands, strict=True) if x.written]
        for out, value in zip(writes, self.machine.library[name](reads, dict(attrs)), strict=True):
            out[...] = value.reshape(out.shape).astype(out.dtype)


def _rows_of(table: Array, at: Array, cols: int, *, quantised: bool) -> Array:
    """Return the table's rows as fp32; a quantised row is `cols` uint8 values, then an fp32 scale and an fp32 offset."""
    raw = table[at]
    if not quantised:
        return raw.astype(np.float32)
    tail = np.ascontiguousarray(raw[:, cols : cols + 8]).view(np.float32)
    return raw[:, :cols].astype(np.float32) * tail[:, :1] + tail[:, 1:2]


def _pool(values: Array, offsets: Array, mode: str) -> Array:
    """Return the pooled bags in fp32, rows added in order; an empty bag gives 0."""
    out = np.zeros((len(offsets) - 1, values.shape[1]), np.float32)
    for bag, (low, high) in enumerate(zip(offsets[:-1], offsets[1:], strict=True)):
        if high > low:
            rows = values[low:high]
            out[bag] = rows.max(axis=0) if mode == "max" else np.add.reduce(rows, axis=0)
            if mode == "mean":
                out[bag] /= np.float32(high - low)
    return out


