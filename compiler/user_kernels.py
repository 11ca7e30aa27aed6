"""Kernels from outside the tree: one class gives an op's shape rule, its reference and its commands.

They are installed only while `installed` lasts, in place of what the op was imported as and scheduled by.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
from mtia_emu.kernels import KERNELS
from mtia_emu.kernels.builder import NoRoom
from mtia_emu.kernels.halves import Portion
from mtia_emu.kernels.kernel import Kernel, KernelCall, Memoise

from mtia_emu.errors import UserError, refuse_unknown
from mtia_emu.machine.chip import Chip
from mtia_emu.program.isa import Block, Operand
from mtia_emu.types import TensorType, dtype_of

from .foreign import raised
from .graph import Attrs, Node
from .ops import ONNX, OPS, Call, Count, Op, check_node
from .ops.base import elementwise
from .ops.base import infer as infer_op
from .ops.base import reference as reference_op

if TYPE_CHECKING:
    from .lower.steps import Schedule, Step
    from .lower.views import View

Array = np.ndarray[Any, Any]
Types = Sequence[TensorType | None]
Rule = Callable[["Schedule", Node], "list[View]"]
Example = tuple[Sequence[Array], Mapping[str, Any]]
T = TypeVar("T")
STEP = "user"  # the kernel of a schedule's step


class UserKernel(Kernel):
    """A kernel for one op, and what the op means: derive from it in a file, and give the file to `--kernel`.

    `use_kernels` takes it as well. `op` is an operator of ONNX, "domain::Operator", or an op of the graph
    ("softmax") whose kernel is to be replaced: that one has a shape rule and a reference already, and needs
    `examples` and `emit` alone. `flops` counts arithmetic for an element of the largest tensor, `attributes`
    are the operator's with their defaults, `operands` the fewest and the most. `tolerance` is what the check
    allows of the largest result; None stands for a few roundings of the format. How it lies in a program, and
    whether it has several mappings, it says as our own kernels do.
    """

    flops: ClassVar[int | None] = None
    attributes: ClassVar[Mapping[str, Any]] = {}
    operands: ClassVar[tuple[int, int]] = (1, 64)
    tolerance: ClassVar[float | None] = None

    def infer(self, types: Types, attrs: Attrs) -> Sequence[TensorType]:
        """Return the types of the results; raise `UserError` for operands that the op does not take."""
        return infer_op(self.op, types, attrs)

    def reference(self, arrays: Sequence[Array | None], attrs: Attrs) -> Sequence[Array]:
        """Return the results in NumPy: what the op means, and what the kernel is held to."""
        return reference_op(self.op, arrays, attrs)

    def examples(self, rng: np.random.Generator) -> Iterable[Example]:
        """Yield operands and attributes on which the kernel is held to its reference, drawn from `rng`."""
        raise NotImplementedError

    @property
    def name(self) -> str:
        """Return the op's name in the graph: `domain::Operator` in letters, digits and underscores."""
        return re.sub(r"\W+", "_", self.op) if self.foreign else self.op

    @property
    def foreign(self) -> bool:
        """Return whether the op is an operator of ONNX that this class alone gives a meaning."""
        return "::" in self.op

    @property
    def label(self) -> str:
        """Return what messages call it."""
        return f"kernel {type(self).__name__} of {self.op or 'no op'}"


INSTALLED: dict[str, UserKernel] = {}


@contextmanager
def installed(kernels: Iterable[UserKernel]) -> Iterator[None]:
    """Let the compiler use kernels meanwhile, in the whole process; of two for one op the later stands.

    Raises `UserError` for a kernel that is not whole.
    """
    tables: tuple[dict[str, Any], ...] = (INSTALLED, OPS, ONNX)
    before = [dict(table) for table in tables]
    try:
        for kernel in kernels:
            _install(kernel)
        yield
    finally:
        for table, old in zip(tables, before, strict=True):
            table.clear()
            table.update(old)


