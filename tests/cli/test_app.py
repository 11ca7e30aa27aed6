"""The command line: what it accepts, prints, writes and refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import Result
from mtia_emu.compiler.stages import STAGES
from onnx import TensorProto, helper

from mtia_emu.results.report_json import SCHEMA

Cli = Callable[..., Result]
Refused = Callable[..., str]
COMMANDS = ("run", "compile", "show", "opt", "reduce", "gemm", "tbe", "chips", "gpus", "zoo")
KEYS = {
    "schema", "model", "chip", "dtype", "dims", "cycles", "seconds", "joules", "watts", "macs", "utilization",
    "traffic", "joules_by", "layers",
}  # fmt: skip
TRAFFIC = {
    "local_read_bytes", "local_write_bytes", "sram_read_bytes", "sram_write_bytes", "dram_read_bytes",
    "dram_write_bytes", "noc_bytes", "host_bytes",
}  # fmt: skip
JOULES = {"compute", "local", "sram", "dram", "noc", "control", "static", "clock"}
LAYER = {
    "name",
    "op",
    "kernel",
    "start_cycle",
    "end_cycle",
    "macs",
    "dram_bytes",
    "sram_bytes",
    "joules",
    "bound_by",
    "ops",
}
TBE = ("tbe", "--tables", 3, "--rows", 40, "--dim", 16, "--pooling", 5, "--batch", 6)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return an ONNX file: y[batch, 3] = x[batch, 4] @ w, and the sum of y."""
    weight = helper.make_tensor("w", TensorProto.FLOAT, (4, 3), np.arange(12, dtype=np.float32) / 8)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="fc"),
             helper.make_node("ReduceSum", ["y"], ["total"], name="sum", keepdims=0)]  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "two",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("batch", 4))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("batch", 3)),
         helper.make_tensor_value_info("total", TensorProto.FLOAT, ())],
        [weight],
    )  # fmt: skip
    path = tmp_path / "two.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def parsed(result: Result) -> dict[str, Any]:
    """Return the JSON that a run printed."""
    assert result.exit_code in (0, 1), result.output
    return dict(json.loads(result.stdout))


