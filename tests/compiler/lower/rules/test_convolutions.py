"""Windows are read where they lie: right values, weights once a batch, of DRAM hardly more than must be."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from families import FAMILIES, write
from mtia_emu.compiler import pipeline, text
from mtia_emu.compiler.check import check
from onnx import TensorProto, helper, numpy_helper

from mtia_emu import api
from mtia_emu.errors import UserError
from mtia_emu.machine.chip import load_chip
from mtia_emu.zoo.models import MODELS

SMALL_SRAM = {"sram.bytes": 1 << 14, "sram.granule_bytes": 1 << 12}
BYTES = {"fp16": 2, "fp32": 4}


def moved(report: Any) -> int:
    """Return the bytes of DRAM that a run read or wrote."""
    return int(report.traffic.dram_read_bytes + report.traffic.dram_write_bytes)


def graph_of(lines: str) -> Any:
    return check(text.parse(f"graph g {{\n{lines}\n}}"))


def conv_text(attrs: Mapping[str, object]) -> str:
    given = {"strides": [1, 1], "dilations": [1, 1], "pads": [1, 1, 1, 1], "group": 1, "tape": '"1 -> x0 | "'}
    given |= {"to": '"fp16"'} | dict(attrs)
    return "{" + ", ".join(f"{k}={v}" for k, v in given.items()) + "}"


# ---- values


def spatial(rng: random.Random) -> dict[str, list[int]]:
    """Return random sizes, kernels, strides, dilations and pads of one to three axes."""
    rank = rng.choice([1, 2, 2, 3])
    return {
        "size": [rng.choice([1, 5, 8, 12]) for _ in range(rank)],
        "kernel_shape": [rng.choice([1, 2, 3, 5]) for _ in range(rank)],
        "strides": [rng.choice([1, 1, 2, 3]) for _ in range(rank)],
        "dilations": [rng.choice([1, 1, 2, 3]) for _ in range(rank)],
        "pads": [rng.choice([0, 1, 2]) for _ in range(2 * rank)],
    }


def out_sizes(w: dict[str, list[int]], transposed: bool) -> list[int]:
    out = []
    for axis, n in enumerate(w["size"]):
        k, s, d = w["kernel_shape"][axis], w["strides"][axis], w["dilations"][axis]
        pads, span = w["pads"][axis] + w["pads"][axis + len(w["size"])], (k - 1) * d + 1
        room = n + pads - span
        out.append(s * (n - 1) + span - pads if transposed else room // s + 1 if room >= 0 else 0)
    return out


def random_model(seed: int, path: Path) -> Path | None:
    """Write a convolution, plain or transposed, and a ReLU; None where the sizes drawn give no result."""
    rng, values = random.Random(seed), np.random.default_rng(seed)
    window, transposed, batch = spatial(rng), rng.random() < 0.4, rng.choice([1, 3])
    out, groups = out_sizes(window, transposed), rng.choice([1, 1, 2, 8])
    if min(out) < 1:
        return None
    inner, outer = (1, 1) if groups == 8 else (rng.choice([1, 3, 8]), rng.choice([1, 2, 8]))
    lead = (inner * groups, outer) if transposed else (outer * groups, inner)
    weight = values.standard_normal((*lead, *window["kernel_shape"])).astype(np.float32)
    bias = values.standard_normal(outer * groups).astype(np.float32)
    attrs = {k: v for k, v in window.items() if k != "size"} | {"group": groups}
    kind = "ConvTranspose" if transposed else "Conv"
    nodes = [helper.make_node(kind, ["x", "w", "b"], ["c"], **attrs), helper.make_node("Relu", ["c"], ["y"])]
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (
            ("x", (batch, inner * groups, *window["size"])),
            ("y", (batch, outer * groups, *out)),
        )
    ]
    consts = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")]
    graph = helper.make_graph(nodes, "conv", ports[:1], ports[1:], consts)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize("seed", range(24))
def test_values_are_those_of_onnxruntime(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTIA_EMU_CHECK", "1")
    path = random_model(seed, tmp_path / "m.onnx")
    if path is None:
        pytest.skip("the kernel is larger than what it slides over")
    settings = SMALL_SRAM if seed % 3 == 0 else {}
    done = api.run(path, "mtia-2i", settings=settings, check=True, gpu=None, dtype=("fp16", "fp32")[seed % 2])
    assert done.check is not None and done.check.passed


def long_convolution(path: Path, taps: int, kind: str = "Conv") -> Path:
    """Write a convolution, or a pool, of one axis and so many taps, over 2 channels."""
    weight = np.random.default_rng(taps).standard_normal((3, 2, taps)).astype(np.float32)
    names, attrs = (["x", "w"], {}) if kind == "Conv" else (["x"], {"kernel_shape": [taps]})
    ports = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 2, taps + 40)),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
    ]
    consts = [numpy_helper.from_array(weight, "w")] if kind == "Conv" else []
    node = helper.make_node(kind, names, ["y"], **attrs)
    graph = helper.make_graph([node], "long", ports[:1], ports[1:], consts)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_a_long_convolution_is_one_product(tmp_path: Path) -> None:
    """5,000 taps by onnxruntime; what is spelt place by place is refused beyond 4,096."""
    path = long_convolution(tmp_path / "long.onnx", 5000)
    done = api.run(path, "mtia-2i", check=True, gpu=None, dtype="fp16")
    assert done.check is not None and done.check.passed and done.report.macs == 3 * 2 * 5000 * 41
    with pytest.raises(UserError, match="at most 4096 places of this operator"):
        api.run(long_convolution(tmp_path / "pool.onnx", 5000, "MaxPool"), "mtia-2i", gpu=None)
    with pytest.raises(UserError, match="at most 65536 places of the kernel"):
        api.run(long_convolution(tmp_path / "longer.onnx", 70_000), "mtia-2i", gpu=None)


def test_an_operand_too_large_for_sram_comes_in_parts(tmp_path: Path) -> None:
    lines = (
        "in %x : fp16[4,16,24,24]\nconst %w : fp16[16,16,3,3] = absent\n"
        f"%y : fp16[4,16,24,24] = conv(%x, %w) {conv_text({})}\nout %y"
    )
    for settings, parts in (({}, 1), ({"sram.bytes": 1 << 16, "sram.granule_bytes": 1 << 14}, 12)):
        chip = load_chip("mtia-2i", settings)
        steps = pipeline.compile_graph(graph_of(lines), chip).schedule.steps
        assert sum(s.kernel == "matmul" for s in steps) == parts


# ---- traffic


@pytest.mark.parametrize(
    ("batch", "dtype"), [(1, "fp16"), (2, "fp16"), (8, "fp16"), (32, "fp16"), (2, "fp32")]
)
@pytest.mark.parametrize("family", FAMILIES)
def test_dram_moves_hardly_more_than_it_must(family: str, batch: int, dtype: str, tmp_path: Path) -> None:
    path, elements = write(family, batch, tmp_path)
    report = api.run(path, "mtia-2i", gpu=None, dtype=dtype, state="cold").report
    assert not any("found no room" in note for note in report.notes)
    assert elements * BYTES[dtype] * 0.99 < moved(report) < 1.15 * elements * BYTES[dtype]


@pytest.mark.deep
@pytest.mark.parametrize("batch", [1, 4, 16, 32])
def test_resnet_50_reads_its_weights_once_a_batch(batch: int) -> None:
    report = api.run("zoo:resnet-50", "mtia-2i", dims={"batch": batch}, gpu=None, state="cold").report
    weights = MODELS["resnet-50"].facts()["weight_bytes"]["value"]
    assert isinstance(weights, int)
    assert moved(report) < 1.15 * (weights + batch * 2 * (3 * 224 * 224 + 1000))
    assert report.macs == batch * 4_089_184_256
