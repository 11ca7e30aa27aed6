"""Kernels of the user's own: read from a file or a package that the user names, and held to their reference.

Nothing here is reached from a model: code runs only where the user gave its file, or its package's name.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from mtia_emu.compiler.build import NodeBuilder
from mtia_emu.compiler.foreign import raised
from mtia_emu.compiler.graph import Graph, freeze_attrs
from mtia_emu.compiler.lower.choice import ESTIMATED, Tuning
from mtia_emu.compiler.pipeline import compile_lowered
from mtia_emu.compiler.plugins import execute as execute_file
from mtia_emu.compiler.reference import core_library
from mtia_emu.compiler.user_kernels import INSTALLED, UserKernel, installed
from mtia_emu.kernels.builder import NoRoom
from mtia_emu.kernels.search import MappingSearch

from ..engine.function import execute
from ..errors import UserError, refuse_unknown
from ..machine.chip import Chip, load_chip
from ..program.isa import Block, Program
from ..program.verify import verify
from ..types import BF16, FP16, DType, TensorType, dtype_of

Array = np.ndarray[Any, Any]
GROUP = "mtia_emu.kernels"
CHIPS = ("tiny", "mtia-2i")  # what kernels are held to their reference on: one where memory is short
TOLERANCES = {"fp16": 4e-3, "bf16": 3e-2}  # of the largest result: a few roundings
WIDE_TOLERANCE = 1e-5
MOST_EXAMPLES = 64
MOST_MAPPINGS = 4  # that each example is executed under


@contextmanager
def use_kernels(*kernels: str | Path | UserKernel) -> Iterator[tuple[UserKernel, ...]]:
    """Compile with kernels of your own meanwhile: files FILE.py, names of packages' kernels, or `Kernel`s.

    Each is executed on its examples first and held to its reference. Raises `UserError` for what is no kernel
    and for one that is wrong, naming the first element that is.
    """
    loaded = tuple(kernel for given in kernels for kernel in _kernels_of(given))
    with installed(loaded):
        for kernel in loaded:
            hold_to_reference(kernel)
        yield loaded


def _kernels_of(given: str | Path | UserKernel) -> Sequence[UserKernel]:
    if isinstance(given, UserKernel):
        return (given,)
    return load_kernels(given)


def load_kernels(source: str | Path) -> tuple[UserKernel, ...]:
    """Return the kernels in a file FILE.py, or those that an installed package lists under a name.

    The file is executed. Raises `UserError` where it raises, and where there is no kernel in it.
    """
    if str(source).endswith(".py"):
        return _in_module(execute_file(Path(source), "a Kernel"), str(source))
    offered = {entry.name: entry for entry in entry_points(group=GROUP)}
    if str(source) not in offered:
        others = refuse_unknown("kernel", str(source), offered) if offered else "no package here brings one"
        raise UserError(f"--kernel {str(source)!r} is no file FILE.py, nor a package's kernel: {others}")
    entry = offered[str(source)]
    where = f"kernel {entry.name!r}, entry point {entry.value!r} of group {GROUP}"
    try:
        loaded = entry.load()
    except Exception as error:  # whatever importing somebody's package raises
        raise UserError(f"{where}: cannot be imported: {type(error).__name__}: {error}") from error
    if isinstance(loaded, ModuleType):
        return _in_module(loaded, where)
    if not (isinstance(loaded, type) and issubclass(loaded, UserKernel)):
        raise UserError(f"{where}: {loaded!r} is no kernel (right: a class derived from mtia_emu.Kernel)")
    return (loaded(),)


def _in_module(module: ModuleType, where: str) -> tuple[UserKernel, ...]:
    """Return a kernel of each class that a module defines, in their order, but for abstract ones."""
    classes = [
        c
        for c in vars(module).values()
        if isinstance(c, type) and issubclass(c, UserKernel) and c.__module__ == module.__name__
    ]
    instances = tuple(c() for c in classes if c.op and not inspect.isabstract(c))
    if not instances:
        raise UserError(
            f"{where}: has no kernel (right: a class derived from mtia_emu.Kernel, with its `op`)"
        )
    return instances


@dataclass(frozen=True)
class _Case:
    """One example as it is executed: in one format, its operands packed or seen through a transposition."""

    number: int
    arrays: tuple[Array, ...]
    attrs: dict[str, Any]
    turned: bool

    def __str__(self) -> str:
        shapes = ", ".join(f"{dtype_of(x)}{list(x.shape)}" for x in self.arrays)
        return f"example {self.number} ({shapes}{', read through a transposition' if self.turned else ''})"


def hold_to_reference(kernel: UserKernel, *, seed: int = 0) -> int:
    """Execute an installed kernel on its examples; return on how many cases it gave its reference's results.

    Every example runs in its own format, in fp16 and in bf16 where the shape rule takes them, with packed
    operands and with transposed ones, on small and large chips, in poisoned memory; under each of the first
    few mappings where there are several, and on one row of PEs where the kernel may share a launch. Raises
    `UserError` naming the first element that is off.
    """
    run, no_room = 0, ""
    for case in _cases(kernel, seed):
        types = [TensorType(dtype_of(x), x.shape) for x in case.arrays]
        if not kernel.takes(types, freeze_attrs(case.attrs)):
            continue
        for chip in _chips(kernel):
            try:
                _hold(kernel, case, chip)
                run += 1
            except NoRoom as error:
                no_room = str(error)
            except UserError as error:
                raise UserError(f"{kernel.label}: {case} on {chip.name}: {error}") from None
    if not run:
        why = no_room or "it takes none of them"
        raise UserError(f"{kernel.label} ran on none of its examples, so nothing is known of it: {why}")
    return run


def _chips(kernel: UserKernel) -> Iterator[Chip]:
    """Yield the chips that a kernel is executed on."""
    yield from map(load_chip, CHIPS)
    if kernel.shares_launch:
        small = load_chip(CHIPS[0])
        yield small.part(1, small.grid.cols)


def _cases(kernel: UserKernel, seed: int) -> Iterator[_Case]:
    rng = np.random.default_rng(seed)
    for number, (arrays, attrs) in enumerate(_examples(kernel, rng)):
        full = {**kernel.attributes, **attrs}
        formats = {}
        for kind in (None, FP16, BF16):
            given = tuple(_in_format(np.asarray(x), kind) for x in arrays)
            formats[tuple(x.dtype for x in given)] = given
        for own, given in enumerate(formats.values()):
            if own and not _accepts(kernel, given, full):
                continue
            for turned in (False, True) if any(x.ndim > 1 for x in given) else (False,):
                yield _Case(number, given, full, turned)


def _examples(kernel: UserKernel, rng: np.random.Generator) -> list[Any]:
    """Return the examples; raise `UserError` where there are none, or not of the right form."""
    try:
        examples = []
        for example in kernel.examples(rng):
            arrays, attrs = example
            examples.append((tuple(np.asarray(x) for x in arrays), dict(attrs)))
            if len(examples) > MOST_EXAMPLES:
                raise UserError(f"{kernel.label}: more than {MOST_EXAMPLES} examples")
    except UserError:
        raise
    except Exception as error:  # whatever somebody's generator raises
        raise UserError(
            f"{kernel.label}: examples {raised(error, type(kernel))} "
            "(right: yield [operands], {attributes})"
        ) from error
    if not examples:
        raise UserError(f"{kernel.label}: examples yields nothing (right: yield [operands], {{attributes}})")
    return examples


def _in_format(array: Array, kind: DType | None) -> Array:
    return array if kind is None or array.dtype.kind != "f" else array.astype(kind.numpy)


def _accepts(kernel: UserKernel, arrays: Iterable[Array], attrs: dict[str, Any]) -> bool:
    try:
        kernel.infer([TensorType(dtype_of(x), x.shape) for x in arrays], freeze_attrs(attrs))
    except UserError:
        return False
    return True


def _hold(kernel: UserKernel, case: _Case, chip: Chip) -> None:
    """Execute one case on a chip, under each mapping; raise `UserError` for the first element that is off."""
    from mtia_emu.compiler.ops import reference

    graph, inputs = _graph(kernel, case)
    expected = reference(kernel.name, case.arrays, freeze_attrs(case.attrs))
    dtype, place, turns = str(dtype_of(case.arrays[0])), 0, 1
    while place < turns:
        turn = _Turn(place)
        tuning = Tuning(MappingSearch(turn, candidates=MOST_MAPPINGS)) if kernel.mapped else ESTIMATED
        program = compile_lowered(graph, chip, dtype=dtype, tuning=tuning)
        _hold_program(program, chip, inputs, expected, kernel.tolerance)
        place, turns = place + 1, turn.calls


class _Turn:
    """A judge of mappings that lets the one at a place win, and counts those that it is shown."""

    def __init__(self, place: int) -> None:
        self.place, self.calls = place, 0

    def __call__(self, block: Block, chip: Chip) -> float:
        self.calls += 1
        return float(self.calls - 1 != self.place)


def _hold_program(
    program: Program,
    chip: Chip,
    inputs: dict[str, Array],
    expected: Sequence[Array],
    tolerance: float | None,
) -> None:
    """Execute a program; raise `UserError` for the first element that is off."""
    verify(program, chip)
    try:
        got = execute(program, chip, inputs, core_library(), check=True).outputs
    except RuntimeError as error:  # poisoned memory was read, or results were never written
        raise UserError(str(error)) from error
    for index, (value, right) in enumerate(zip(got.values(), expected, strict=True)):
        _compare(index, value, right, tolerance)


def _graph(kernel: UserKernel, case: _Case) -> tuple[Graph, dict[str, Array]]:
    """Return a graph of the one node, and its inputs."""
    build, inputs, operands = NodeBuilder(), {}, []
    for index, array in enumerate(case.arrays):
        perm = tuple(reversed(range(array.ndim)))
        turned = case.turned and array.ndim > 1
        name = f"x{index}"
        inputs[name] = array.transpose(perm) if turned else array
        build.declare(name, TensorType(dtype_of(array), inputs[name].shape))
        operands.append(build.add("transpose", name, perm=perm) if turned else name)
    results = build.adds(kernel.name, *operands, fold=False, **case.attrs)
    types = {name: build.type_of(name) for name in inputs}
    return Graph("check", build.nodes, types, results, build.consts), inputs


def _compare(result: int, got: Array, right: Array, tolerance: float | None) -> None:
    """Raise `UserError` for the first element, in any shape, that is farther off than its format allows."""
    kind = str(dtype_of(right))
    allowed = TOLERANCES.get(kind, WIDE_TOLERANCE if right.dtype.kind == "f" else 0.0)
    a, b = got.astype(np.float64), right.astype(np.float64)
    scale = max(1.0, float(np.abs(b[np.isfinite(b)]).max(initial=0.0)))
    limit = (allowed if tolerance is None else tolerance) * scale
    with np.errstate(invalid="ignore"):
        fine = (a == b) | (np.isnan(a) & np.isnan(b)) | (np.abs(a - b) <= limit)
    if fine.all():
        return
    at = tuple(int(i) for i in np.argwhere(~fine)[0])
    raise UserError(
        f"result {result} at {list(at)} is {a[at]:.6g}, its reference gives {b[at]:.6g} (allowed: "
        f"{limit:.1e} off; {np.count_nonzero(~fine)} of {fine.size} elements are off)"
    )


def own_operators() -> dict[str, Any]:
    """Return the references of the user's own operators, by name, as the oracle takes them."""
    return {k.op: partial(_with_defaults, k) for k in INSTALLED.values() if k.foreign}


def _with_defaults(kernel: UserKernel, arrays: Sequence[Any], attrs: Mapping[str, Any]) -> Sequence[Array]:
    return kernel.reference(arrays, {**kernel.attributes, **attrs})
