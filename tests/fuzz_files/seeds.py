"""Small files in good order, from which mutants are made: some of every kind that the tool reads."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mtia_emu.compiler import text
from mtia_emu.compiler.frontend import load
from mtia_emu.compiler.pipeline import lower, passes
from onnx import TensorProto, helper

from mtia_emu import api
from mtia_emu.conformance.cases import cases
from mtia_emu.errors import UserError
from mtia_emu.files.writing import json_text
from mtia_emu.gpu.load import gpu_text
from mtia_emu.machine.chip import chip_text
from mtia_emu.machine.drams import dram_text
from mtia_emu.results.report_json import as_json
from mtia_emu.serving.answers_json import as_json as served_json
from mtia_emu.serving.arrivals import synthetic
from mtia_emu.serving.length_files import parse_lengths
from mtia_emu.serving.rules import EngineRules
from mtia_emu.serving.served import serve
from mtia_emu.serving.simulate import Service
from mtia_emu.serving.step_table_file import read_table
from mtia_emu.sweeps.run import SweepRun, run
from mtia_emu.sweeps.spec import make_spec
from mtia_emu.system.load import system_text
from mtia_emu.types import FP16, FP32

from .checkpoint_files import folders, gguf_file
from .mutate import Files

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
MOST_SEED_BYTES = 1500
EVERY = 7  # one in so many of ONNX's own small test models is a seed
PROGRAMS = 12
GRAPHS = 60


@dataclass(frozen=True)
class Seed:
    """Files of one kind; the first is the one that is opened."""

    kind: str
    files: Files


def seeds(folder: Path) -> list[Seed]:
    """Return the seeds of every kind; `folder` is where some are made."""
    models = list(_models())
    found = [Seed("onnx", {"m.onnx": data}) for data in models]
    for make in (_programs, _graphs):
        found += make(models, folder)
    found += [
        _report(folder),
        _external(),
        *_arrays(),
        *_parameters(),
        *_specs(),
        *_stores(folder),
        *_histograms(),
        *_scenarios(folder),
        *(Seed("checkpoint", files) for files in folders()),
        Seed("gguf", {"m.gguf": gguf_file()}),
        *_systems(),
        *_requests(),
    ]
    return found


def _models() -> Iterator[bytes]:
    """Yield some of ONNX's own test models, and models of loops, functions and look-ups."""
    small = [
        c.model.SerializeToString() for c in cases() if c.model is not None and not c.name.endswith("_cuda")
    ]
    small = [data for data in small if len(data) <= MOST_SEED_BYTES]
    yield from small[::EVERY]
    for make in (_two_layers, _with_loop, _with_function):
        yield make()


def _value(name: str, shape: tuple[int, ...], kind: int = TensorProto.FLOAT) -> object:
    return helper.make_tensor_value_info(name, kind, shape)


def _saved(nodes: list[object], tensors: list[object], functions: tuple[object, ...] = ()) -> bytes:
    graph = helper.make_graph(nodes, "g", [_value("x", (2, 4))], [_value("y", (2, 3))], tensors)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    return bytes(
        helper.make_model(graph, opset_imports=opsets, functions=list(functions)).SerializeToString()
    )


def _weight(name: str = "w", shape: tuple[int, ...] = (4, 3)) -> object:
    return helper.make_tensor(name, TensorProto.FLOAT, shape, np.ones(shape, np.float32).reshape(-1))


def _two_layers() -> bytes:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Softmax", ["h"], ["y"])]
    return _saved(nodes, [_weight()])


def _with_loop() -> bytes:
    body = helper.make_graph(
        [helper.make_node("Add", ["a", "w"], ["b"]), helper.make_node("Identity", ["c"], ["d"])],
        "body",
        [_value("i", (), TensorProto.INT64), _value("c", (), TensorProto.BOOL), _value("a", (1, 3))],
        [_value("d", (), TensorProto.BOOL), _value("b", (1, 3))],
    )
    trips = helper.make_tensor("trips", TensorProto.INT64, (), [3])
    going = helper.make_tensor("going", TensorProto.BOOL, (), [True])
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["r"], axes=[1], keepdims=1),
        helper.make_node("Add", ["r", "w"], ["s"]),
        helper.make_node("Loop", ["trips", "going", "s"], ["y"], body=body),
    ]
    return _saved(nodes, [_weight("w", (1, 3)), trips, going])


