"""A model's ONNX file written with how it was split over chips."""

from __future__ import annotations

from pathlib import Path

from mtia_emu.compiler.devices import NodeDevices, Sharding
from mtia_emu.compiler.frontend.devices import with_devices
from mtia_emu.compiler.frontend.files import read
from mtia_emu.compiler.partition.annotations import described

from ..errors import UserError
from ..files.writing import write_atomic
from ..sources import Source
from .partition import Partition


def write_annotated(source: Source, parts: Partition, path: str) -> None:
    """Write a model's ONNX file with ONNX's own annotations for many devices: layouts, and pipeline stages.

    Weights that lie beside the model are not copied: the file is to lie there too. Raises `UserError` for
    a model that is no ONNX file.
    """
    if source.is_graph:
        raise UserError(f"--annotations {path}: {source.name} is a graph's text (right: an ONNX model)")
    model = read(source.path)
    nothing = Sharding({})
    nodes = [
        NodeDevices(node.name, tuple(node.output), {v: nothing for v in (*node.input, *node.output) if v})
        for node in model.graph.node
    ]
    graph = parts.split.graph
    shapes = {v: graph.type_of(v).shape for node in nodes for v in node.tensors if graph.has(v)}
    made = with_devices(model, described(parts.split, parts.stages, nodes), shapes)
    write_atomic(Path(path), made.SerializeToString())
