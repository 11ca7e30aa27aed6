"""The GPU reference: physics it must not break, and faults it must name."""

from __future__ import annotations

import random
import re
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from hypothesis import given
from hypothesis import strategies as st

from mtia_emu.errors import UserError
from mtia_emu.gpu import FALLBACK, Gpu, Mode, gpu_names, gpu_text, load_gpu
from mtia_emu.gpu.facts import ELEMENT_BYTES
from mtia_emu.results.report import Band
from mtia_emu.types import (
    BF16,
    DTYPES,
    FP16,
    FP32,
    INT8,
    INT64,
    BagWork,
    CopyWork,
    DType,
    ElementwiseWork,
    ImplicitGemmWork,
    ModelWork,
    ProductWork,
    RotaryWork,
    RowWork,
    Work,
    WorkGroup,
    dtype,
)

BOUNDS = {"tensor", "dram", "l2", "launch", "occupancy", "power"}
NAMES = gpu_names()

gpus = st.sampled_from(NAMES).map(load_gpu)
sizes = st.integers(1, 20_000)
kinds = st.sampled_from([BF16, FP16, FP32, INT8, dtype("fp8_e4m3"), INT64])


def matmul_work(m: int, k: int, n: int, kind: DType = BF16, batch: int = 1, name: str = "mm") -> ProductWork:
    """Return a matmul with every operand byte once."""
    read, write = batch * (m * k + k * n) * kind.bytes, batch * m * n * kind.bytes
    sizes = {"batch": batch, "m": m, "k": k, "n": n, "flops": 0}
    return ProductWork(name, "matmul", kind, read_bytes=read, write_bytes=write, **sizes)


def bag_work(lookups: int, bags: int, dim: int, rows: int, kind: DType = FP16) -> Work:
    """Return an embedding bag with distinct rows, indices and offsets read once."""
    read = min(lookups, rows) * dim * kind.bytes + 8 * lookups + 8 * (bags + 1)
    sizes = {"lookups": lookups, "bags": bags, "dim": dim, "rows": rows, "flops": lookups * dim}
    write = bags * dim * kind.bytes
    return BagWork("bag", "embedding_bag", kind, read_bytes=read, write_bytes=write, **sizes)


def vector_work(elements: int, kind: DType = FP16, op: str = "vector") -> Work:
    """Return an elementwise add, or a copy."""
    size = elements * kind.bytes
    if op == "move":
        return CopyWork("v", "copy", kind, read_bytes=size, write_bytes=size)
    return ElementwiseWork(
        "v", "add", kind, elements=elements, flops=elements, read_bytes=2 * size, write_bytes=size
    )


def row_work(rows: int, row: int, kind: type[RowWork] | type[RotaryWork] = RowWork) -> Work:
    """Return work of fp16 on rows, an operation an element."""
    size = 2 * rows * row
    given = {"elements": rows * row, "flops": rows * row, "read_bytes": size, "write_bytes": size}
    return kind("", "", FP16, row=row, **given)


works = st.one_of(
    st.builds(matmul_work, sizes, sizes, sizes, kinds, st.integers(1, 64)),
    st.builds(
        bag_work, st.integers(0, 10**7), st.integers(1, 10**5), st.integers(1, 1024), st.integers(1, 10**8)
    ),
    st.builds(vector_work, st.integers(0, 10**9), kinds, st.sampled_from(["vector", "move"])),
)


def run(gpu: Gpu, items: list[Work], launch: str = "graph", sustained: bool = False) -> Any:
    """Return the report of the works on the GPU."""
    asked = ModelWork(tuple(items), model="m", dtype="bf16", dims={"b": 1})
    return gpu.report(asked, Mode(launch, sustained=sustained))


@given(gpus, sizes, sizes, sizes, kinds, st.integers(1, 64))
def test_never_below_the_datasheet_roofline(
    gpu: Gpu, m: int, k: int, n: int, kind: DType, batch: int
) -> None:
    seconds = gpu.matmul_seconds(m, k, n, kind, batch)
    operand_bytes = batch * (m * k + k * n + m * n) * kind.bytes
    assert seconds >= 2 * batch * m * k * n / gpu.rate(kind.name)[1].flops_per_s
    assert seconds >= operand_bytes / gpu.dram_bytes_per_s
    assert seconds >= gpu.launch_graph_s


