"""Recomputation: values of the forward pass that are made again for the way back instead of being kept."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace

from ..graph import Graph, Node, freeze_attrs
from ..ops import work
from .marks import BACKWARD, is_back

AGAIN, HELD = ".again", ".held"


@dataclass(frozen=True)
class Throughput:
    """What making a value again takes: multiply-adds and bytes moved in a second."""

    macs_per_s: float
    bytes_per_s: float

    def seconds(self, graph: Graph, node: Node) -> float:
        """Return the time of a node, the longer of arithmetic and traffic."""
        asked = work(graph, node)
        moved = asked.read_bytes + asked.write_bytes
        return max(asked.macs / self.macs_per_s, moved / self.bytes_per_s)


BALANCE = Throughput(1e14, 1e12)  # estimate: 100 multiply-adds a byte, about what accelerators have


@dataclass(frozen=True)
class Kept:
    """What the way back reads of the forward pass: `bytes` kept of `whole`, and what is made again."""

    bytes: int
    whole: int
    again: tuple[str, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what to say of it."""
        if not self.again:
            return ()
        kept, whole = (f"{size / 1e6:.3g} MB" for size in (self.bytes, self.whole))
        return (
            f"{len(self.again)} values of the forward pass are computed again: {kept} of {whole} are kept "
            "for the way back",
        )


def recompute(graph: Graph, most_bytes: float, pace: Throughput) -> tuple[Graph, Kept]:
    """Return a training graph that keeps at most so many bytes for the way back, where it can.

    Values are made again from those that all later layers pass through (residual streams), which are always
    kept, and from inputs. Those go first that take least time a byte. Gradients stay the same bit for bit.
    Where more has to be kept than allowed, `Kept.bytes` says it.
    """
    forward = [node for node in graph.nodes if not is_back(node)]
    read = _read_behind(graph, forward)
    through = _passed_through(graph, forward)
    total, again = sum(graph.type_of(v).bytes for v in read), list[str]()
    whole = total
    if total > most_bytes:
        costs = {v: _cost(graph, v, read, through, pace) for v in read if v not in through}
        for value in sorted(costs, key=lambda v: (costs[v] / max(graph.type_of(v).bytes, 1), v)):
            if total <= most_bytes:
                break
            if costs[value] < float("inf"):
                again.append(value)
                total -= graph.type_of(value).bytes
    return (_made_again(graph, set(again), through) if again else graph), Kept(total, whole, tuple(again))


def _read_behind(graph: Graph, forward: list[Node]) -> list[str]:
    """Return the values of forward nodes that nodes behind the loss read."""
    made = {v for node in forward for v in node.outputs}
    read = {v for node in graph.nodes if is_back(node) for v in node.inputs if v in made}
    return [v for node in forward for v in node.outputs if v in read]


def _passed_through(graph: Graph, forward: list[Node]) -> set[str]:
    """Return the values that are the only ones alive between two forward nodes: all later ones need them.

    What depends on no look-up and no float of the batch (positions, masks) is small and counts not.
    """
    last = {v: i for i, node in enumerate(forward) for v in node.inputs}
    weights = set(graph.states.values())
    floats = {n for n, t in graph.inputs.items() if t.dtype.is_float and n not in weights}
    depends, alive, found = set[str](), set[str](), set[str]()
    for index, node in enumerate(forward):
        if any(v in depends or v in floats or v in weights for v in node.inputs):
            depends.update(node.outputs)
            alive.update(node.outputs)
            alive.update(v for v in node.inputs if v in floats)
        alive = {v for v in alive if last.get(v, -1) > index}
        if len(alive) == 1:
            found |= alive
    return found | {v for node in forward for v in node.outputs if v not in depends}


def _cost(
    graph: Graph, value: str, read: Collection[str], through: Collection[str], pace: Throughput
) -> float:
    """Return the seconds to make a value again from what is kept, each other value that is read among it."""
    kept = (set(read) | set(through)) - {value}
    return sum(pace.seconds(graph, node) for node in _makers(graph, value, kept))


def _makers(graph: Graph, value: str, kept: Collection[str]) -> Iterator[Node]:
    """Yield the nodes that make a value of kept ones, each behind those that it needs."""
    done: set[str] = set()
    stack: list[tuple[str, bool]] = [(value, False)]
    while stack:
        name, ready = stack.pop()
        node = graph.producer(name) if name else None
        if node is None or node.name in done or (name in kept and name != value):
            continue
        if ready:
            done.add(node.name)
            yield node
            continue
        stack.append((name, True))
        stack.extend((v, False) for v in node.inputs)


def _made_again(graph: Graph, again: Collection[str], through: Collection[str]) -> Graph:
    """Return the graph in which readers behind the loss read copies, made where the first one reads them."""
    read = set(_read_behind(graph, [n for n in graph.nodes if not is_back(n)]))
    kept = (read | set(through)) - set(again)
    copies: dict[str, str] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        if is_back(node):
            for value in node.inputs:
                if value in again and value not in copies:
                    nodes += _copied(graph, value, kept, copies)
            node = node.renamed({v: copies[v] for v in node.inputs if v in again})
        nodes.append(node)
    return graph.with_nodes(nodes)


def _copied(graph: Graph, value: str, kept: Collection[str], copies: dict[str, str]) -> Iterator[Node]:
    """Yield the nodes that make a value again, and note the copies of it and of what leads to it.

    They read kept floats through a cast that changes nothing: equal nodes would else be made one again.
    """
    for node in _makers(graph, value, {*kept, *copies}):
        for operand in node.inputs:
            if operand in kept and operand not in copies and graph.type_of(operand).dtype.is_float:
                kind, name = graph.type_of(operand), f"{operand}{HELD}"
                copies[operand] = name
                attrs = freeze_attrs({"to": kind.dtype.name, "rounds": True})
                yield Node(name, "cast", (operand,), (name,), (kind,), attrs, _origin(node))
        renamed = node.renamed(_readable(copies, node))
        outputs = tuple(f"{v}{AGAIN}" for v in node.outputs)
        copies.update(zip(node.outputs, outputs, strict=True))
        yield replace(renamed, name=outputs[0], outputs=outputs, origin=_origin(node))


def _readable(copies: Mapping[str, str], node: Node) -> dict[str, str]:
    return {v: copies[v] for v in node.inputs if v in copies}


def _origin(node: Node) -> str:
    """Return the origin of a copy: what is made again is part of the way back."""
    return f"{node.origin or node.name} again{BACKWARD}"
