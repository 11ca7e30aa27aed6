"""ONNX models as text or nodes, compiled and executed in this process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mtia_emu.compiler.frontend.load import InputBindings, import_model
from mtia_emu.compiler.graph import Graph
from mtia_emu.compiler.pipeline import compile_graph
from onnx import ModelProto, NodeProto, helper, numpy_helper, parser

from mtia_emu import api
from mtia_emu.machine.chip import load_chip

Array = np.ndarray[Any, Any]
HEAD = '<ir_version: 10, opset_import: ["": 21]>\n'


def read(text: str) -> ModelProto:
    """Return the model of opset 21 that is written as ONNX's text."""
    return parser.parse_model(HEAD + text)


def model_of(
    nodes: Sequence[NodeProto],
    given: Mapping[str, Array],
    outputs: Sequence[str],
    consts: Mapping[str, Array],
) -> ModelProto:
    """Return a model of nodes whose inputs have the types of `given`; outputs are of any type."""
    kinds = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
        for name, x in given.items()
    ]
    ends = [helper.make_empty_tensor_value_info(name) for name in outputs]
    held = [numpy_helper.from_array(np.asarray(x), name) for name, x in consts.items()]
    graph = helper.make_graph(nodes, "g", kinds, ends, held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def graph_of(model: ModelProto, given: Mapping[str, Array]) -> Graph:
    """Return a model as imported, for inputs of these shapes."""
    return import_model(model, Path("m.onnx"), InputBindings(shapes={k: x.shape for k, x in given.items()}))


def execute(
    model: ModelProto, given: Mapping[str, Array], dtype: str | None = None, chip: str = "tiny"
) -> dict[str, Array]:
    """Return the outputs of a model's program."""
    machine = load_chip(chip)
    program = compile_graph(graph_of(model, given), machine, dtype=dtype).program
    return api.run_program(program, machine, inputs=given, gpu=None).outputs
