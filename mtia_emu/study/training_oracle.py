"""What executed training steps are held to: the same graphs in fp32, by onnxruntime where it can."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mtia_emu.compiler.graph import Graph
from mtia_emu.compiler.reference import evaluate
from mtia_emu.compiler.to_onnx import Unwritten, out_name, to_onnx

from ..oracle import ONNXRUNTIME, onnxruntime_outputs

Array = np.ndarray[Any, Any]
REFERENCES = "the references of its ops"


class StepOracle:
    """Executes graphs of a training step, by number; `name` says what does.

    A graph with an op that ONNX has no words for is executed by the references of the ops.
    """

    def __init__(self, graphs: Sequence[Graph]) -> None:
        self._graphs = graphs
        try:
            self._models, self.name = [to_onnx(graph) for graph in graphs], ONNXRUNTIME
        except Unwritten as op:
            self._models, self.name = [], f"{REFERENCES} (ONNX has no {op})"

    def __call__(self, index: int, given: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs of a graph by name; raise `UserError` where onnxruntime is not there."""
        graph = self._graphs[index]
        inputs = {name: given[name] for name in graph.inputs}
        if not self._models:
            return evaluate(graph, inputs)
        found = onnxruntime_outputs(self._models[index], inputs)
        return {name: found[out_name(name)] for name in graph.outputs}
