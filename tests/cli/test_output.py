"""What commands print: text, whatever names hold, on whatever stands behind standard output."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from click.testing import Result
from onnx import TensorProto, helper

from mtia_emu.cli import output as cli_output

Cli = Callable[..., Result]
ODD = "\x1b[31mRED\x1b]0;title\x07\x9b2J\u202e<b>&\"'"
ACTED_ON = ("\x1b", "\x07", "\x9b", "\u202e")


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """Return a model each of whose names a terminal would obey."""
    x = helper.make_tensor_value_info(f"x{ODD}", TensorProto.FLOAT, (2, 4))
    y = helper.make_tensor_value_info(f"y{ODD}", TensorProto.FLOAT, None)
    weight = helper.make_tensor(f"w{ODD}", TensorProto.FLOAT, (4, 3), [1.0] * 12)
    nodes = [
        helper.make_node("MatMul", [f"x{ODD}", f"w{ODD}"], [f"h{ODD}"], name=f"n{ODD}"),
        helper.make_node("Relu", [f"h{ODD}"], [f"y{ODD}"], name=ODD),
    ]
    graph = helper.make_graph(nodes, ODD, [x], [y], [weight], doc_string=ODD)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], producer_name=ODD)
    onnx.save(model, str(tmp_path / "odd.onnx"))
    return tmp_path / "odd.onnx"


@pytest.mark.parametrize(
    "words",
    [
        *(
            "show --at onnx",
            "show --at graph",
            "show --at schedule",
            "show --at program",
            "run --check",
            "run --json -",
        ),
        *("explain", "opt --stats --why --print-after all", "opt -q --measure", "opt -q --verify-each"),
        *(
            "run --inputs {npz}",
            "run --dim {name}=3",
            "run --set {name}=3",
            "timeline -o {svg}",
            "opt -q --draw {svg}",
        ),
        *("timeline -o {svg} --layer {name}", "run --roofline {svg}"),
    ],
)
def test_no_command_sends_a_names_escapes_to_the_terminal(cli: Cli, odd: Path, words: str) -> None:
    (odd.parent / "io.npz").write_bytes(b"PK\x03\x04")
    command, *rest = words.split()
    places = {"npz": odd.parent / "io.npz", "svg": odd.parent / "d.svg", "name": ODD}
    done = cli(command, odd, *(word.format(**places) for word in rest), "--chip", "tiny")
    assert done.exit_code in (0, 2) and not any(c in done.stdout + done.stderr for c in ACTED_ON)
    if (odd.parent / "d.svg").exists():
        drawn = (odd.parent / "d.svg").read_text()
        assert "<b>" not in drawn and not any(c in drawn for c in ACTED_ON)


def test_a_compiled_program_is_shown_as_text(cli: Cli, odd: Path, tmp_path: Path) -> None:
    assert cli("compile", odd, "-o", tmp_path / "p.mtia", "--chip", "tiny").exit_code == 0
    shown = cli("show", tmp_path / "p.mtia", "--at", "program").stdout
    assert "\\x1b[31mRED" in shown and not any(c in shown for c in ACTED_ON)


@pytest.mark.parametrize("columns", ["0", "1", "20"])
def test_a_report_is_printed_whatever_the_width(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    shown = cli("gemm", 8, 8, 8, "--chip", "tiny", "--gpu", "none").stdout
    assert "Totals" in shown and "Energy" in shown
    assert max(map(len, shown.splitlines())) <= (80 if columns == "0" else 20)


def test_a_file_whose_name_is_not_utf_8(cli: Cli, odd: Path, tmp_path: Path) -> None:
    name = os.fsdecode(bytes(tmp_path) + b"/bad\xff.onnx")
    try:
        Path(name).write_bytes(odd.read_bytes())
    except OSError:
        pytest.skip("this file system has no such names")
    how = ("--chip", "tiny")
    assert cli("run", name, *how, "--gpu", "none", "--trace", tmp_path / "t.json").exit_code == 0
    assert cli("compile", name, *how, "-o", tmp_path / "p.mtia").exit_code == 0
    assert r"bad\\udcff" in cli("run", tmp_path / "p.mtia", "--gpu", "none", "--json", "-").stdout
    assert cli("run", f"{name}.gone", *how).exit_code == 2
    assert cli("sweep", "--model", name, "--set", "dram.channels=1", "-o", tmp_path / "s.db").exit_code == 2


def test_a_long_error_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    cli_output._fail("x" * 50_000)
    said = capsys.readouterr().err
    assert len(said) < 11_000 and said.endswith("xxx... (40000 more characters)\n")


@pytest.mark.parametrize(
    ("words", "closed", "code"),
    [("gemm 8 8 8 --chip tiny --gpu none", ">&-", 0), ("run nothing.onnx", ">&- 2>&- <&-", 2)],
)
def test_closed_streams(tmp_path: Path, words: str, closed: str, code: int) -> None:
    command = f"{sys.executable} -m mtia_emu.cli {words} --json {tmp_path}/r.json {closed}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == code and done.stderr == "" and done.stdout == ""
    assert (tmp_path / "r.json").exists() == (code == 0)
