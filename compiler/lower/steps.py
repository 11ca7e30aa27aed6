"""Schedule: which kernel runs each node, on which views of which buffers.

Moves of elements that a view can stand for cost nothing and make no step; the DMA walks the view. What no
view can stand for is copied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from mtia_emu.machine.chip import Chip
from mtia_emu.reuse.memo import Memoise, unmemoised
from mtia_emu.types import FP64, TensorType

from ..graph import Graph, Node
from .views import View, channels_first, whole


@dataclass(frozen=True)
class Step:
    """One kernel call: `params` are what the kernel needs besides its operands, as a hashable mapping."""

    name: str
    op: str
    kernel: str
    inputs: tuple[View, ...]
    outputs: tuple[View, ...]
    params: tuple[tuple[str, Any], ...] = ()
    origin: str = ""


@dataclass(frozen=True)
class Buffer:
    """A piece of memory: `role` is const, input, output or temp."""

    name: str
    type: TensorType
    role: str


Fastest = Callable[["Schedule", Sequence[Sequence[Step]]], int]


@dataclass
class Schedule:
    """The steps in order, and the buffers that they touch; `values` says where each of the graph's lies."""

    graph: Graph
    chip: Chip
    steps: list[Step] = field(default_factory=list)
    buffers: dict[str, Buffer] = field(default_factory=dict)
    values: dict[str, View] = field(default_factory=dict)
    outputs: dict[str, View] = field(default_factory=dict)
    in_place: dict[str, View] = field(default_factory=dict)  # where outputs lie that are states
    reread: set[str] = field(
        default_factory=set
    )  # buffers that a kernel reads many times: better not in DRAM
    channels_last: set[str] = field(
        default_factory=set
    )  # buffers of [n,c,..] that lie as [n,..,c]: what convolutions leave, and what is made of it
    moments: list[int] = field(default_factory=list)  # of each step, where some are beside others: rising
    memo: dict[Any, Any] = field(
        default_factory=dict
    )  # what rules have worked out for one node, for the next
    memoise: Memoise = unmemoised  # and for one chip, for the next
    fastest: Fastest | None = None  # of several ways to lower a node, where there is a rule of time

    def __str__(self) -> str:
        return "\n".join(_lines(self)) + "\n"

    def buffer(self, name: str, kind: TensorType, role: str = "temp") -> View:
        """Add a buffer and return the view of the whole of it."""
        unique, n = name, 0
        while unique in self.buffers:
            n += 1
            unique = f"{name}.{n}"
        self.buffers[unique] = Buffer(unique, kind, role)
        return whole(unique, kind)

    def step(self, node: Node, kernel: str, inputs: Any, outputs: Any, **params: Any) -> None:
        """Append a kernel call for a node."""
        named = tuple(sorted(params.items()))
        self.steps.append(Step(node.name, node.op, kernel, tuple(inputs), tuple(outputs), named, node.origin))

    def operands(self, node: Node) -> list[View]:
        """Return where a node's operands lie, omitted ones left out."""
        return [self.values[v] for v in node.inputs if v]

    def result(self, node: Node, index: int = 0) -> View:
        """Add a buffer for one of a node's results."""
        return self.buffer(node.outputs[index], node.types[index])

    def result_channels_last(self, node: Node, index: int = 0) -> View:
        """Add a buffer for a result [n,c,..] that lies as [n,..,c]."""
        n, c, *rest = node.types[index].shape
        lies = self.buffer(node.outputs[index], TensorType(node.types[index].dtype, (n, *rest, c)))
        self.channels_last.add(lies.buffer)
        return channels_first(lies)

    def result_like(self, node: Node, views: Sequence[View]) -> View:
        """Add a buffer for a node's result: channels last where an operand as large lies so."""
        shape = node.type.shape
        alike = any(v.buffer in self.channels_last and v.shape == shape for v in views)
        return self.result_channels_last(node) if alike and len(shape) > 2 else self.result(node)

    def may_change(self, node: Node, index: int = 0) -> bool:
        """Return whether a result is the next value of the state that is the same operand, and can be made
        in its place: no node behind this one reads what lies there.
        """
        place = self.in_place.get(self.graph.state_after(node, index))
        if place is None:
            return False
        same = {name for name, view in self.values.items() if view.buffer == place.buffer}
        later = takewhile(lambda other: other is not node, reversed(self.graph.nodes))
        return same.isdisjoint(self.graph.outputs) and not any(same.intersection(n.inputs) for n in later)

    def on_core(self, node: Node) -> list[View]:
        """Let a core run the op's reference; return where the results lie."""
        results = [self.result(node, i) for i in range(len(node.outputs))]
        omitted = tuple(i for i, value in enumerate(node.inputs) if not value)
        attrs = (*node.attrs.items(), *([("omitted", omitted)] if omitted else []))
        self.step(node, "scalar", self.operands(node), results, op=node.op, attrs=attrs)
        return results

    def numbers(self, values: Sequence[str], first: int) -> dict[int, float]:
        """Return the values that are constants of one number, by tape input; values[i] is input first + i.

        Doubles are left out: a command's number is an fp32.
        """
        known = {}
        for index, value in enumerate(values, first):
            const = self.graph.const(value)
            if const is None or const.type.size != 1 or not const.type.dtype.is_float:
                continue
            if const.present and const.type.dtype != FP64:
                known[index] = float(const.array(value).reshape(-1)[0])
        return known

    def packed(self, node: Node, view: View) -> View:
        """Return a packed view of the same elements: the view itself, or a copy made by a new step."""
        if view.contiguous:
            return view
        copy = self.buffer(f"{node.name}.packed", view.type)
        self.step(node, "copy", [view], [copy])
        return copy


def _lines(schedule: Schedule) -> Iterator[str]:
    yield f"schedule {schedule.graph.name} for {schedule.chip.name}"
    for buffer in schedule.buffers.values():
        yield f"  {buffer.role} %{buffer.name} : {buffer.type}"
    for step in schedule.steps:
        ins = ", ".join(map(_view, step.inputs))
        outs = ", ".join(map(_view, step.outputs))
        params = " ".join(f"{k}={v}" for k, v in step.params if v not in (None, ""))
        yield f"  {outs} = {step.kernel}({ins}) {params}".rstrip() + f"   # {step.name}"


def _view(view: View) -> str:
    plain = view.contiguous and not view.offset
    lies = "" if plain else f":({','.join(map(str, view.strides))})+{view.offset}"
    return f"%{view.buffer}[{','.join(map(str, view.shape))}]{lies}"