def _install(kernel: UserKernel) -> None:
    """List a kernel, and the op that it brings."""
    _refuse_partial(kernel)
    if kernel.foreign:
        low, high = kernel.operands
        infer, reference = partial(_infer, kernel), partial(_reference, kernel)
        text = (type(kernel).__doc__ or kernel.op).strip().partition("\n")[0].rstrip(".")
        count = partial(_count, kernel.flops or 0)
        OPS[kernel.name] = Op(
            kernel.name, text, (low, high), infer, reference, count, tuple(kernel.attributes)
        )
        ONNX[kernel.op.removeprefix("ai.onnx::")] = partial(_spell, kernel)
    INSTALLED[kernel.name] = kernel


def _refuse_partial(kernel: UserKernel) -> None:
    """Raise `UserError` for a kernel whose class lacks a part, or has one that means nothing."""
    own = type(kernel)
    if not re.fullmatch(r"[\w.]+::\w+|\w*", kernel.op) or not kernel.op:
        raise UserError(f'{kernel.label}: op = {kernel.op!r} (right: op = "com.example::Operator")')
    needed = ["examples", "emit_mapping" if kernel.mapped else "emit"]
    if kernel.foreign:
        needed += ["infer", "reference"]
    elif kernel.op not in OPS:
        raise UserError(f"{kernel.label}: {refuse_unknown('op', kernel.op, OPS)}")
    absent = [name for name in needed if getattr(own, name) is getattr(UserKernel, name)]
    if absent:
        raise UserError(f"{kernel.label} does not define {', '.join(absent)}")
    if kernel.foreign and kernel.flops is None:
        raise UserError(f"{kernel.label}: says no `flops`, its operations an element (right: flops = 3, say)")
    inputs = kernel.operands[0] if kernel.foreign else OPS[kernel.op].arity[0]
    if kernel.weight is not None and kernel.weight not in range(inputs):
        raise UserError(
            f"{kernel.label}: weight = {kernel.weight!r} (right: the number of an input that every node has, "
            f"below {inputs}, or None)"
        )


def _spell(kernel: UserKernel, call: Call) -> tuple[str, ...]:
    """Return the results of an ONNX node of the kernel's operator."""
    attrs = {**kernel.attributes, **call.attrs}
    for name in attrs:
        if name not in kernel.attributes:
            raise refuse_unknown(f"attribute of {kernel.op}", name, kernel.attributes)
    return call.builder.adds(kernel.name, *call.inputs, hint=call.hint, **attrs)


