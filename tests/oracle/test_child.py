"""The process that runs onnxruntime: what it answers, how it ends, and what it never does."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from mtia_emu import oracle
from mtia_emu.errors import UserError
from mtia_emu.oracle import child

pytest.importorskip("onnxruntime")
ROOT = Path(__file__).parents[2]
X = {"x": np.array([-1.5, 2.0], np.float32)}


def model(*ops: str) -> onnx.ModelProto:
    """Return a chain of unary operators from x to y."""
    names = ["x", *(f"v{i}" for i in range(1, len(ops))), "y"]
    nodes = [helper.make_node(op, [a], [b]) for op, a, b in zip(ops, names, names[1:], strict=False)]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2]) for n in "xy"]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """Start and end without a process: a test's own is nobody else's."""
    child.close()
    yield
    child.close()


def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Put a program in the place of the one that runs onnxruntime."""
    (tmp_path / "fake.py").write_text(text)
    monkeypatch.setattr(child, "SERVER", tmp_path / "fake.py")


def test_one_process_answers_many_models_and_is_replaced_when_it_was_killed() -> None:
    for _ in range(3):
        assert oracle.expected_outputs(model("Abs"), X).outputs["y"].tolist() == [1.5, 2.0]
    (first,) = child._children
    assert first.served == 3
    first.process.kill()
    assert oracle.expected_outputs(model("Neg"), X).outputs["y"].tolist() == [1.5, -2.0]
    assert child._children[0].process.pid != first.process.pid


def test_a_refusal_leaves_it_running() -> None:
    for _ in range(2):
        with pytest.raises(UserError, match=r"onnxruntime cannot run the model, .* NoSuchOp"):
            oracle.expected_outputs(model("NoSuchOp"), X)
    assert child._children[0].served == 2


def test_a_model_that_ends_the_process_is_left_to_another_oracle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(tmp_path, monkeypatch, "import os, sys; sys.stdin.buffer.readline(); os.kill(os.getpid(), 11)")
    found = oracle.expected_outputs(model("Abs"), X)
    assert (found.oracle, found.outputs["y"].tolist()) == ("onnx.reference", [1.5, 2.0])
    with pytest.raises(UserError, match=r"it died of signal 11 \(SIGSEGV\); onnx's evaluator cannot run the"):
        oracle.expected_outputs(model("NoSuchOp"), X)


def test_a_process_that_died_since_its_last_answer_is_not_the_models_fault() -> None:
    oracle.expected_outputs(model("Abs"), X)
    (dead,) = child._children
    dead.process.kill()
    dead.process.wait()
    dead.process.poll = lambda: None  # type: ignore[method-assign]  # as if it died just now
    assert oracle.expected_outputs(model("Abs"), X).oracle == "onnxruntime"


def test_numbers_of_every_kind_go_there_and_back() -> None:
    kinds = [np.float64, np.float16, np.int8, np.uint16, np.int64, np.bool_]
    for kind, shape in zip(kinds, [(), (0,), (2, 3), (2, 0, 1), (4,), (1, 1)], strict=True):
        x = np.ones(shape, kind)
        info = [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(x.dtype), shape) for n in "xy"
        ]
        graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", info[:1], info[1:])
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
        y = oracle.expected_outputs(proto, {"x": x}).outputs["y"]
        assert (y.dtype, y.shape) == (x.dtype, x.shape) and np.array_equal(y, x)


def test_what_has_no_numbers_is_refused() -> None:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.STRING, [1])],
        [helper.make_tensor_value_info("y", TensorProto.STRING, [1])],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    with pytest.raises(UserError, match="input x is not of numbers"):
        oracle.onnxruntime_outputs(proto, {"x": np.array(["a"], object)})


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel is asked to, by a call of Linux")
def test_it_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    """Stopped, it cannot see that nobody is there to ask."""
    onnx.save(model("Abs"), tmp_path / "m.onnx")
    script = (
        "import os, signal, sys, numpy as np; from pathlib import Path; from mtia_emu.oracle import child;"
        "child.ask(Path(sys.argv[1]), {'x': np.zeros(2, np.float32)});"
        "started = child._current().process; print(started.pid, flush=True);"
        "os.kill(started.pid, signal.SIGSTOP); os.kill(os.getpid(), signal.SIGKILL)"
    )
    words = [sys.executable, "-c", script, str(tmp_path / "m.onnx")]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    stat = Path(f"/proc/{int(done.stdout)}/stat")
    for _ in range(6000):  # a safety net: it is gone at once
        if not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.01)
    pytest.fail("it lives on")


def test_nothing_in_the_folder_is_imported_and_nothing_is_left(tmp_path: Path) -> None:
    """Files named as what it imports lie in the folder of the caller."""
    home = tmp_path / "home"
    home.mkdir()
    for name in ("onnxruntime", "numpy", "json", "ml_dtypes", "server"):
        (tmp_path / f"{name}.py").write_text("open('EXECUTED', 'w')\nraise SystemExit(3)\n")
    onnx.save(model("Abs"), home / "m.onnx")
    script = (
        "from pathlib import Path; import numpy as np; from mtia_emu import oracle;"
        "print(oracle.expected_outputs(Path('home/m.onnx'), {'x': np.zeros(2, np.float32)}).oracle)"
    )
    env = {k: v for k, v in os.environ.items() if not k.startswith(("ORT_", "XDG_"))} | {"HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-P", "-c", script],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "onnxruntime\n", done.stderr
    assert sorted(p.name for p in tmp_path.rglob("*") if p.suffix != ".py") == ["home", "m.onnx"]


def test_onnxruntime_is_imported_in_that_process_alone() -> None:
    """In ours it would write where it likes, die with us, and give products of bytes that saturate."""
    files = [
        p
        for d in ("mtia_emu", "compiler", "kernels", "tests", "docs", "examples")
        for p in (ROOT / d).rglob("*.py")
    ]
    found = [p.relative_to(ROOT).as_posix() for p in files if "onnxruntime" in _imports(p)]
    assert len(files) > 300 and found == ["mtia_emu/oracle/server.py"]


def _imports(path: Path) -> set[str]:
    text = path.read_text(encoding="utf-8")
    if "onnxruntime" not in text:
        return set()
    nodes: list[Any] = list(ast.walk(ast.parse(text)))
    plain = {alias.name for n in nodes if isinstance(n, ast.Import) for alias in n.names}
    return plain | {str(n.module) for n in nodes if isinstance(n, ast.ImportFrom)}