def _with_function() -> bytes:
    inner = [helper.make_node("MatMul", ["a", "b"], ["m"]), helper.make_node("Relu", ["m"], ["o"])]
    made = helper.make_function("f", "F", ["a", "b"], ["o"], inner, [helper.make_opsetid("", 17)])
    return _saved([helper.make_node("F", ["x", "w"], ["y"], domain="f")], [_weight()], (made,))


def _external() -> Seed:
    """Return a model whose weight stands in a file beside it."""
    weight = TensorProto(
        name="w", dims=(4, 3), data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL
    )
    for key, value in (("location", "w.bin"), ("offset", "16"), ("length", "48")):
        weight.external_data.add(key=key, value=value)
    data = _saved([helper.make_node("MatMul", ["x", "w"], ["y"])], [weight])
    return Seed("external", {"m.onnx": data, "w.bin": b"\0\0\x80\x3f" * 16})


def _report(folder: Path) -> Seed:
    """Return a run's report, as `run --json` writes it."""
    (folder / "m.onnx").write_bytes(_two_layers())
    done = api.run(folder / "m.onnx", "tiny")
    return Seed("report", {"r.json": json_text(as_json(done.report, done.gpu, None)).encode()})


def _programs(models: list[bytes], folder: Path) -> list[Seed]:
    found: list[Seed] = []
    for data in [*models[-3:], *models[:: max(1, len(models) // PROGRAMS)]]:
        (folder / "m.onnx").write_bytes(data)
        with contextlib.suppress(UserError):
            program = api.compile_model(folder / "m.onnx", "tiny")
            api.save_program(program, folder / "p.mtia")
            found.append(Seed("program", {"p.mtia": (folder / "p.mtia").read_bytes()}))
    return found


def _graphs(models: list[bytes], folder: Path) -> list[Seed]:
    """Return texts of graphs, before and after the passes, one with an .npz file beside it."""
    found: list[Seed] = []
    for number, data in enumerate(models[:: max(1, len(models) // GRAPHS)]):
        (folder / "m.onnx").write_bytes(data)
        with contextlib.suppress(UserError):
            graph = load(folder / "m.onnx")
            made = lower(graph, passes(FP32, FP16)) if number % 2 else graph
            found.append(Seed("graph", {"g.ir": text.dump(made).encode()}))
    table = np.arange(128, dtype=np.float32).reshape(8, 16)
    body = f"graph g {{\n  in %x : fp32[2,8]\n  const %w : fp32[8,16] = {text.digest(table)}\n"
    body += "  %y : fp32[2,16] = matmul(%x, %w)\n  out %y\n}\n"
    return [*found, Seed("graph", {"g.ir": body.encode(), "g.npz": _npz(w=table)})]


def _npz(**arrays: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def _arrays() -> list[Seed]:
    x = np.ones((2, 4), np.float32)
    return [
        Seed("arrays", {"io.npz": _npz(x=x)}),
        Seed("arrays", {"io.npz": _npz(**{"in:x": x, "out:y": x})}),
    ]


def _parameters() -> list[Seed]:
    chips = [
        Seed("chip", {"c.toml": chip_text(name)[0].encode()}) for name in ("tiny", "systolic", "mtia-2i")
    ]
    gpus = [Seed("gpu", {"g.toml": gpu_text(name).encode()}) for name in ("h100-sxm", "mi300x")]
    return [
        *chips,
        *gpus,
        *(Seed("dram", {"d.toml": dram_text(n).encode()}) for n in ("lpddr5-6400", "ddr4-3200")),
    ]


SMALL_SCENARIO = """name = "small"
currency_year = 2024
baseline = "gpu"
[device.h100-sxm]
kind = "bought"
[work.w]
unit = "requests"
mean_per_s = { value = 1000, source = "x", status = "chosen" }
peak_over_mean = { value = 2, source = "x", status = "guess" }
[work.w.on.h100-sxm]
report = { file = "r.json", units = 2, error_share = 0.2 }
[work.v]
unit = "output tokens"
mean_per_s = { value = 1e5, source = "x", status = "chosen" }
peak_over_mean = { value = 2, source = "x", status = "guess" }
[work.v.on.h100-sxm]
report = { file = "served.json", counts = "output tokens", error_share = 0.2 }
[option.gpu]
w = "h100-sxm"
v = "h100-sxm"
"""
SPECS = (
    """chip = "tiny"
constraints = ["area_mm2 <= 450", "round(dram.channels / 2, 1) < 10 ** 3"]
method = "grid"
objectives = ["seconds", "joules"]
[[model]]
model = "zoo:dlrm-small"
dims = { batch = 2 }
weight = 1.5
[set]
"dram.channels" = [1, 2]
"pe.matrix.rows" = "8..32 step x2"
[link]
"pe.matrix.cols" = "max(pe.matrix.rows, 8) // 1"
""",
    """chip = "mtia-2i"
method = "latin"
points = 20
seed = 3
[[model]]
model = "zoo:llama-tiny"
name = "prefill"
[set]
"sram.bytes" = "67108864..268435456 step 67108864"
"clock_hz" = "1e9..2e9 log"
[silicon]
"cost.wafer_usd" = 10000.0
""",
)


def _specs() -> list[Seed]:
    return [Seed("spec", {"s.toml": body.encode()}) for body in SPECS]


def _stores(folder: Path) -> list[Seed]:
    """Return the stores of two sweeps of small chips."""
    found = []
    for number, varied in enumerate(
        ({"dram.channels": [1, 2]}, {"sram.bytes": [65536, 131072], "grid.rows": [1, 2]})
    ):
        values = {"chip": "tiny", "model": [{"model": "zoo:dlrm-small", "dims": {"batch": 2}}], "set": varied}
        path = folder / f"{number}.db"
        run(make_spec(values), SweepRun(path, jobs=0)).close()
        found.append(Seed("store", {"s.db": path.read_bytes()}))
    return found


def _histograms() -> list[Seed]:
    return [Seed("histogram", {"h.csv": b"# counts\nrows,lookups\n10,0.5\n100,0.8\n1000,1.0\n"})]


def _scenarios(folder: Path) -> list[Seed]:
    """Return the examples, and one whose rates are read from a report and from a file of requests served."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(EXAMPLES.glob("fleet-*.toml"))]
    load = synthetic("even", np.arange(20) / 2, parse_lengths("64"), parse_lengths("16"))
    service = Service(
        read_table(EXAMPLES / "step-table.json"), EngineRules(token_budget=1024, max_sequences=64)
    )
    rated = {"s.toml": SMALL_SCENARIO.encode(), **_report(folder).files}
    rated["served.json"] = json_text(served_json(serve(service, load))).encode()
    return [*(Seed("scenario", {"s.toml": text.encode()}) for text in texts), Seed("scenario", rated)]


def _systems() -> list[Seed]:
    named = ("dgx-h100", "mtia-300-rack")
    return [Seed("system", {"s.toml": system_text(name).encode()}) for name in named]


def _requests() -> list[Seed]:
    """Return a table of steps, traces as rows and as lines of JSON, and a histogram of lengths."""
    rows = (
        {"timestamp": 25 * i, "input_length": 9 + i, "output_length": 3, "hash_ids": [0, i]} for i in range(4)
    )
    return [
        Seed("steps", {"t.json": (EXAMPLES / "step-table.json").read_bytes()}),
        Seed(
            "trace", {"t.csv": b"\n".join((EXAMPLES / "requests.csv").read_bytes().split(b"\n")[:9]) + b"\n"}
        ),
        Seed("trace", {"t.jsonl": "".join(json.dumps(row) + "\n" for row in rows).encode()}),
        Seed("lengths", {"l.csv": b"tokens_from,weight\n16,0.25\n64,0.5\n512,0.25\n"}),
    ]


Make = Callable[[Path], list[Seed]]
