"""Where models come from: a graph's text is taken wherever a model is, with its weights beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from mtia_emu.compiler.graph import Const
from mtia_emu.compiler.graph_file import write_graph
from mtia_emu.compiler.text import parse

import mtia_emu

Cli = Callable[..., Result]
Refused = Callable[..., str]
CHIP = ("--chip", "tiny")
TEXT = """graph g {
  in %x : fp32[4,16]
  const %w : fp32[16,8] = absent
  %y : fp32[4,8] = matmul(%x, %w)
  %z : fp32[4,8] = relu(%y)
  out %z
}
"""


@pytest.fixture
def weights() -> np.ndarray:
    return np.arange(128, dtype=np.float32).reshape(16, 8) / 64 - 1


@pytest.fixture
def model(tmp_path: Path, weights: np.ndarray) -> Path:
    graph = parse(TEXT)
    write_graph(tmp_path / "g.ir", type(graph)(graph.name, graph.nodes, graph.inputs, graph.outputs, {
        "w": Const(graph.consts["w"].type, weights)
    }))  # fmt: skip
    return tmp_path / "g.ir"


def test_a_run_computes_the_graph_with_the_weights_beside_it(
    cli: Cli, model: Path, weights: np.ndarray, tmp_path: Path
) -> None:
    x = np.linspace(-1, 1, 64, dtype=np.float32).reshape(4, 16)
    np.savez(tmp_path / "io.npz", x=x)
    out = tmp_path / "out.npz"
    done = cli("run", model, *CHIP, "--gpu", "none", "--inputs", tmp_path / "io.npz", "--outputs", out)
    assert done.exit_code == 0
    with np.load(out) as arrays:
        np.testing.assert_allclose(arrays["out:z"], np.maximum(x @ weights, 0), atol=2e-2)


def test_a_check_holds_the_graph_to_the_references_of_its_ops_and_says_so(cli: Cli, model: Path) -> None:
    done = cli("run", model, *CHIP, "--gpu", "none", "--check", "--json", "-")
    check = json.loads(done.stdout)["check"]
    assert done.exit_code == 0 and check["passed"] and check["oracle"] == "the references of its ops"


def test_weights_that_are_not_there_are_no_obstacle_to_timing(
    cli: Cli, refused: Refused, model: Path
) -> None:
    model.with_suffix(".npz").unlink()
    assert cli("run", model, *CHIP).exit_code == 0
    assert "1 of 1 weights are absent" in refused("run", model, *CHIP, "--check")


def test_every_command_takes_a_graph(cli: Cli, model: Path, tmp_path: Path) -> None:
    onnx = json.loads(cli("run", model, *CHIP, "--gpu", "none", "--json", "-").stdout)
    assert cli("compile", model, *CHIP, "-o", tmp_path / "p.mtia").exit_code == 0
    same = json.loads(cli("run", tmp_path / "p.mtia", "--gpu", "none", "--json", "-").stdout)
    assert same == onnx and onnx["model"] == "g"
    assert "relu" in cli("show", model, *CHIP, "--at", "onnx").stdout
    explained = json.loads(cli("explain", model, *CHIP, "--json", "-").stdout)
    assert explained["seconds"] == onnx["seconds"]
    assert cli("timeline", model, *CHIP, "-o", tmp_path / "t.svg").exit_code == 0
    spec = {"chip": "tiny", "gpu": "none", "model": [{"model": str(model)}]}
    (row,) = mtia_emu.sweep(spec, jobs=0)
    assert row["seconds"] == pytest.approx(onnx["seconds"])


def test_a_model_written_as_text_runs_as_it_did(cli: Cli, tmp_path: Path) -> None:
    dims = ("--dim", "seq=2")
    written = tmp_path / "d.ir"
    cli("opt", "zoo:llama-tiny", *dims, "--passes", "", "-q", "-o", written)
    first, second = (
        json.loads(cli("run", *words, *CHIP, "--json", "-").stdout)
        for words in (("zoo:llama-tiny", *dims), (written,))
    )
    assert first["layers"] == second["layers"] and first["gpu"] == second["gpu"]


def test_shapes_of_a_graph_are_bound(refused: Refused, model: Path, tmp_path: Path) -> None:
    assert "its shapes are bound" in refused("run", model, "--dim", "batch=2")
    np.savez(tmp_path / "io.npz", x=np.zeros((3, 16), np.float32))
    message = refused("run", model, "--inputs", tmp_path / "io.npz")
    assert "input %x is fp32[4,16]; the array given is [3, 16]" in message


def test_a_missing_file_is_told_of_with_what_may_be_meant(refused: Refused, model: Path) -> None:
    message = refused("run", model.with_name("h.ir"))
    assert "a graph's text FILE.ir" in message and "did you mean" in message
