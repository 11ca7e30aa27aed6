"""Loops as one kernel: the scan, and the elementwise work before and behind it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from mtia_emu.types import CopyWork, ElementwiseWork, ProductWork, ScanWork

from ...graph import Node
from ...ops.scan import ScanBody
from .base import Flow, MarkedGraph, Marking, NodeGroup

SLICES = ("slice", "reshape", "transpose", "expand")  # moves that a kernel takes as strides


@dataclass(frozen=True)
class MarkScans(Marking):
    """Mark loops with what their library does in the same kernel.

    The recurrent kernels of cuDNN read their gates in place. A selective scan (Mamba), whose elements go
    their own ways, also makes what it scans and reads the states out again: neither is written to memory.
    """

    def __call__(self, marked: MarkedGraph) -> MarkedGraph:
        taken, groups = set(marked.grouped), list[NodeGroup]()
        for node in marked.free:
            work = marked.flow.works[node.name]
            if not isinstance(work, ScanWork):
                continue
            inside = [n for n in _around(node, work, marked) if n.name not in taken]
            if len(inside) > 1:
                taken |= {n.name for n in inside}
                names = marked.flow.in_order(n.name for n in inside)
                groups.append(NodeGroup(names, node.name, _whole(work, inside, marked)))
        return marked.with_groups(groups)


def _around(node: Node, work: ScanWork, marked: MarkedGraph) -> list[Node]:
    """Return the nodes that the kernel of a scan stands for, the scan first."""
    inside, frontier = {node.name: node}, [node]
    while frontier:
        for maker in _makers(frontier.pop(), marked.flow):
            if maker.name not in inside and _feeds(maker, work, inside, marked):
                inside[maker.name] = maker
                frontier.append(maker)
    if not work.macs:
        inside |= {n.name: n for n in _readers(node, marked)}
    return list(inside.values())


def _makers(node: Node, flow: Flow) -> Iterable[Node]:
    if node.op != "scan":
        return flow.writers(node)
    body = ScanBody.of(node.attrs)
    return flow.writers(replace(node, inputs=node.inputs[body.first_scanned :]))


def _feeds(maker: Node, work: ScanWork, inside: dict[str, Node], marked: MarkedGraph) -> bool:
    """Return whether a maker is part of the kernel: strides, or a scan's own arithmetic, read there alone."""
    count = marked.flow.works.get(maker.name)
    moves = maker.op in SLICES and isinstance(count, CopyWork)
    computes = not work.macs and isinstance(count, ElementwiseWork)
    return (moves or computes) and marked.flow.readers(maker) <= inside.keys()


def _readers(node: Node, marked: MarkedGraph) -> list[Node]:
    """Return the nodes that read the states out: products and sums over them, and slices."""
    found, frontier = dict[str, Node](), [node]
    while frontier:
        for name in marked.flow.readers(frontier.pop()) - {""}:
            reader = marked.graph.by_name[name]
            count = marked.flow.works[name]
            sums = isinstance(count, ElementwiseWork) or (
                isinstance(count, ProductWork) and count.m * count.n == 1
            )
            rows = isinstance(count, ProductWork) and min(count.m, count.n) == 1
            if name not in found and (sums or rows or reader.op in SLICES):
                found[name] = reader
                if reader.op in SLICES and reader.type.size == node.type.size:
                    frontier.append(reader)
    return list(found.values())


def _whole(work: ScanWork, inside: list[Node], marked: MarkedGraph) -> ScanWork:
    """Return the work of the kernel: what comes from outside is read once, and inside nothing is written."""
    flow, names = marked.flow, {n.name for n in inside}
    made = {v for n in inside for v in n.outputs}
    read = {flow.source(v) for n in inside for v in n.inputs if v} - made
    written = [v for n in inside for v in n.outputs if flow.readers_of(v) - names]
    works = [flow.works[n.name] for n in inside]
    flops = sum(w.flops + (2 * w.macs if w is not work else 0) for w in works)
    alone = 0 if work.macs else flops // max(1, work.steps * work.rows)  # a thread does it one after another
    return replace(
        work,
        depth=max(work.depth, alone),
        flops=flops,
        read_bytes=sum(marked.graph.type_of(v).bytes for v in read),
        write_bytes=sum(marked.graph.type_of(v).bytes for v in written),
    )
