"""Files made to do harm: one clear error, bounded memory, nothing half-written."""

from __future__ import annotations

import os
import random
import resource
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import Result
from onnx import TensorProto, helper

from mtia_emu.machine.chip import chip_text

Cli = Callable[..., Result]
Refused = Callable[..., str]
GIB = 1 << 30


def limited(*args: object, gib: float = 3.0) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process that cannot have more memory than that, nor more than 60 CPU s."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (int(gib * GIB),) * 2)
        resource.setrlimit(resource.RLIMIT_CPU, (60, 60))

    words = [sys.executable, "-m", "mtia_emu.cli", *map(str, args)]
    env = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        words, capture_output=True, text=True, check=False, preexec_fn=limit, env=env, timeout=900
    )


def refused_within(*args: object, gib: float = 3.0) -> str:
    """Return the one error of a command that is refused in little memory, without running out of it."""
    done = limited(*args, gib=gib)
    assert done.returncode == 2, done.stderr[-2000:]
    assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr
    assert "out of memory" not in done.stderr
    return done.stderr


def value(name: str, shape: Any = (2, 4), kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def saved(
    path: Path,
    nodes: list[onnx.NodeProto],
    tensors: list[onnx.TensorProto] | None = None,
    shape: Any = (2, 4),
) -> Path:
    """Write a model of x to y."""
    graph = helper.make_graph(nodes, "g", [value("x", shape)], [value("y", None)], tensors or [])
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()
    )
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a small model in good order."""
    weight = helper.make_tensor("w", TensorProto.FLOAT, (4, 3), np.ones(12, np.float32))
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])]
    return saved(tmp_path / "good.onnx", nodes, [weight])


# ---- models


def test_truncated_models(cli: Cli, model: Path, tmp_path: Path) -> None:
    data = model.read_bytes()
    for size in range(0, len(data), 3):
        (tmp_path / "cut.onnx").write_bytes(data[:size])
        assert cli("run", tmp_path / "cut.onnx", "--json", "-").exit_code in (0, 2)


def test_mutated_models(cli: Cli, model: Path, tmp_path: Path) -> None:
    data = model.read_bytes()
    np.savez(tmp_path / "io.npz", x=np.ones((2, 4), np.float32))
    codes = []
    for seed in range(150):
        rng = random.Random(seed)
        bad = bytearray(data)
        for _ in range(rng.choice([1, 2, 6])):
            bad[rng.randrange(len(bad))] = rng.randrange(256)
        (tmp_path / "bad.onnx").write_bytes(bad)
        codes.append(
            cli("run", tmp_path / "bad.onnx", "--inputs", tmp_path / "io.npz", "--json", "-").exit_code
        )
    assert set(codes) == {0, 2}


def test_a_cycle(refused: Refused, tmp_path: Path) -> None:
    nodes = [helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Relu", ["a"], ["b"]),
             helper.make_node("Neg", ["b"], ["y"])]  # fmt: skip
    words = refused("run", saved(tmp_path / "m.onnx", nodes))
    assert "cycl" in words or "depend on" in words


@pytest.mark.parametrize("shape", [(1 << 40, 1 << 40), (1 << 62,), (-5, 4), (1 << 20, 1 << 20)])
def test_huge_dimensions(tmp_path: Path, shape: tuple[int, ...]) -> None:
    nodes = [helper.make_node("Exp", ["x"], ["a"]), helper.make_node("MatMul", ["a", "x"], ["y"])]
    refused_within("run", saved(tmp_path / "m.onnx", nodes, shape=shape))


def test_huge_results(tmp_path: Path) -> None:
    size = helper.make_tensor("size", TensorProto.INT64, (3,), [1 << 20, 1 << 20, 1 << 20])
    nodes = [helper.make_node("ConstantOfShape", ["size"], ["c"]), helper.make_node("Add", ["x", "c"], ["y"])]
    refused_within("run", saved(tmp_path / "m.onnx", nodes, [size], shape=(1, 1, 1)))


def bounded(*args: object) -> str:
    """Return what a command prints, on either stream, that ends by itself in little memory."""
    done = limited(*args)
    assert done.returncode in (0, 2), done.stderr[-2000:]
    assert "Traceback" not in done.stderr and "out of memory" not in done.stderr
    return done.stdout + done.stderr


def test_huge_work(tmp_path: Path) -> None:
    assert "Totals" in bounded("gemm", 1 << 22, 1 << 12, 1 << 12, "--gpu", "none")
    assert "takes more than" in bounded("gemm", 1 << 20, 1 << 20, 1 << 20)
    sizes = ["--tables", 1 << 16, "--rows", 20, "--dim", 1, "--pooling", 1, "--batch", 1 << 24]
    assert "Totals" in bounded("tbe", *sizes, "--gpu", "none")
    path = saved(tmp_path / "m.onnx", [helper.make_node("Exp", ["x"], ["y"])], shape=(1 << 36, 4))
    bounded("run", path)


def test_execution_larger_than_memory_is_refused_before_inputs_are_made(model: Path, tmp_path: Path) -> None:
    path = saved(tmp_path / "m.onnx", [helper.make_node("Exp", ["x"], ["y"])], shape=(1 << 17, 1 << 16))
    assert "at most 8589934592 are allowed" in refused_within("run", path, "--check")


@pytest.mark.parametrize(
    "location",
    ["../secret", "/etc/passwd", "a/../../secret", "link", "folder/inner", "..", "", "a\0b", "\\x"],
)
def test_external_data_outside_the_folder(refused: Refused, tmp_path: Path, location: str) -> None:
    home = tmp_path / "model"
    home.mkdir()
    (tmp_path / "secret").write_bytes(b"\0" * 64)
    (home / "link").symlink_to(tmp_path / "secret")
    (home / "folder").symlink_to(tmp_path)
    (tmp_path / "inner").write_bytes(b"\0" * 64)
    weight = TensorProto(
        name="w", dims=(4, 4), data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL
    )
    weight.external_data.add(key="location", value=location)
    path = saved(home / "m.onnx", [helper.make_node("MatMul", ["x", "w"], ["y"])], [weight])
    words = refused("run", path, "--check")
    assert "tensor %w: external data at" in words and "folder" in words


@pytest.mark.parametrize(
    ("key", "text"),
    [("offset", "-8"), ("length", "9" * 30), ("offset", "1e3"), ("offset", str(1 << 62)), ("length", "1")],
)
def test_external_data_that_lies_about_its_place(
    refused: Refused, tmp_path: Path, key: str, text: str
) -> None:
    (tmp_path / "w.bin").write_bytes(b"\0" * 64)
    weight = TensorProto(
        name="w", dims=(4, 4), data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL
    )
    for name, entry in (("location", "w.bin"), (key, text)):
        weight.external_data.add(key=name, value=entry)
    path = saved(tmp_path / "m.onnx", [helper.make_node("MatMul", ["x", "w"], ["y"])], [weight])
    assert "%w" in refused("run", path, "--check")


def test_a_pipe_a_device_and_a_folder_are_no_models(refused: Refused, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    for path in (tmp_path / "pipe.onnx", "/dev/zero", tmp_path):
        assert "is not a file" in refused("run", path) or "is a folder" in refused("run", path)


# ---- inputs


def npy(descr: str, shape: str, data: bytes = b"\0" * 32, order: str = "False") -> bytes:
    """Return the bytes of an .npy file with that header."""
    header = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header.encode() + data


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (("'<f4'", "(4611686018427387904, 4)"), "claims"),
        (("'<f4'", "(2, 5)"), "does not hold the 40 bytes that it claims"),
        (("'<f4'", "(-2, 4)"), "shape"),
        (("'|O'", "(2, 4)"), "holds Python objects"),
        (("'<U4'", "(2, 1)"), "not numbers"),
        (("[('a', '<f4')]", "(2, 4)"), "not numbers"),
        (("'<M8[ns]'", "(2, 2)"), "not numbers"),
        (("__import__('os')", "(2, 4)"), "not an .npz file"),
        (("'<f4'", "(" * 900 + "2" + ")" * 900), "not an .npz file"),
        (("'<f4'", "(1,) * 10 ** 9"), "not an .npz file"),
    ],
)
def test_arrays_that_lie(
    refused: Refused, model: Path, tmp_path: Path, header: tuple[str, str], words: str
) -> None:
    with zipfile.ZipFile(tmp_path / "io.npz", "w") as file:
        file.writestr("x.npy", npy(*header))
    assert words in refused("run", model, "--inputs", tmp_path / "io.npz")


def test_pickles_are_not_opened(refused: Refused, model: Path, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "opened"),)

    np.savez(tmp_path / "io.npz", x=np.array([Bomb()], object))
    assert "holds Python objects" in refused("run", model, "--inputs", tmp_path / "io.npz")
    assert not (tmp_path / "opened").exists()


def test_a_zip_bomb_for_inputs(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "io.npz"
    with zipfile.ZipFile(path, "w") as file:
        for name in "xyz":
            file.writestr(f"{name}.npy", npy("'<f4'", "(1073741000,)"))
    data = path.read_bytes()
    for name in (b"x", b"y", b"z"):  # the directory's word on the size of each
        at = data.rindex(b"PK\x01\x02", 0, data.rindex(name + b".npy"))
        data = data[: at + 24] + struct.pack("<I", 0xFFFFFF00) + data[at + 28 :]
    path.write_bytes(data)
    assert "at most 8589934592 are read" in refused_within("run", model, "--inputs", path, gib=2)


def test_a_zip_bomb_in_an_array(model: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "io.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        file.writestr("x.npy", npy("'<f4'", "(2, 4)", bytes(1 << 27)))
    words = refused_within("run", model, "--inputs", tmp_path / "io.npz", gib=2)
    assert "does not hold the 32 bytes that it claims" in words


def test_mutated_inputs(cli: Cli, model: Path, tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "io.npz", x=np.ones((2, 4), np.float32), unused=np.ones(3))
    np.savez_compressed(tmp_path / "io.npz", x=np.random.default_rng(0).random((2, 4)))
    data = (tmp_path / "io.npz").read_bytes()
    codes = set()
    for seed in range(200):
        rng = random.Random(seed)
        bad = bytearray(data)
        for _ in range(rng.choice([1, 1, 4])):
            bad[rng.randrange(len(bad))] = rng.randrange(256)
        (tmp_path / "bad.npz").write_bytes(bad if seed % 5 else bad[: rng.randrange(len(bad))])
        codes.add(
            cli("run", model, "--inputs", tmp_path / "bad.npz", "--gpu", "none", "--json", "-").exit_code
        )
    assert codes == {0, 2}


# ---- chips and GPUs


@pytest.mark.parametrize("flag", ["--chip", "--gpu"])
@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe\0\0" * 100,
        b"a = " + b"[" * 100_000,
        b"a = " + b"[" * 900 + b"]" * 900,
        b"x" * (2 << 20),
        b"",
        b"clock_hz = nan\n",
        b"grid = 3\n",
        b"a." * 900 + b"b = 1\n",
        b"a." * 50_000 + b"b = 1\n",
        b"name = '" + b"y" * 1900 + b"'\n",
        b"clock_hz = " + b"9" * 5000,
        b"clock_hz = " + b"9" * 1900,
    ],
)
def test_chip_and_gpu_files_that_are_none(
    tmp_path: Path, refused: Refused, flag: str, content: bytes
) -> None:
    (tmp_path / "bad.toml").write_bytes(content)
    words = refused("run", "zoo:llama-tiny", flag, tmp_path / "bad.toml")
    assert "bad.toml" in words and len(words) < 20_000


@pytest.mark.parametrize(
    "value_", ["nan", "inf", "-inf", "-1", "0", "1e400", "'x'", "[]", "true", "1979-05-27"]
)
@pytest.mark.parametrize("key", ["clock_hz", "pe.matrix.rows", "dram.channels", "sram.bytes_per_s"])
def test_chip_values_that_cannot_be(refused: Refused, key: str, value_: str) -> None:
    assert key in refused("run", "zoo:llama-tiny", "--set", f"{key}={value_}", "--gpu", "none")


def test_unknown_keys_in_a_chip_file(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("clock = 1.0\n" + chip_text("tiny")[0])
    assert "unknown key 'clock'; did you mean 'clock_hz'?" in refused("chips", tmp_path / "c.toml")


def test_mutated_chip_files(cli: Cli, tmp_path: Path) -> None:
    text = chip_text("tiny")[0]
    numbers = [m for m in range(len(text)) if text[m].isdigit()]
    for seed in range(60):
        rng = random.Random(seed)
        bad = list(text)
        for _ in range(rng.choice([1, 3])):
            bad[rng.choice(numbers) if seed % 3 else rng.randrange(len(text))] = rng.choice(
                "0123456789e.-_nai'[]\n"
            )
        (tmp_path / "c.toml").write_text("".join(bad))
        done = cli("run", "zoo:llama-tiny", "--dim", "seq=2", "--chip", tmp_path / "c.toml", "--gpu", "none")
        assert done.exit_code in (0, 2)


# ---- files to write


@pytest.mark.parametrize("flag", ["--json", "--trace", "--outputs", "--roofline", "--html"])
def test_nothing_is_left_half_written(
    refused: Refused, tmp_path: Path, flag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    target = tmp_path / ("out.html" if flag == "--html" else "out.svg")
    target.write_text("before")
    words = refused("run", "zoo:dlrm-small", "--dim", "batch=2", "--check", flag, target, "--json", "-"
                    if flag != "--json" else target)  # fmt: skip
    assert "the disk is full" in words
    assert list(tmp_path.iterdir()) == [target] and target.read_text() == "before"