@given(gpus, sizes, sizes, sizes, kinds, st.integers(1, 16), st.integers(1, 500), st.sampled_from("mknb"))
def test_matmul_never_gets_faster_by_growing(
    gpu: Gpu, m: int, k: int, n: int, kind: DType, batch: int, more: int, axis: str
) -> None:
    before = gpu.matmul_seconds(m, k, n, kind, batch)
    grown = {"m": m, "k": k, "n": n, "b": batch}
    grown[axis] += more
    after = gpu.matmul_seconds(grown["m"], grown["k"], grown["n"], kind, grown["b"])
    assert after >= before * (1 - 1e-9)  # strict: the least over plans, each of them monotone


@given(gpus, st.lists(works, max_size=6), st.sampled_from(["graph", "stream", "host"]), st.booleans())
def test_reports_add_up_and_keep_the_power_limit(
    gpu: Gpu, items: list[Work], launch: str, sustained: bool
) -> None:
    report = run(gpu, items, launch, sustained)
    assert len(report.layers) == sum(bool(w.macs or w.flops or w.read_bytes or w.write_bytes) for w in items)
    now = 0
    for layer in report.layers:
        assert now == layer.start_cycle <= layer.end_cycle
        now = layer.end_cycle
        assert layer.joules >= 0 and layer.dram_bytes >= 0 and layer.sram_bytes >= 0
        assert layer.bound_by in BOUNDS
        # a cycle of slack: the layer's cycles are rounded, its joules are not
        assert layer.joules <= gpu.tdp_w * (layer.end_cycle - layer.start_cycle + 1) / gpu.clock_hz
    assert report.cycles == now
    assert sum(layer.joules for layer in report.layers) == pytest.approx(report.joules)
    assert report.traffic.dram_read_bytes + report.traffic.dram_write_bytes == sum(
        layer.dram_bytes for layer in report.layers
    )
    assert all(v >= 0 for v in vars(report.joules_by).values()) and all(
        v >= 0 for v in vars(report.traffic).values()
    )
    assert report.utilization >= 0
    assert report.joules >= gpu.idle_w * report.seconds * 0.99 or report.cycles < 100


@given(gpus, works)
def test_a_steady_state_is_never_faster_than_a_burst(gpu: Gpu, work: Work) -> None:
    steady = gpu.kernel(work, mode=Mode(sustained=True))
    assert steady.seconds >= gpu.kernel(work, mode=Mode(sustained=False)).seconds * (1 - 1e-9)


@given(gpus, works)
def test_no_kernel_moves_more_than_dram_can(gpu: Gpu, work: Work) -> None:
    k = gpu.kernel(work)
    assert (k.dram_read_bytes + k.dram_write_bytes) <= gpu.dram_bytes_per_s * k.seconds * (1 + 1e-9)
    assert k.joules <= gpu.tdp_w * k.seconds * (1 + 1e-9)


@given(gpus, st.integers(1, 10**6), st.integers(1, 10**6), st.sampled_from([8, 64, 128, 256]))
def test_more_lookups_take_longer(gpu: Gpu, lookups: int, more: int, dim: int) -> None:
    few = gpu.kernel(bag_work(lookups, 100, dim, 10**6)).seconds
    assert gpu.kernel(bag_work(lookups + more, 100, dim, 10**6)).seconds >= few


def test_short_rows_pay_whole_sectors() -> None:
    gpu = load_gpu("h100-sxm")
    short, whole = (gpu.kernel(bag_work(10**6, 10**4, dim, 10**8, INT8)) for dim in (8, 64))
    assert short.dram_read_bytes == pytest.approx(whole.dram_read_bytes, rel=0.02)


