"""Graph to Schedule: which kernel runs each node, on which views of which buffers.

Moves of elements that a view can stand for cost nothing and make no step; the DMA walks the view. What no
view can stand for is copied. The rule of each op is in `rules.py`.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mtia_emu.chip import Chip
from mtia_emu.sharing import Share, unshared
from mtia_emu.types import FP64, TensorType

from .graph import Graph, Node
from .views import View, whole

PINNED_SHARE = 16  # a constant is pinned when it takes at most one part in so many of SRAM
LEAST_PINNED = 4096  # bytes; a launch to copy less costs more than reading it from DRAM again


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


@dataclass
class Schedule:
    """The steps in order, and the buffers that they touch; `values` says where each of the graph's lies."""

    graph: Graph
    chip: Chip
    steps: list[Step] = field(default_factory=list)
    buffers: dict[str, Buffer] = field(default_factory=dict)
    values: dict[str, View] = field(default_factory=dict)
    outputs: dict[str, View] = field(default_factory=dict)
    reread: set[str] = field(
        default_factory=set
    )  # buffers that a kernel reads many times: better not in DRAM
    moments: list[int] = field(default_factory=list)  # of each step, where some are beside others: rising
    memo: dict[Any, Any] = field(
        default_factory=dict
    )  # what rules have worked out for one node, for the next
    share: Share = unshared  # and for one chip, for the next

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
        found = {}
        for index, value in enumerate(values, first):
            const = self.graph.const(value)
            if const is None or const.type.size != 1 or not const.type.dtype.is_float:
                continue
            if const.present and const.type.dtype != FP64:
                found[index] = float(const.array(value).reshape(-1)[0])
        return found

    def packed(self, node: Node, view: View) -> View:
        """Return a packed view of the same elements: the view itself, or a copy made by a new step."""
        if view.contiguous:
            return view
        copy = self.buffer(f"{node.name}.packed", view.type)
        self.step(node, "copy", [view], [copy])
        return copy


def schedule(graph: Graph, chip: Chip, share: Share = unshared) -> Schedule:
    """Return the steps of a lowered graph for a chip; `share` may give what was worked out for another."""
    from .forward import forward
    from .rules import rule_of

    plan = Schedule(graph, chip, share=share)
    for name, kind in graph.inputs.items():
        plan.values[name] = plan.buffer(name, kind, "input")
    for name, const in graph.consts.items():
        plan.values[name] = plan.buffer(name, const.type, "const")
    for node in graph.nodes:
        if any(kind.size for kind in node.types):
            results = rule_of(node.op)(plan, node)
        else:  # nothing to compute
            results = [plan.result(node, i) for i in range(len(node.types))]
        plan.values.update(zip(node.outputs, results, strict=True))
    computed = len(plan.steps)
    taken: set[str] = set()
    for name in graph.outputs:
        plan.outputs[name] = _output(plan, name, taken)
        taken.add(plan.outputs[name].buffer)
    _copy_at_once(plan, computed)
    forward(plan)
    _pin_constants(plan)
    return plan


def _pin_constants(plan: Schedule) -> None:
    """Copy small constants that several steps read (masks, angles) to a temporary first, maybe in SRAM."""
    uses: dict[str, int] = {}
    for step in plan.steps:
        for name in {v.buffer for v in step.inputs}:
            uses[name] = uses.get(name, 0) + 1
    pinned: dict[str, str] = {}
    copies = []
    for name, count in uses.items():
        buffer = plan.buffers[name]
        fits = LEAST_PINNED <= buffer.type.bytes <= plan.chip.sram.bytes // PINNED_SHARE
        if buffer.role != "const" or count < 2 or not fits:
            continue
        copy = plan.buffer(f"{name}.pinned", buffer.type)
        pinned[name] = copy.buffer
        copies.append(Step(f"{name}.pinned", "copy", "copy", (whole(name, buffer.type),), (copy,)))
    plan.steps = copies + [
        replace(s, inputs=tuple(replace(v, buffer=pinned.get(v.buffer, v.buffer)) for v in s.inputs))
        for s in plan.steps
    ]


def _output(plan: Schedule, name: str, taken: Container[str]) -> View:
    """Return where an output lies: a temporary buffer of its own becomes it, anything else is copied.

    So is what is read many times: it stays where that is cheap. `taken` has the buffers of other outputs.
    """
    view = plan.values[name]
    buffer = plan.buffers[view.buffer]
    whole_buffer = view.contiguous and view.offset == 0 and view.type.size == buffer.type.size
    if (
        buffer.role in ("temp", "output")
        and whole_buffer
        and view.buffer not in taken
        and buffer.name not in plan.reread
    ):
        plan.buffers[view.buffer] = Buffer(buffer.name, buffer.type, "output")
        return view
    node = plan.graph.producer(name) or Node(name, "copy", (name,), (name,), (view.type,))
    copy = plan.buffer(f"{name}.out", view.type, "output")
    if view.type.size:
        plan.step(node, "copy", [view], [copy])
    return copy


def _copy_at_once(plan: Schedule, first: int) -> None:
    """Move the copies that make outputs, from step `first` on, behind what writes their source.

    What is copied need not live longer for that.
    """
    written = {v.buffer: i for i, step in enumerate(plan.steps[:first]) for v in step.outputs}
    place = [float(i) for i in range(first)]
    place += [written.get(copy.inputs[0].buffer, first) + 0.5 for copy in plan.steps[first:]]
    plan.steps = [plan.steps[i] for i in sorted(range(len(place)), key=place.__getitem__)]


def _lines(plan: Schedule) -> Iterator[str]:
    yield f"schedule {plan.graph.name} for {plan.chip.name}"
    for buffer in plan.buffers.values():
        yield f"  {buffer.role} %{buffer.name} : {buffer.type}"
    for step in plan.steps:
        ins = ", ".join(map(_view, step.inputs))
        outs = ", ".join(map(_view, step.outputs))
        params = " ".join(f"{k}={v}" for k, v in step.params if v not in (None, ""))
        yield f"  {outs} = {step.kernel}({ins}) {params}".rstrip() + f"   # {step.name}"


def _view(view: View) -> str:
    plain = view.contiguous and not view.offset
    lies = "" if plain else f":({','.join(map(str, view.strides))})+{view.offset}"
    return f"%{view.buffer}[{','.join(map(str, view.shape))}]{lies}"