def _infer(kernel: UserKernel, types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    types_inferred = tuple(_guarded(kernel, "infer", lambda: kernel.infer(types, attrs)))
    if not types_inferred or not all(isinstance(t, TensorType) for t in types_inferred):
        raise UserError(
            f"{kernel.label}: infer gives {types_inferred!r} (right: a TensorType for each result)"
        )
    return types_inferred


def _reference(kernel: UserKernel, arrays: Sequence[Array | None], attrs: Attrs) -> tuple[Array, ...]:
    """Return the reference's results, which must be of the types that the shape rule gives."""
    results = tuple(
        np.asarray(x) for x in _guarded(kernel, "reference", lambda: kernel.reference(arrays, attrs))
    )
    types = [None if x is None else TensorType(dtype_of(x), x.shape) for x in arrays]
    right = _infer(kernel, types, attrs)
    given = tuple(f"{x.dtype}{list(x.shape)}" for x in results)
    expected = tuple(f"{t.dtype.numpy}{list(t.shape)}" for t in right)
    if given != expected:
        raise UserError(
            f"{kernel.label}: reference gives {', '.join(given)}, infer says {', '.join(expected)}"
        )
    return results


def _count(flops: int, types: Types, results: tuple[TensorType, ...], attrs: Attrs) -> Count:
    size = max(t.size for t in (*types, *results) if t is not None)
    return elementwise(size, flops * size)


def _guarded(kernel: UserKernel, what: str, call: Callable[[], T]) -> T:
    """Return what a part of a kernel gives; whatever it raises is its author's to mend."""
    try:
        return call()
    except NoRoom as error:
        raise NoRoom(f"{kernel.label}: {error}") from None
    except (UserError, MemoryError):
        raise
    except Exception as error:
        raise UserError(f"{kernel.label}: {what} {raised(error, type(kernel))}") from error


def user_rule(op: str, otherwise: Rule) -> Rule:
    """Return the scheduling rule of an op: an installed kernel's where there is one that takes the node."""
    kernel = INSTALLED.get(op)
    return otherwise if kernel is None else partial(_schedule, kernel, otherwise)


def _schedule(kernel: UserKernel, otherwise: Rule, schedule: Schedule, node: Node) -> list[View]:
    types = [schedule.values[v].type if v else None for v in node.inputs]
    if "" in node.inputs or not _Guarded(kernel).takes(types, node.attrs):
        return otherwise(schedule, node)
    check_node(node, lambda value: schedule.values[value].type)
    results = [schedule.result(node, i) for i in range(len(node.outputs))]
    schedule.step(node, STEP, schedule.operands(node), results, op=node.op, attrs=tuple(node.attrs.items()))
    return results


class _Guarded(Kernel):
    """A user's kernel as the compiler asks it: what its parts raise, or give, is its author's to mend.

    Steps have its op's attributes as one parameter, `attrs`, whose parts it is given.
    """

    def __init__(self, kernel: UserKernel) -> None:
        self.kernel, self.op, self.summary = kernel, kernel.op, kernel.label
        self.reads_views, self.writes_views = kernel.reads_views, kernel.writes_views
        self.shares_launch, self.slow_search = kernel.shares_launch, kernel.slow_search
        self.copies, self.stages_both = kernel.copies, kernel.stages_both
        self.weight, self.overwrites = kernel.weight, kernel.overwrites

    @property
    def name(self) -> str:
        return self.kernel.name

    @property
    def mapped(self) -> bool:
        return self.kernel.mapped

    def takes(self, types: Types, attrs: Attrs) -> bool:
        return bool(_guarded(self.kernel, "takes", lambda: self.kernel.takes(types, attrs)))

    def problem(self, call: KernelCall) -> Hashable:
        own = replace(call, named=call.params["attrs"])
        problem = _guarded(self.kernel, "problem", lambda: self.kernel.problem(own))
        return _hashable(self.kernel, "problem", problem)

    def candidates(self, problem: Any, chip: Chip, count: int, memoise: Memoise) -> Sequence[Any]:
        kernel = self.kernel
        ranked = _guarded(
            kernel, "candidates", lambda: list(kernel.candidates(problem, chip, count, memoise))
        )
        if not ranked:
            raise UserError(f"{kernel.label}: candidates gives none (right: one mapping at least, or NoRoom)")
        return [_hashable(kernel, "candidates", mapping) for mapping in ranked[:count]]

    def spelled(self, mapping: Any) -> str:
        return str(_guarded(self.kernel, "spelled", lambda: self.kernel.spelled(mapping)))

    def fixed(self, text: str, call: KernelCall, chip: Chip) -> Any:
        own = replace(call, named=call.params["attrs"])
        mapping = _guarded(self.kernel, "fixed", lambda: self.kernel.fixed(text, own, chip))
        return _hashable(self.kernel, "fixed", mapping)

    def emit(self, chip: Chip, attrs: Attrs, inputs: Sequence[Operand], outputs: Sequence[Operand]) -> Block:
        kernel, own = self.kernel, dict(attrs["attrs"])
        block = _guarded(kernel, "emit", lambda: kernel.emit(chip, own, inputs, outputs))
        return self._checked("emit", block, self.arranged(inputs, outputs))

    def emit_mapping(self, chip: Chip, call: KernelCall, mapping: Any) -> Block:
        kernel, own = self.kernel, replace(call, named=call.params["attrs"])
        what = "emit_mapping" if self.mapped else "emit"
        block = _guarded(kernel, what, lambda: kernel.emit_mapping(chip, own, mapping))
        return self._checked(what, block, self.arranged(call.inputs, call.outputs))

    def _checked(self, what: str, block: Any, known: Sequence[Operand]) -> Block:
        """Return the block, whose operands must begin with those that are known."""
        kernel = self.kernel
        if not isinstance(block, Block):
            raise _wrong(kernel, what, block, "a Block, as Builder.block() makes")
        if len(block.operands) < len(known) or not all(map(_within, block.operands, known)):
            raise UserError(
                f"{kernel.label}: the block's operands are {', '.join(map(str, block.operands))}; they must "
                f"begin with those given, {', '.join(map(str, known))}"
            )
        return block

    def arranged(self, inputs: Sequence[T], outputs: Sequence[T]) -> list[T]:
        kernel, given = self.kernel, [*inputs, *outputs]
        order = _guarded(kernel, "arranged", lambda: list(kernel.arranged(inputs, outputs)))
        if sorted(map(id, order)) != sorted(map(id, given)):
            raise _wrong(kernel, "arranged", order, f"each of {given!r} once")
        return order

    def macs(self, params: Mapping[str, Any]) -> int:
        kernel, own = self.kernel, dict(params["attrs"])
        macs = _guarded(kernel, "macs", lambda: kernel.macs(own))
        if not isinstance(macs, int | np.integer) or macs < 0:
            raise _wrong(kernel, "macs", macs, "a whole number, 0 for what is no product")
        return int(macs)

    def streamed(self, inputs: Sequence[T], outputs: Sequence[T]) -> Sequence[T]:
        kernel = self.kernel
        streamed = _guarded(kernel, "streamed", lambda: list(kernel.streamed(inputs, outputs)))
        if not {*map(id, streamed)} <= {*map(id, inputs)}:
            raise _wrong(kernel, "streamed", streamed, f"some of {list(inputs)!r}")
        return streamed

    def halves(self, call: Portion) -> list[Portion]:
        """Return the two portions, or none; what is not smaller than the call would be cut for ever."""
        kernel, own = self.kernel, replace(call, params=dict(call.params["attrs"]))
        portions = _guarded(
            kernel,
            "halves",
            lambda: [
                Portion(tuple(p.inputs), tuple(p.outputs), {"attrs": tuple(p.params.items())})
                for p in kernel.halves(own)
            ],
        )
        if not _are_halves(portions, own):
            raise _wrong(kernel, "halves", portions, "[], or two Portions that write the results")
        _hashable(kernel, "halves", tuple(p.params["attrs"] for p in portions))
        return [replace(p, params={**call.params, **p.params}) for p in portions]


def _are_halves(portions: list[Portion], call: Portion) -> bool:
    """Return whether portions are none, or two of the call's views that write as much as it does."""
    kinds = {type(x) for x in (*call.inputs, *call.outputs)}
    if not {type(x) for p in portions for x in (*p.inputs, *p.outputs)} <= kinds:
        return False
    sizes = [sum(math.prod(x.shape) for x in p.outputs) for p in portions]
    whole = sum(math.prod(x.shape) for x in call.outputs)
    return not sizes or (len(sizes) == 2 and min(sizes) > 0 and sum(sizes) == whole)


def _wrong(kernel: UserKernel, what: str, value: Any, right: str) -> UserError:
    return UserError(f"{kernel.label}: {what} gives {value!r} (right: {right})")


def kernel_of(step: Step) -> Kernel:
    """Return the kernel that a step calls: one of ours, or an installed one."""
    return _kernel(step.kernel, step.params)


def kernel_named(name: str, call: KernelCall) -> Kernel:
    """Return the kernel of that name that a call was made for."""
    return _kernel(name, call.named)


def _kernel(name: str, params: tuple[tuple[str, Any], ...]) -> Kernel:
    if name == STEP:
        return _Guarded(INSTALLED[dict(params)["op"]])
    return KERNELS[name]


def _hashable(kernel: UserKernel, what: str, value: Any) -> Any:
    try:
        hash(value)
    except TypeError:
        raise UserError(
            f"{kernel.label}: {what} gives {value!r} (right: what can be a key of a dict: a number, a tuple)"
        ) from None
    return value


def _within(own: Operand, given: Operand) -> bool:
    """Return whether a block's operand is a view of no more than the one that it was given."""
    same = (own.dtype, own.space, own.written) == (given.dtype, given.space, given.written)
    return same and own.extent_bytes <= given.extent_bytes


def idle_notes(schedule: Schedule) -> tuple[str, ...]:
    """Return a note for each installed kernel that runs no node."""
    used = {dict(step.params)["op"] for step in schedule.steps if step.kernel == STEP}
    return tuple(
        f"{kernel.label} runs no node of this model" for name, kernel in INSTALLED.items() if name not in used
    )