# ---- help


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples_and_fits_80_columns(
    cli: Cli, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = cli(command, "--help").stdout
    assert f"mtia-emu {command}" in text and "Example" in text
    assert max(map(len, text.splitlines())) <= 80


def test_the_list_of_commands_is_whole_and_uncut(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = cli("--help").stdout
    assert all(f"\n  {command} " in text for command in COMMANDS)
    assert "..." not in text.partition("Options:")[2]
    assert max(map(len, text.splitlines())) <= 80


def test_no_command_greets_and_says_where_help_is(cli: Cli) -> None:
    assert "Three things to do first" in cli().output and "mtia-emu --help" in cli().output
    assert "Usage: main" in cli("--help").output


# ---- run


def test_json_has_the_documented_keys(cli: Cli) -> None:
    report = parsed(cli("run", "zoo:dlrm-small", "--dim", "batch=4", "--check", "--json", "-"))
    assert report.keys() >= KEYS | {"gpu", "versus_gpu", "check"}
    assert report["schema"] == SCHEMA and report["dims"]["batch"] == 4
    assert report["traffic"].keys() == TRAFFIC and report["joules_by"].keys() == JOULES
    assert sum(report["joules_by"].values()) == pytest.approx(report["joules"], rel=1e-12)
    assert report["watts"] == pytest.approx(report["joules"] / report["seconds"])
    assert all(layer.keys() >= LAYER for layer in report["layers"])
    assert report["layers"][-1]["end_cycle"] == report["cycles"]
    assert {"name", "seconds", "joules", "layers"} <= report["gpu"].keys()
    assert {"speed", "energy", "perf_per_watt"} <= report["versus_gpu"].keys()
    assert {"max_abs_error", "max_rel_error", "outputs"} <= report["check"].keys()
    assert report["check"]["passed"] is True


def test_json_and_tables_go_where_they_are_told(cli: Cli, tmp_path: Path) -> None:
    result = cli("run", "zoo:llama-tiny", "--json", tmp_path / "r.json", "--gpu", "none")
    report = json.loads((tmp_path / "r.json").read_text())
    assert "gpu" not in report and "Slowest layers" in result.stdout and result.stderr == ""


@pytest.mark.parametrize("dims", [(), ("seq=1", "past=15"), ("batch=2", "seq=5", "past=3")])
def test_the_small_decoder_passes_its_check(cli: Cli, dims: tuple[str, ...]) -> None:
    given = [part for dim in dims for part in ("--dim", dim)]
    report = parsed(cli("run", "zoo:llama-tiny", *given, "--check", "--json", "-"))
    assert report["check"]["passed"]
    wide = parsed(cli("run", "zoo:llama-tiny", *given, "--check", "--dtype", "fp32", "--json", "-"))
    assert wide["check"]["passed"] and wide["check"]["tolerance"] == 1e-2  # of the oracle's fp16


def test_the_small_recommender_passes_its_check(cli: Cli) -> None:
    assert cli("run", "zoo:dlrm-small", "--check", "--seed", 7).exit_code == 0


def test_int8_has_its_own_tolerance(cli: Cli) -> None:
    report = parsed(cli("run", "zoo:llama-tiny", "--dtype", "int8", "--check", "--json", "-"))
    assert report["check"]["tolerance"] == 5e-2 and report["check"]["passed"]


def test_a_failed_check_exits_1(cli: Cli, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mtia_emu import oracle

    right = oracle.ask
    monkeypatch.setattr(oracle, "ask", lambda *a: {k: v + 1 for k, v in right(*a).items()})
    result = cli("run", model, "--dim", "batch=2", "--check", "--json", "-")
    assert result.exit_code == 1 and json.loads(result.stdout)["check"]["passed"] is False
    shown = cli("run", model, "--dim", "batch=2", "--check").stdout
    assert "Check against onnxruntime\n  FAILED" in shown


def test_the_check_says_who_was_asked(cli: Cli) -> None:
    result = cli("gemm", 4, 5, 6, "--dtype", "int8", "--check", "--json", "-")
    assert parsed(result)["check"]["oracle"] == "onnxruntime, products of integers exactly"


def test_inputs_and_outputs(cli: Cli, model: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(1).standard_normal((5, 4)).astype(np.float32)
    np.savez(tmp_path / "io.npz", **{"in:x": x, "out:y": np.zeros(1)})
    result = cli("run", model, "--inputs", tmp_path / "io.npz", "--outputs", tmp_path / "out.npz", "--check",
                 "--dtype", "fp32", "--json", "-")  # fmt: skip
    assert parsed(result)["check"]["passed"] and parsed(result)["dims"] == {}
    with np.load(tmp_path / "out.npz") as out:
        assert sorted(out) == ["out:total", "out:y"]
        right = x @ (np.arange(12, dtype=np.float32) / 8).reshape(4, 3)
        np.testing.assert_allclose(out["out:y"], right, rtol=1e-5)
        assert out["out:total"].shape == () and out["out:y"].dtype == np.float32


def test_inputs_of_another_number_type_are_converted_for_the_oracle_too(
    cli: Cli, model: Path, tmp_path: Path
) -> None:
    np.savez(tmp_path / "io.npz", x=np.ones((2, 4), np.float64))
    assert parsed(cli("run", model, "--inputs", tmp_path / "io.npz", "--check", "--json", "-"))["check"][
        "passed"
    ]


def test_trace_and_roofline(cli: Cli, tmp_path: Path) -> None:
    result = cli("run", "zoo:dlrm-small", "--dim", "batch=2", "--check", "--trace", tmp_path / "t.json",
                 "--roofline", tmp_path / "r.svg")  # fmt: skip
    assert result.exit_code == 0
    assert json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    assert b"<svg" in (tmp_path / "r.svg").read_bytes()[:500]


def test_a_run_is_a_page_on_one_chip_and_over_many(cli: Cli, tmp_path: Path) -> None:
    page = tmp_path / "run.html"
    small = ("run", "zoo:llama-tiny", "--dim", "seq=2")
    assert cli(*small, "--gpu", "none", "--html", page).exit_code == 0
    assert "Every layer on the roofline" in page.read_text() and "What bounds next" in page.read_text()
    assert cli(*small, "--system", "mtia-2i-server", "--parallel", "tp=2", "--html", page).exit_code == 0
    text = page.read_text()
    assert "Exchanges" in text and "links" in text and "on the roofline" not in text


def test_the_trace_of_an_execution_ends_where_its_report_does(tmp_path: Path) -> None:
    from mtia_emu import api
    from mtia_emu.study.trace import trace_events

    done = api.run("zoo:dlrm-small", dims={"batch": 3}, check=True, gpu=None)
    events = [e for e in trace_events(done.program, done.chip, done.lookups) if e.track == "layer"]
    assert len(events) == len(done.program.launches)
    assert events[-1].end_cycle == done.report.cycles == max(x.end_cycle for x in done.report.layers)


@pytest.mark.parametrize(
    "key", ["pe.simd.bytes_per_cycle=8", "dram.channels=2", "energy.leakage_w_per_mm2=1"]
)
def test_settings_change_the_chip(cli: Cli, key: str) -> None:
    plain = parsed(cli("run", "zoo:llama-tiny", "--json", "-"))
    changed = parsed(cli("run", "zoo:llama-tiny", "--set", key, "--json", "-"))
    assert (plain["cycles"], plain["joules"]) != (changed["cycles"], changed["joules"])


def test_a_chip_from_a_file(cli: Cli, tmp_path: Path) -> None:
    from mtia_emu.machine.chip import chip_text

    (tmp_path / "mine.toml").write_text(chip_text("tiny")[0].replace('name = "tiny"', 'name = "mine"'))
    report = parsed(cli("run", "zoo:llama-tiny", "--chip", tmp_path / "mine.toml", "--json", "-"))
    assert report["chip"] == "mine"
    assert "pe.matrix.rows" in cli("chips", tmp_path / "mine.toml").stdout


# ---- operators


@pytest.mark.parametrize("kind", ["fp16", "fp32", "int8"])
@pytest.mark.parametrize("place", ["sram", "dram"])
def test_gemm(cli: Cli, kind: str, place: str, tmp_path: Path) -> None:
    report = parsed(cli("gemm", 33, 70, 20, "--dtype", kind, "--place", place, "--check", "--json", "-",
                        "--outputs", tmp_path / "o.npz"))  # fmt: skip
    assert report["check"]["passed"] and report["macs"] == 33 * 70 * 20 and report["dtype"] == kind
    assert (report["check"]["max_abs_error"] == 0) >= (kind == "int8")
    assert np.load(tmp_path / "o.npz")["out:product"].shape == (33, 20)


@pytest.mark.parametrize("kind", ["fp16", "fp32", "int8"])
@pytest.mark.parametrize("skew", ["uniform", "zipf:1.2", "histogram:dlrm-2022"])
def test_tbe(cli: Cli, kind: str, skew: str) -> None:
    report = parsed(cli(*TBE, "--dtype", kind, "--skew", skew, "--check", "--json", "-"))
    assert report["check"]["passed"]
    assert report["dims"] == {"tables": 3, "rows": 40, "dim": 16, "pooling": 5, "batch": 6}


def test_operands_in_sram_are_not_read_from_dram(cli: Cli) -> None:
    from_dram, from_sram = (
        parsed(cli("gemm", 64, 64, 64, "--place", place, "--json", "-"))["traffic"]["dram_read_bytes"]
        for place in ("dram", "sram")
    )
    assert from_sram < from_dram


# ---- compile, show, listings


def test_compiled_programs_run_alike(cli: Cli, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "two.mtia"
    assert "2 launches" in cli("compile", model, "--dim", "batch=2", "-o", out).stdout
    np.savez(tmp_path / "io.npz", x=np.ones((2, 4), np.float32))
    direct = parsed(
        cli("run", model, "--inputs", tmp_path / "io.npz", "--json", "-", "--outputs", tmp_path / "a.npz")
    )
    saved = parsed(
        cli("run", out, "--inputs", tmp_path / "io.npz", "--json", "-", "--outputs", tmp_path / "b.npz")
    )
    assert direct["cycles"] == saved["cycles"] and direct["joules"] == saved["joules"]
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    slower = parsed(cli("run", out, "--set", "dram.channels=1", "--json", "-"))
    assert slower["cycles"] > saved["cycles"]


def test_programs_name_no_folder_of_the_machine(cli: Cli, model: Path, tmp_path: Path) -> None:
    from mtia_emu.program import file as program_file

    cli("compile", model, "--dim", "batch=2", "-o", tmp_path / "a.mtia")
    cli("compile", "zoo:llama-tiny", "-o", tmp_path / "b.mtia")
    assert program_file.load(tmp_path / "a.mtia").source == "two.onnx"
    assert program_file.load(tmp_path / "b.mtia").source == "zoo:llama-tiny"


@pytest.mark.parametrize("stage", [stage.at for stage in STAGES if stage.at])
def test_show(cli: Cli, stage: str) -> None:
    text = cli("show", "zoo:llama-tiny", "--at", stage, "--commands", 3).stdout
    assert "matmul" in text and text.endswith("\n")


def test_show_a_program(cli: Cli, refused: Refused, model: Path, tmp_path: Path) -> None:
    cli("compile", model, "--dim", "batch=2", "-o", tmp_path / "p.mtia")
    assert "block 0 matmul" in cli("show", tmp_path / "p.mtia", "--at", "program").stdout
    nouns = {"onnx": "onnx graph", "fused": "fused graph", "graph": "graph", "schedule": "schedule"}
    for stage, noun in nouns.items():
        words = f"it has no {noun} (right: --at program)"
        assert words in refused("show", tmp_path / "p.mtia", "--at", stage)


def test_listings(cli: Cli) -> None:
    assert "mtia-2i" in cli("chips").stdout and "pe.local.bytes" in cli("chips", "mtia-2i").stdout
    assert "h100-sxm" in cli("gpus").stdout and "tdp_w" in cli("gpus", "h100-sxm").stdout
    assert "zoo:llama-3-8b" in cli("zoo").stdout
    assert (
        cli("zoo", "llama-3-8b").stdout.splitlines()[2:]
        == cli("zoo", "zoo:llama-3-8b").stdout.splitlines()[2:]
    )


# ---- what is refused


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["run", "zoo:lama-tiny"], "unknown model 'lama-tiny'; did you mean 'llama-tiny'?"),
        (["run", "llama-tiny"], "model 'llama-tiny' is not a file; did you mean 'zoo:llama-tiny'?"),
        (["run", "zoo:llama-tiny", "--chip", "mtia-2"], "unknown chip 'mtia-2'; did you mean 'mtia-2i'?"),
        (["run", "zoo:llama-tiny", "--gpu", "h100"], "did you mean 'h100-pcie' or 'h100-sxm'?"),
        (["run", "zoo:llama-tiny", "--dtype", "fp17"], "fp16"),
        (["run", "zoo:llama-tiny", "--dtype", "int16"], "--dtype int16"),
        (["run", "zoo:llama-tiny", "--dim", "sec=2"], "did you mean 'seq'?"),
        (["run", "zoo:llama-tiny", "--dim", "seq=0"], "dimension 'seq' is 0: it must be an integer from 1"),
        (["run", "zoo:llama-tiny", "--dim", "seq"], "not NAME=INT"),
        (["run", "zoo:llama-tiny", "--dim", "seq=²"], "not NAME=INT"),
        (["run", "zoo:llama-tiny", "--dim", "seq=1", "--dim", "seq=2"], "gives 'seq' twice, as 1 and as 2"),
        (["run", "zoo:llama-tiny", "--set", "pe.matrix.row=2"], "did you mean 'pe.matrix.rows'?"),
        (["run", "zoo:llama-tiny", "--set", "clock_hz"], "not KEY=VALUE (right: --set pe.matrix.rows=64)"),
        (["run", "zoo:llama-tiny", "--set", "clock_hz=nan"], "'clock_hz' is nan"),
        (["run", "zoo:llama-tiny", "--set", "clock_hz=" + "[" * 5000], "'clock_hz' is '[[["),
        (["run", "zoo:llama-tiny", "--outputs", "x.npz"], "--outputs needs an execution: give --inputs"),
        (["run", "zoo:llama-3-8b", "--check"], "needs 15,316.5 MB of random weights"),
        (["run", "zoo:llama-tiny", "--json", "/no/such/r.json"], "--json '/no/such/r.json': the folder"),
        (["run", "zoo:llama-tiny", "--roofline", "r.pdf"], ".svg or .png"),
        (["run", "zoo:llama-tiny", "--html", "r.htm"], "a page is .html (right: --html run.html)"),
        (["run", "zoo:llama-tiny", "--html", "/no/such/r.html"], "the folder '/no/such' does not exist"),
        (["gemm", "8", "8", "8", "--dtype", "int7"], "unknown dtype 'int7'; did you mean 'int8'?"),
        (["gemm", "8", "8", "8", "--dtype", "bf16", "--check"], "onnxruntime cannot run operator.onnx"),
        ([*map(str, TBE), "--skew", "zipf:nan"], "(right: --skew zipf:1.05)"),
        (["chips", "mtia-4"], "unknown chip 'mtia-4'; did you mean 'mtia-1'?"),
        (["gpus", "h200"], "unknown gpu 'h200'"),
        (["zoo", "llama"], "unknown model 'llama'"),
        (["compile", "zoo:llama-tiny", "-o", "/no/such/p.mtia"], "the folder '/no/such' does not exist"),
        (["compile", "zoo:llama-tiny", "-o", "."], "it is a folder; name a file in it"),
    ],
)  # fmt: skip
def test_refusals_say_what_would_be_right(refused: Refused, args: list[str], words: str) -> None:
    assert words in refused(*args)


def test_files_that_are_not_there(refused: Refused, model: Path, tmp_path: Path) -> None:
    near = refused("run", tmp_path / "tow.onnx")
    assert f"did you mean '{model}'?" in near
    folder = refused("run", tmp_path)
    assert f"is a folder; did you mean '{model}'?" in folder
    assert "x.npz: not an .npz file" in refused("run", model, "--inputs", tmp_path / "x.npz")


def test_an_input_name_that_is_wrong(refused: Refused, cli: Cli, model: Path, tmp_path: Path) -> None:
    cli("compile", model, "--dim", "batch=2", "-o", tmp_path / "p.mtia")
    np.savez(tmp_path / "a.npz", xx=np.ones((2, 4), np.float32))
    for what in (model, tmp_path / "p.mtia"):
        assert "unknown input 'xx'; did you mean 'x'? (known: x)" in refused(
            "run", what, "--inputs", tmp_path / "a.npz"
        )
    np.savez(tmp_path / "b.npz", **{"x": np.ones((2, 4)), "in:x": np.ones((2, 4))})
    assert "input 'x' is given twice" in refused("run", model, "--inputs", tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", x=np.ones((3, 4), np.float32))
    words = "input 'x' is given as float32[3, 4]; the model takes fp32[2,4]"
    assert words in refused("run", tmp_path / "p.mtia", "--inputs", tmp_path / "c.npz")


def test_what_a_program_has_settled_already(refused: Refused, cli: Cli, model: Path, tmp_path: Path) -> None:
    program = tmp_path / "p.mtia"
    cli("compile", model, "--dim", "batch=2", "-o", program)
    for extra in (["--dim", "batch=3"], ["--dtype", "fp32"], ["--check"], ["--no-prefetch"]):
        assert f"{extra[0]} has no meaning for a compiled program" in refused("run", program, *extra)
    assert "is compiled already" in refused("compile", program, "-o", tmp_path / "q.mtia")
    assert not (tmp_path / "q.mtia").exists()


def test_weights_that_are_absent(refused: Refused, cli: Cli, model: Path, tmp_path: Path) -> None:
    proto = onnx.load(model)
    weight = proto.graph.initializer[0]
    weight.ClearField("float_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="weights.bin")
    onnx.save(proto, tmp_path / "bare.onnx")
    assert cli("run", tmp_path / "bare.onnx", "--dim", "batch=2").exit_code == 0
    words = refused("run", tmp_path / "bare.onnx", "--dim", "batch=2", "--check")
    assert "bare: 1 of 1 weights are absent (first: %w" in words
    assert "leave out --check and --inputs" in words
    (tmp_path / "weights.bin").write_bytes(np.ones(12, np.float32).tobytes())
    assert cli("run", tmp_path / "bare.onnx", "--dim", "batch=2", "--check").exit_code == 0


def test_more_memory_than_is_allowed(refused: Refused, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTIA_EMU_MEMORY_BYTES", "1000000")
    words = refused("run", model, "--dim", "batch=1000000", "--check")
    assert "at most 1000000 are allowed; set MTIA_EMU_MEMORY_BYTES higher" in words


def test_a_model_name_with_control_characters_is_not_obeyed(
    refused: Refused, model: Path, tmp_path: Path
) -> None:
    proto = onnx.load(model)
    proto.graph.node[0].op_type = "Mat\x1b[31mMul"
    onnx.save(proto, tmp_path / "m.onnx")
    words = refused("run", tmp_path / "m.onnx", "--dim", "batch=1")
    assert "\x1b" not in words and "\\x1b[31m" in words


def test_completion() -> None:
    from mtia_emu.cli import options as cli_options

    found = cli_options.complete("model", files=(".onnx",))(None, None, "zoo:llama-t")  # type: ignore[arg-type]
    assert found == ["zoo:llama-tiny"]
    assert "pe.matrix.rows=" in cli_options.names("key") and "none" in cli_options.names("gpu")


def test_an_operator_has_a_type_that_the_chip_multiplies(cli: Cli) -> None:
    sizes = ("gemm", 512, 512, 512, "--chip", "tpu-v6e", "--gpu", "none")
    near, asked = parsed(cli(*sizes, "--json", "-")), parsed(cli(*sizes, "--dtype", "fp16", "--json", "-"))
    assert near["dtype"] == "bf16" and any("runs as bf16" in note for note in near["notes"])
    assert asked["dtype"] == "fp16" and any("SIMD engine" in note for note in asked["notes"])
    assert near["seconds"] < asked["seconds"]