@given(gpus, st.integers(1, 10**8), st.integers(1, 10**7))
def test_more_elements_take_longer(gpu: Gpu, elements: int, more: int) -> None:
    assert gpu.kernel(vector_work(elements + more)).seconds >= gpu.kernel(vector_work(elements)).seconds


def test_small_tensors_stay_in_l2_and_large_ones_stream() -> None:
    gpu = load_gpu("a100-sxm-80gb")
    small, large = gpu.kernel(vector_work(10**6)), gpu.kernel(vector_work(10**9))
    assert small.dram_read_bytes == 0 and small.l2_read_bytes == 4 * 10**6
    assert 6e9 / large.seconds == pytest.approx(gpu.stream_bytes_per_s, rel=0.01)


def test_bounds_are_named() -> None:
    gpu = load_gpu("h100-sxm")
    assert gpu.kernel(matmul_work(8192, 8192, 8192)).bound_by == "power"
    assert gpu.kernel(matmul_work(1, 8192, 8192)).bound_by == "dram"
    assert gpu.kernel(matmul_work(1, 64, 64)).bound_by == "launch"
    cool = load_gpu("h100-sxm", {"tdp_w": "2000"})
    assert cool.kernel(matmul_work(8192, 8192, 8192)).bound_by == "tensor"


def test_power_limit_slows_large_matmuls_only() -> None:
    cold, hot = load_gpu("h100-sxm"), load_gpu("h100-sxm", {"tdp_w": "400"})
    assert hot.matmul_seconds(8192, 8192, 8192, "bf16") > 1.1 * cold.matmul_seconds(8192, 8192, 8192, "bf16")
    assert hot.matmul_seconds(1, 512, 512, "bf16") == cold.matmul_seconds(1, 512, 512, "bf16")


def test_decode_power_is_the_fit_of_its_source() -> None:
    """A long weight stream draws 328 W + 67.8 pJ/B x bandwidth + 0.74 pJ/FLOP x rate (H100 decode fit)."""
    gpu, work = load_gpu("h100-sxm"), matmul_work(8, 16384, 65536)
    k = gpu.kernel(work, mode=Mode(sustained=False))
    rate, bandwidth = 2 * work.macs / k.seconds, (k.dram_read_bytes + k.dram_write_bytes) / k.seconds
    assert k.joules / k.seconds == pytest.approx(328 + 67.8e-12 * bandwidth + 0.74e-12 * rate, rel=0.01)


def test_a_launch_idles_and_a_kernel_that_runs_is_active() -> None:
    gpu = load_gpu("h100-sxm")
    k = gpu.kernel(vector_work(64))
    assert k.active == pytest.approx((gpu.active_w - gpu.idle_w) * (k.seconds - gpu.launch_graph_s))
    assert k.static == pytest.approx(gpu.idle_w * k.seconds)


def test_a_board_that_draws_less_is_cooler() -> None:
    """At a quarter of the power that the limit leaves, an operation costs a quarter of the heat more."""
    gpu, burst = load_gpu("h100-sxm"), Mode(sustained=False)
    room = gpu.tdp_w - gpu.idle_w
    for joules, warmth in ((room / 4, 0.25), (2 * room, 1.0)):
        assert gpu.board().heat(1.0, joules) == pytest.approx(1 + (gpu.sustained_heat - 1) * warmth)
    assert gpu.board(burst).heat(1e-9, room * 1e-9) == pytest.approx(1.0)
    assert gpu.board(burst).heat(10.0, 10 * room) == pytest.approx(gpu.sustained_heat)


