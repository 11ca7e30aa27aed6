"""Graphs on disk come back exactly: of every built-in and exported model, as imported and as lowered."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mtia_emu.compiler import text
from mtia_emu.compiler.frontend import load
from mtia_emu.compiler.graph import Graph
from mtia_emu.compiler.graph_file import read_graph, write_graph
from mtia_emu.compiler.pipeline import lower

from mtia_emu import UserError
from mtia_emu.api import open_model
from mtia_emu.machine.chip import load_chip
from mtia_emu.testing.fuzz import pipeline_of
from mtia_emu.zoo import zoo_names

CHIP = load_chip("mtia-2i")
LARGE = ("70b", "405b", "22b", "235b", "deepseek-v3", "1tb")
MODELS = Path(__file__).parents[3] / "shared" / "models"
SYMBOLS = {  # of the one model without sample inputs
    "genai_llama_fp16_cuda": {
        "batch_size": 1,
        "sequence_length": 4,
        "total_sequence_length": 12,
        "past_sequence_length": 8,
        "kv_cache_dim": 16,
    }
}
EXPORTED = sorted(p.parent.name for p in MODELS.glob("*/model.onnx"))


def same_node(a: Any, b: Any) -> bool:
    return (*vars(a).items(),) == (*vars(b).items(),)


def comes_back(graph: Graph, folder: Path) -> None:
    """Write a graph, read it, and hold each part of it to what was written."""
    files = write_graph(folder / "g.ir", graph)
    back = read_graph(folder / "g.ir")
    assert back.name == graph.name and back.inputs == graph.inputs and back.outputs == graph.outputs
    assert all(map(same_node, back.nodes, graph.nodes)) and len(back.nodes) == len(graph.nodes)
    assert list(back.consts) == list(graph.consts)
    for name, const in graph.consts.items():
        other = back.consts[name]
        assert other.type == const.type and other.present == const.present
        if const.present:
            assert other.array(name).tobytes() == np.ascontiguousarray(const.array(name)).tobytes(), name
    assert text.dump(back) == (folder / "g.ir").read_text(encoding="utf-8")
    for file in files:
        Path(file).unlink()


def both_come_back(graph: Graph, folder: Path) -> None:
    comes_back(graph, folder)
    comes_back(lower(graph, pipeline_of(graph, CHIP, None)), folder)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.deep] * n.endswith(LARGE)) for n in zoo_names()]
)
def test_built_in_models_come_back(name: str, tmp_path: Path) -> None:
    with open_model(f"zoo:{name}", {}) as source:
        both_come_back(load(source.path), tmp_path)


@pytest.mark.skipif(not EXPORTED, reason="the model collection is not beside the checkout")
@pytest.mark.parametrize("name", EXPORTED)
def test_exported_models_come_back(name: str, tmp_path: Path) -> None:
    io = MODELS / name / "io.npz"
    shapes = None
    if io.exists():
        with np.load(io) as arrays:
            shapes = {k.removeprefix("in:"): arrays[k].shape for k in arrays if k.startswith("in:")}
    both_come_back(load(MODELS / name / "model.onnx", SYMBOLS.get(name), input_shapes=shapes), tmp_path)


def test_a_graph_without_outputs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "g.ir").write_text("graph g {\n  in %x : fp32[2]\n}\n")
    with pytest.raises(UserError, match=r"g\.ir: graph g has no output"):
        read_graph(tmp_path / "g.ir")


def test_a_graph_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "g.ir").write_text("graph g {\n  in %x : fp32[2]\n  out %y\n}\n")
    with pytest.raises(UserError, match=r"g\.ir:3: output %y"):
        read_graph(tmp_path / "g.ir")


RIGHT = """graph g {
  in %x : fp32[4,8]
  const %w : fp32[8,8] = absent

  %y : fp32[4,8] = matmul(%x, %w)
  %z : fp32[4,8] = relu(%y)
  out %z
}
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("fp32[8,8]", "fp32[16,8]", r":5: graph g: matmul.*\n.*> %y : fp32\[4,8\] = matmul"),
        ("%y : fp32[4,8]", "%y : fp16[4,8]", r":5: graph g: "),
        (
            "relu(%y)",
            "relu(%yy)",
            r":6: operand %yy is not defined anywhere in the graph; did you mean 'y'\?\n.*\n +\^$",
        ),
        ("out %z", "out %q", r":7: output %q is not defined anywhere in the graph"),
        (
            "%z : fp32[4,8] = relu(%y)",
            "%y : fp32[4,8] = relu(%x)",
            r":6: %y is defined twice, first in line 5",
        ),
        ("relu", "tanhh", r":6: .*tanhh"),
        ("relu(%y)", "relu(%y, %x)", r":6: graph g: .*relu"),
        ("relu(%y)", "relu(%y", r":6: expected ','"),
    ],
)
def test_a_fault_is_told_with_its_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    file = tmp_path / "g.ir"
    file.write_text(RIGHT)
    read_graph(file)
    file.write_text(RIGHT.replace(old, new, 1))
    with pytest.raises(UserError) as caught:
        read_graph(file)
    assert re.match(re.escape(str(file)) + message, str(caught.value)), str(caught.value)


def test_a_byte_order_mark_is_no_part_of_a_text(tmp_path: Path) -> None:
    (tmp_path / "g.ir").write_text(RIGHT, encoding="utf-8-sig")
    assert read_graph(tmp_path / "g.ir").outputs == ("z",)


BIG = np.ones((8, 16), np.float32)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (
            ["weigth"],
            r"has no data for const %weight, but 'weigth', which is no .*right: 'weight'",
        ),
        (["zzz", "in:x"], r"has no data for const %weight, but 'zzz' and 1 more"),
        (["weight", "zzz"], ""),
        ([], ""),
    ],
)
def test_an_array_that_is_no_constants_is_told_where_one_lacks(
    keys: list[str], said: str, tmp_path: Path
) -> None:
    lines = (
        "  in %x : fp32[4,8]\n  const %spare : fp32[8,16] = absent\n  const %weight : fp32[8,16] = present\n"
    )
    node = "  %y : fp32[4,16] = matmul(%x, %weight)\n  out %y\n"
    (tmp_path / "g.ir").write_text(f"graph g {{\n{lines}{node}}}\n")
    np.savez(tmp_path / "g.npz", **dict.fromkeys(keys, BIG))
    if said:
        with pytest.raises(UserError, match=said):
            read_graph(tmp_path / "g.ir")
    else:
        assert read_graph(tmp_path / "g.ir").consts["weight"].present == ("weight" in keys)
