"""What SCALE-Sim reads becomes a chip and a model that take the cycles that SCALE-Sim prints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from click.testing import Result
from hypothesis import given, settings
from hypothesis import strategies as st

from mtia_emu import api
from mtia_emu.errors import UserError
from mtia_emu.imports.scale_sim import SystolicArray, chip_text, read_array, read_topology
from mtia_emu.machine.chip import load_chip

Cli = Callable[..., Result]
CONFIG = """
[general]
run_name = an example
[architecture_presets]
ArrayHeight:    16
ArrayWidth:     8
IfmapSramSzkB:   64
FilterSramSzkB:  32
OfmapSramSzkB:   16
Bandwidth : 10
Dataflow : {flow}
[run_presets]
InterfaceBandwidth: {interface}
"""
CONVOLUTIONS = """Layer name, IFMAP Height, Width, Filter Height, Width, Channels, Num Filter, Strides,
a,16,16,3,3,8,20,1,
odd,16,17,3,3,8,4,2,
pt,9,7,1,1,40,33,1,
big,12,11,5,3,4,40,3,
"""
PRODUCTS = "Layer, M, N, K,\nfirst, 20, 24, 40,\n\nsecond, 1, 9, 33,1:1,\n"
# Total Cycles of each layer by SCALE-Sim 3.0.0 (PyPI, numpy 1.26) on a 16 x 8 array, memories never stalling;
# it prints the last cycle's index, one less than the count.
PRINTED = {
    "ws": (3509, 509, 1514, 1079),
    "os": (3665, 375, 1239, 409),
    "is": (7249, 1679, 1703, 623),
}


def written(
    folder: Path, topology: str = CONVOLUTIONS, flow: str = "ws", interface: str = "CALC"
) -> list[Path]:
    """Write a configuration and a topology, and return their paths."""
    paths = [folder / "array.cfg", folder / "net.csv"]
    for path, text in zip(paths, (CONFIG.format(flow=flow, interface=interface), topology), strict=True):
        path.write_text(text)
    return paths


def imported(cli: Cli, folder: Path, *given: Path) -> str:
    """Import two files into a folder and return what is printed."""
    done = cli("import", "scale-sim", *map(str, given), "-o", str(folder))
    assert done.exit_code == 0, done.output
    return str(done.output)


@pytest.mark.parametrize("flow", PRINTED)
def test_the_array_takes_the_cycles_that_scale_sim_prints(flow: str, tmp_path: Path) -> None:
    config, topology = written(tmp_path, flow=flow)
    array = read_array(config)
    cycles = tuple(layer.array_cycles(array) - 1 for layer in read_topology(topology))
    assert cycles == PRINTED[flow]


@pytest.mark.parametrize("text", [CONVOLUTIONS, PRODUCTS])
def test_a_run_takes_the_arrays_time(text: str, tmp_path: Path, cli: Cli) -> None:
    """Patches of images are copied besides, a cycle each; columns of a fold that are empty are not loaded."""
    config, topology = written(tmp_path, text)
    out = imported(cli, tmp_path, config, topology)
    right = sum(layer.array_cycles(read_array(config)) for layer in read_topology(topology))
    assert f"{right:,} cycles" in out
    report = api.run(tmp_path / "net.onnx", str(tmp_path / "array.toml"), gpu=None).report
    assert report.cycles == pytest.approx(right, rel=0.03)


def test_the_chip_has_what_the_configuration_says(tmp_path: Path, cli: Cli) -> None:
    config, topology = written(tmp_path, flow="os", interface="USER")
    imported(cli, tmp_path, config, topology)
    chip = load_chip(str(tmp_path / "array.toml"))
    assert chip.name == "an_example" and chip.pe.local.bytes == 112 * 1024 * 2
    assert (chip.pe.matrix.rows, chip.pe.matrix.cols, chip.pe.matrix.dataflow) == (16, 8, "os")
    assert chip.dram.bytes_per_s == pytest.approx(3 * 10 * 2 * chip.clock_hz)
    free = load_chip(str(_chip_file(tmp_path, replace(read_array(config), bandwidth=None))))
    assert free.dram.bytes_per_s > 1e15


def _chip_file(folder: Path, array: SystolicArray) -> Path:
    path = folder / "free.toml"
    path.write_text(chip_text(array))
    return path


def test_shapes_of_results_are_those_of_the_topology(tmp_path: Path, cli: Cli) -> None:
    text = CONVOLUTIONS + "DP1,8,8,3,3,4,2,1,\n"
    imported(cli, tmp_path, *written(tmp_path, text))
    model = onnx.load(tmp_path / "net.onnx", load_external_data=False)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    assert len(inferred.graph.output) == 5
    depthwise = read_topology(tmp_path / "net.csv")[-1]
    assert (depthwise.groups, depthwise.product, depthwise.macs) == (4, (36, 9, 2), 4 * 36 * 9 * 2)


def test_depthwise_layers_that_leave_the_array_are_told(tmp_path: Path, cli: Cli) -> None:
    """With one filter a channel no product of matrices is left."""
    files = written(tmp_path, CONVOLUTIONS.splitlines()[0] + "\nDP1,8,8,3,3,4,1,1,\nDP2,8,8,3,3,4,2,1,\n")
    assert "ideal here, in no time: 1\n" in imported(cli, tmp_path, *files)
    alone, both = read_topology(files[1])
    assert alone.on_simd and not both.on_simd
    report = api.run(tmp_path / "net.onnx", str(tmp_path / "array.toml"), gpu=None).report
    assert report.macs == both.macs


WRONG = [
    ("", "no layers"),
    ("Layer, M, N, K,\n", "no layers"),
    ("Layer, M, N, K,\na, 1, 2,\n", "line 2: 3 cells"),
    ("Layer, M, N, K,\na, 1, -2, 3,\n", "line 2: '-2'"),
    ("Layer, M, N, K,\na, 1, 1e9, 3,\n", "'1e9'"),
    ("Layer, M, N, K,\na, 16777216, 16777216, 16777216,\n", "too large"),
    ("Layer, M, N, K,\na, 4, 4, 4, 2:4,\n", "sparse"),
    (CONVOLUTIONS + "x,2,2,3,3,1,1,1,\n", "line 6: a filter of 3 x 3"),
    (CONVOLUTIONS + "x,2,2,\n", "line 6: 3 cells"),
    ("Layer, M, N, K,\n" + "x" * 200_000 + ", 1, 2, 3\n", "field larger"),
]


@pytest.mark.parametrize(("text", "said"), WRONG)
def test_a_wrong_topology_is_refused(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"net\.csv") as error:
        read_topology(written(tmp_path, text)[1])
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("ArrayWidth:     8", "", "no ArrayWidth"),
        ("16", "0", "ArrayHeight"),
        ("Dataflow : ws", "Dataflow : ws\nDataflow : os", "already exists"),
        ("Dataflow : ws", "Dataflow : rs", "os, ws, is"),
        ("CALC", "MAYBE", "CALC or USER"),
        (
            "10\nDataflow : ws\n[run_presets]\nInterfaceBandwidth: CALC",
            "\nDataflow : ws\n[run_presets]\nInterfaceBandwidth: USER",
            "Bandwidth: ''",
        ),
        ("[general]", "general", "no SCALE-Sim configuration"),
        ("[run_presets]", "[presets]", "run_presets"),
    ],
)
def test_a_wrong_configuration_is_refused(old: str, new: str, said: str, tmp_path: Path) -> None:
    config, _ = written(tmp_path)
    config.write_text(config.read_text().replace(old, new))
    with pytest.raises(UserError, match=r"array\.cfg") as error:
        read_array(config)
    assert said in str(error.value)


@settings(max_examples=100)
@given(text=st.text(max_size=200))
def test_any_text_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("any") / "file"
    path.write_text(text, encoding="utf-8")
    for read in (read_array, read_topology):
        try:
            read(path)
        except UserError as error:
            assert str(path) in str(error)


def test_nothing_is_overwritten_and_a_missing_file_is_named(tmp_path: Path, cli: Cli) -> None:
    config, topology = written(tmp_path)
    imported(cli, tmp_path, config, topology)
    again = cli("import", "scale-sim", str(config), str(topology), "-o", str(tmp_path))
    assert again.exit_code == 2 and "is there already" in again.output
    with pytest.raises(UserError, match=r"none\.cfg: is not a file"):
        read_array(tmp_path / "none.cfg")