def test_joules_of_short_kernels_are_in_more_doubt() -> None:
    """The band is each kernel's, by joules; what launches wait for beyond the graph's period is certain."""
    gpu = load_gpu("h100-sxm")
    short, long = matmul_work(1, 64, 64), matmul_work(4096, 4096, 4096)
    bands, (few, many) = gpu.bands, (gpu.kernel(x).joules for x in (short, long))
    mixed = run(gpu, [short, long], sustained=True)
    assert mixed.joules_band == Band(
        pytest.approx((bands.short_joules.low * few + bands.joules.low * many) / (few + many)),
        pytest.approx((bands.short_joules.high * few + bands.joules.high * many) / (few + many)),
    )
    waits = run(gpu, [short], "host", sustained=True)
    idle = gpu.idle_w * (gpu.launch_host_s - gpu.launch_graph_s)
    assert waits.joules_band is not None
    assert waits.joules_band.low == pytest.approx((bands.short_joules.low * few + idle) / (few + idle))
    assert run(gpu, []).joules_band is None
    assert any("100% of the joules of h100-sxm are of kernels below 15 us" in x for x in waits.notes) is True
    assert not any("joules" in x for x in run(gpu, [long]).notes)


def test_stream_launches_cost_their_longer_period() -> None:
    gpu, items = load_gpu("h100-sxm"), [matmul_work(1, 64, 64)] * 100
    gap = run(gpu, items, "stream").seconds - run(gpu, items).seconds
    assert gap == pytest.approx(100 * (gpu.launch_stream_s - gpu.launch_graph_s), rel=1e-3)


def test_empty_work_is_dropped() -> None:
    nothing = CopyWork("r", "reshape", FP16, read_bytes=0, write_bytes=0)
    report = run(load_gpu("h100-sxm"), [nothing])
    assert (report.layers, report.cycles, report.joules, report.utilization) == ((), 0, 0.0, 0.0)


def test_a_group_runs_as_one_kernel_where_it_is_marked() -> None:
    gpu = load_gpu("h100-sxm")
    works = tuple(vector_work(10**6 + i) for i in range(4))
    whole = vector_work(3 * 10**6)
    asked = ModelWork(works, (WorkGroup(whole, (0, 2), 2),), dtype="fp16")
    fused, apart = gpu.report(asked), gpu.report(asked, Mode(fused=False))
    times = [gpu.kernel(w).seconds for w in (works[1], whole, works[3])]
    assert [x.dram_bytes for x in fused.layers] == [
        k.dram_read_bytes + k.dram_write_bytes for k in map(gpu.kernel, (works[1], whole, works[3]))
    ]
    assert fused.seconds == pytest.approx(sum(times), abs=1 / gpu.clock_hz) and len(apart.layers) == 4


def test_a_short_matmul_has_the_band_of_short_ones() -> None:
    gpu = load_gpu("h100-sxm")
    assert gpu.bands.of("matmul", 19.9e-6) is gpu.bands.short_matmul
    assert gpu.bands.of("matmul", 20e-6) is gpu.bands.matmul
    assert gpu.bands.of("attention", 1e-6) is gpu.bands.attention
    assert gpu.bands.of("move", 1e-6) is gpu.bands.vector
    few, many = (run(gpu, [matmul_work(n, n, n, FP16)]).seconds_band for n in (64, 8192))
    assert few is not None and many is not None and few.high > many.high


def test_every_dtype_runs_and_a_borrowed_rate_is_noted() -> None:
    for name in NAMES:
        gpu = load_gpu(name)
        for kind in DTYPES.values():
            assert gpu.matmul_seconds(64, 64, 64, kind) > 0
    assert set(FALLBACK) - set(DTYPES) == set(ELEMENT_BYTES)
    a100 = load_gpu("a100-sxm-80gb")
    notes = run(a100, [matmul_work(64, 64, 64, dtype("fp8_e4m3")), matmul_work(64, 64, 64, FP32)]).notes
    assert "a100-sxm-80gb has no fp8_e4m3 matmul rate: fp8_e4m3 runs at its bf16 rate" in notes
    assert "fp32 products run as TF32 on a100-sxm-80gb's tensor cores, as runtimes are set to" in notes


def test_names_and_values() -> None:
    assert {"a100-sxm-80gb", "h100-sxm"} <= set(NAMES)
    gpu = load_gpu("h100-sxm")
    assert (gpu.sms, gpu.dram_bytes_per_s, gpu.tdp_w, gpu.rates.bf16 and gpu.rates.bf16.flops_per_s) == (
        132,
        3.35e12,
        700,
        989e12,
    )
    assert gpu == load_gpu("h100-sxm") and hash(gpu) == hash(load_gpu("h100-sxm"))
    assert gpu.matmul_seconds(64, 64, 64, "bf16") == gpu.matmul_seconds(64, 64, 64, BF16)
    with pytest.raises(Exception, match="frozen"):
        gpu.sms = 1


def test_a_file_is_read_like_a_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(gpu_text("h100-sxm").replace("sms = 132", "sms = 66"))
    assert load_gpu(str(path)).sms == 66
    assert load_gpu("h100-sxm", {"sms": "66"}) == load_gpu(str(path))


@pytest.mark.parametrize("name", NAMES)
def test_every_number_has_its_source_beside_it(name: str) -> None:
    def check(table: Any, where: str) -> None:
        for key in table:
            item = table.item(key)
            if isinstance(item, dict):
                check(item, f"{where}{key}.")
            elif key not in ("name", "text"):
                assert len(item.trivia.comment) > 3, f"{where}{key} has no source"

    assert tomllib.loads(gpu_text(name))["name"] == name
    check(tomlkit.parse(gpu_text(name)), "")
    assert all(
        f.name.endswith((".toml", ".py")) or f.is_dir()
        for f in resources.files("mtia_emu.gpu.gpus").iterdir()
    )


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"smz": "1"}, "unknown gpu key 'smz'; did you mean 'sms'?"),
        ({"rates.bf61.efficiency": "1"}, "did you mean 'rates.bf16.efficiency'?"),
        ({"rates": "1"}, "unknown gpu key 'rates'"),
        ({"sms": "1.5"}, "'sms' is 1.5: input should be a valid integer"),
        ({"sms": "true"}, "'sms' is True: input should be a valid integer"),
        ({"sms": "many"}, "'sms' is 'many': input should be a valid integer"),
        ({"sms": "-1"}, "'sms' is -1: input should be greater than 0"),
        ({"dram_bytes_per_s": "nan"}, "'dram_bytes_per_s' is nan: input should be a finite number"),
        ({"dram_bytes_per_s": "inf"}, "'dram_bytes_per_s' is inf: input should be a finite number"),
        ({"dram_efficiency": "1.5"}, "'dram_efficiency' is 1.5: input should be less than or equal to 1"),
        ({"tiles": "[]"}, "'tiles' is (): tuple should have at least 1 item"),
        ({"tiles": "[[64, 0]]"}, "'tiles.0.1' is 0: input should be greater than 0"),
        ({"idle_w": "600"}, "idle_w is 600, above active_w, which is 328; it can be at most that"),
        (
            {"launch_stream_s": "0.0"},
            "launch_graph_s is 1.3e-06, above launch_stream_s, which is 0; it can be at most that",
        ),
    ],
)
def test_wrong_settings_are_named(setting: dict[str, str], words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        load_gpu("h100-sxm", setting)


def test_wrong_files_and_arguments_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown gpu 'H100'; did you mean 'h100-pcie' or 'h100-sxm'\?"):
        load_gpu("H100")
    with pytest.raises(UserError, match="unknown gpu 'h100-sx'; did you mean 'h100-sxm'"):
        load_gpu("h100-sx")
    with pytest.raises(UserError, match="is not a file; give a name"):
        load_gpu(str(tmp_path / "none.toml"))
    path = tmp_path / "bad.toml"
    path.write_text("sms = ")
    with pytest.raises(UserError, match="not TOML"):
        load_gpu(str(path))
    path.write_text(gpu_text("h100-sxm").replace("sms = 132", "smss = 132"))
    with pytest.raises(UserError, match=r"unknown key 'smss'; did you mean 'sms'\?") as fault:
        load_gpu(str(path))
    assert "key 'sms' is missing" in str(fault.value)
    gpu = load_gpu("h100-sxm")
    with pytest.raises(UserError, match="unknown dtype 'bf61'; did you mean 'bf16'"):
        gpu.matmul_seconds(1, 1, 1, "bf61")
    with pytest.raises(UserError, match="matmul k is 0; sizes are at least 1"):
        gpu.matmul_seconds(1, 0, 1, "bf16")
    with pytest.raises(UserError, match="unknown launch 'grpah'; did you mean 'graph'"):
        run(gpu, [], "grpah")


def test_three_thousand_layers_of_distinct_shapes() -> None:
    rng = random.Random(0)
    m, k, n = ([rng.randint(1, 5000) for _ in range(3000)] for _ in range(3))
    items = [matmul_work(*sizes) for sizes in zip(m, k, n, strict=True)]
    gpu = load_gpu("h100-sxm", {"text": "a value that no cache holds"})
    report = run(gpu, items)
    assert len(report.layers) == 3000


ROW_KINDS = st.sampled_from([RowWork, RotaryWork])


@given(gpus, st.integers(1, 10**5), st.integers(1, 30_000), st.integers(1, 10**4), ROW_KINDS)
def test_row_kernels_never_get_faster_by_more_rows_or_longer_ones(
    gpu: Gpu, rows: int, row: int, more: int, kind: type[RowWork] | type[RotaryWork]
) -> None:
    def time(m: int, n: int) -> float:
        return gpu.kernel(row_work(m, n, kind)).seconds

    before = time(rows, row) * (1 - 1e-9)
    assert time(rows + more, row) >= before and time(rows, row + more) >= before


def test_a_convolution_is_a_gemm_that_reads_its_operand_once_and_its_weights_from_dram() -> None:
    gpu, weights, operand = load_gpu("h100-sxm"), 2 * 576 * 64, 2 * 56 * 56 * 64
    sizes = {"batch": 1, "m": 56 * 56, "k": 576, "n": 64, "flops": 0, "write_bytes": operand}
    work = ImplicitGemmWork("c", "conv", BF16, read_bytes=operand + weights, left_bytes=operand, **sizes)
    kernel, gemm = gpu.kernel(work), gpu.kernel(matmul_work(56 * 56, 576, 64))
    assert kernel.text.startswith("implicit gemm")
    assert kernel.dram_read_bytes == weights  # the operand was just written: it is in L2
    assert kernel.seconds == pytest.approx(gemm.seconds, rel=0.05)


def test_short_rows_share_an_sm() -> None:
    """3,456 rows of 32 elements are one round of small blocks on an A100, 32 an SM."""
    gpu = load_gpu("a100-sxm-80gb")
    work = row_work(3456, 32)
    start = gpu.launch_graph_s + gpu.dram_latency_s
    assert gpu.kernel(work).seconds == pytest.approx(start + gpu.row_step_s + 128 * 3456 / gpu.l2_bytes_per_s)


def test_rotary_moves_an_element_at_a_time() -> None:
    gpu, size = load_gpu("h100-sxm"), 2 * 10**9
    moved = {"elements": 10**9, "flops": 10**9, "read_bytes": size, "write_bytes": size}
    rotary, add = (kind("", "", FP16, **moved) for kind in (RotaryWork, ElementwiseWork))
    ratio = gpu.kernel(add).seconds / gpu.kernel(rotary).seconds
    assert ratio == pytest.approx(gpu.narrow_efficiency, rel=0.01)


def test_a_library_that_does_not_cut_k_waits_for_its_steps() -> None:
    gpu = load_gpu("b200")
    assert gpu.rates.fp4 is not None and gpu.rates.fp4.k_step_s is not None
    narrow, wide, short = (
        gpu.matmul_seconds(8, k, n, "fp4") for k, n in ((2**16, 128), (2**16, 8192), (2**15, 128))
    )
    assert wide < 1.2 * narrow  # one wave either way: each tile goes through all of k
    steps = 2**15 * 0.5625 / gpu.k_step_bytes
    assert narrow - short == pytest.approx(steps * gpu.rates.fp4.k_step_s, rel=0.1)
    assert gpu.matmul_seconds(8, 2**16, 128, "bf16") < 0.5 * narrow
