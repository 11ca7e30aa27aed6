"""One design point: its row is what a single run says, whatever was evaluated before it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import mtia_emu
from mtia_emu import api
from mtia_emu.errors import UserError
from mtia_emu.gpu import load_gpu
from mtia_emu.machine.chip import load_chip
from mtia_emu.reuse.code import code_digest
from mtia_emu.silicon import area, cost
from mtia_emu.sweeps.evaluate import Evaluator, make_job, reference
from mtia_emu.sweeps.row import columns, record
from mtia_emu.sweeps.space import Point, Space


def test_a_row_is_what_a_single_run_says(make: Any) -> None:
    """Built-in models with their look-ups, and several points in one evaluator, against `mtia_emu.run`."""
    models = [
        {"model": "zoo:dlrm-small", "name": "dlrm", "dims": {"batch": 4}, "weight": 3.0},
        {"model": "zoo:llama-tiny", "name": "llama", "dims": {"seq": 4}},
    ]
    spec = make(model=models, set={"dram.channels": [2, 1], "sram.bytes": [262144, 65536]}, constraints=[])
    evaluator = Evaluator(make_job(spec))
    for point in Space(spec):
        row = evaluator.row(point)
        chip = load_chip("tiny", point.params)
        each = {m["name"]: mtia_emu.run(m["model"], chip, dims=m["dims"], gpu=None).report for m in models}
        for name, report in each.items():
            assert row.metrics[f"{name}.cycles"] == report.cycles
            assert row.metrics[f"{name}.joules"] == report.joules
            assert row.metrics[f"{name}.dram_read_bytes"] == report.traffic.dram_read_bytes
            assert sum(g[3] for g in row.layers[name]) == len(report.layers)
            assert sum(g[4] for g in row.layers[name]) == pytest.approx(report.seconds)
        mean = (each["dlrm"].seconds ** 3 * each["llama"].seconds) ** 0.25
        assert row.metrics["seconds"] == pytest.approx(mean)
        assert row.metrics["area_mm2"] == area(chip).total_mm2
        assert row.metrics["dollars"] == cost(chip).total_usd
        assert row.metrics["perf_per_mm2"] == pytest.approx(1 / mean / area(chip).total_mm2)
        assert set(record(row, spec)) == set(columns(spec)) and set(row.metrics) < set(columns(spec))


def test_a_die_that_is_swept_is_a_fact_and_draws_no_more(make: Any) -> None:
    """Power goes with what the chip holds, as the area does, not with the die that is written."""
    spec = make(set={"die_mm2": [5.0, 20.0]})
    small, large = (Evaluator(make_job(spec)).row(p) for p in Space(spec))
    assert [r.metrics["die_mm2"] for r in (small, large)] == [5.0, 20.0]
    assert small.metrics["joules"] == large.metrics["joules"]
    assert columns(spec).count("die_mm2") == 1 and record(small, spec)["die_mm2"] == 5.0


def test_a_system_and_a_split_are_axes(make: Any) -> None:
    """A point is what the run over that system says; its area is that of all chips."""
    models = [{"model": "zoo:llama-tiny", "name": "llama", "dims": {"seq": 4}}]
    split = ["tp=1", "tp=2"]
    spec = make(model=models, set={"system": ["tiny-board"], "parallel": split}, constraints=[])
    evaluator = Evaluator(make_job(spec))
    for point, parallel in zip(Space(spec), split, strict=True):
        row = evaluator.row(point)
        over = api.run_over(
            "zoo:llama-tiny", dims={"seq": 4}, gpu=None, system="tiny-board", parallel=parallel
        )
        assert row.metrics["llama.seconds"] == over.report.seconds
        assert row.metrics["area_mm2"] == int(parallel[-1]) * area(load_chip("tiny")).total_mm2
    assert reference(evaluator)[0].params == {"system": "none", "parallel": "tp=1"}


def test_links_are_axes(make: Any) -> None:
    links = {"links.link.bytes_per_s": [1e8, 8e9]}
    spec = make(set={"system": ["tiny-board"], "parallel": ["tp=4"], **links}, constraints=[])
    evaluator = Evaluator(make_job(spec))
    slow, fast = (evaluator.row(p).metrics["seconds"] for p in Space(spec))
    assert slow > 2 * fast
    with pytest.raises(UserError, match=r"'links.link.bytes_per_s' is of a system"):
        make(set=links, constraints=[])


def test_a_split_without_a_system_is_refused(make: Any) -> None:
    with pytest.raises(UserError, match=r"right: 'system' too"):
        make(set={"parallel": ["tp=2"]})
    other = make(set={"system": ["mtia-2i-server"], "parallel": ["tp=2"]}, constraints=[])
    row = Evaluator(make_job(other)).row(next(iter(Space(other))))
    assert row.status == "failed" and "is of mtia-2i, the chip at hand is tiny" in row.reason


def test_a_memory_is_an_axis(make: Any) -> None:
    """Timing, energy, pads and price of a point are those of a chip that is given the memory alone."""
    spec = make(set={"dram.device": ["lpddr5", "hbm3"]}, constraints=[])
    evaluator = Evaluator(make_job(spec))
    rows = [evaluator.row(p) for p in Space(spec)]
    for row, device in zip(rows, ("lpddr5", "hbm3"), strict=True):
        chip = load_chip("tiny", {"dram.device": device, "die_mm2": row.metrics["die_mm2"]})
        assert row.metrics["area_mm2"] == area(chip).total_mm2
        assert row.metrics["dollars"] == cost(chip).total_usd
        assert row.metrics["dram_bytes_per_s"] == chip.dram.bytes_per_s
    assert rows[1].metrics["dollars"] > rows[0].metrics["dollars"]
    assert rows[1].metrics["seconds"] < rows[0].metrics["seconds"]


def test_points_keep_to_the_limit_of_power_as_a_run_does(make: Any) -> None:
    model = {"model": "zoo:dlrm-small", "name": "dlrm", "dims": {"batch": 64}}
    spec = make(
        chip="mtia-2i", model=[model], set={"tdp_w": [10.0, 20.0, 85.0], "grid.rows": [8, 16]}, constraints=[]
    )
    evaluator, seconds = Evaluator(make_job(spec)), {}
    for point in Space(spec):
        row = evaluator.row(point)
        report = mtia_emu.run(
            "zoo:dlrm-small", "mtia-2i", settings=point.params, dims={"batch": 64}, gpu=None
        ).report
        for key, value in (
            ("seconds", report.seconds),
            ("joules", report.joules),
            ("clock_hz", report.clock_hz),
        ):
            assert row.metrics[f"dlrm.{key}"] == value
        seconds[point.params["grid.rows"], point.params["tdp_w"]] = report.seconds
        assert report.power is not None and report.power.slowed == (point.params["tdp_w"] < 85)
    for rows in (8, 16):
        assert seconds[rows, 10.0] > seconds[rows, 20.0] > seconds[rows, 85.0]


def test_a_point_that_cannot_be_says_why(make: Any) -> None:
    spec = make()
    evaluator = Evaluator(make_job(spec))
    rows = [evaluator.row(p) for p in Space(spec)]
    assert [r.status for r in rows] == ["failed", "ok", "ok", "failed", "ok", "excluded"]
    assert "product:" in rows[0].reason and "local memory" in rows[0].reason
    assert rows[5].reason == "not dram.channels * pe.local.bytes < 262144"
    assert not rows[0].metrics and not rows[5].metrics
    assert evaluator.excluded(Point(0, {"dram.channels": 4, "pe.local.bytes": 131072}))
    assert not evaluator.excluded(Point(0, {"dram.channels": -4}))  # cannot be at all
    assert "dram.channels" in evaluator.row(Point(0, {"dram.channels": -4})).reason


def test_links_are_followed_and_shown(make: Any) -> None:
    spec = make(
        set={"grid.rows": [1, 2]},
        link={"grid.cols": "grid.rows * 2", "sram.bytes": "grid.cols * 65536"},
        constraints=[],
    )
    evaluator = Evaluator(make_job(spec))
    rows = [evaluator.row(p) for p in Space(spec)]
    assert [dict(r.params) for r in rows] == [
        {"grid.rows": 1, "grid.cols": 2, "sram.bytes": 131072},
        {"grid.rows": 2, "grid.cols": 4, "sram.bytes": 262144},
    ]
    assert all(r.status == "ok" for r in rows)


def test_the_base_chip_and_the_gpu_stand_beside(make: Any) -> None:
    base, gpu = reference(Evaluator(make_job(make())))
    assert base.status == "ok" and base.params["dram.channels"] == 2
    assert gpu["name"] == "h100-sxm" and gpu["area_mm2"] == 814 and gpu["seconds"] > 0
    bands = load_gpu("h100-sxm").bands
    wide = max(max(1 - b.low, b.high - 1) for b in (bands.short_matmul, bands.attention, bands.vector))
    assert 0 < gpu["seconds_error_share"] <= wide  # the weighted band of its kernels, not a number of its own
    assert reference(Evaluator(make_job(make(gpu="none"))))[1] == {}


def test_the_gpu_of_a_sweep_is_the_gpu_of_a_run(make: Any) -> None:
    model = {"model": "zoo:dlrm-small", "name": "dlrm", "dims": {"batch": 64}}
    spec = make(chip="mtia-2i", model=[model], set={"grid.rows": [8]}, constraints=[], gpu="a100-sxm-40gb")
    _, found = reference(Evaluator(make_job(spec)))
    gpu = mtia_emu.run("zoo:dlrm-small", "mtia-2i", dims={"batch": 64}, gpu="a100-sxm-40gb").gpu
    assert gpu is not None and found["dlrm.seconds"] == gpu.seconds
    assert found["dlrm.dram_bytes"] == gpu.traffic.dram_read_bytes + gpu.traffic.dram_write_bytes


def test_a_model_that_is_not_there_is_refused_before_all(make: Any) -> None:
    with pytest.raises(UserError, match="is not a file"):
        make_job(make(model=[{"model": "nowhere.onnx"}]))


def test_the_job_follows_the_chip_file_and_the_model(make: Any, tmp_path: Path, product: Path) -> None:
    chip, model = tmp_path / "chip.toml", tmp_path / "m.onnx"
    text = Path(str(mtia_emu.__file__)).with_name("machine").joinpath("chips", "tiny.toml").read_text()
    chip.write_text(text)
    model.write_bytes(product.read_bytes())
    spec = make(chip=str(chip), model=[{"model": str(model)}])
    first = make_job(spec)
    assert make_job(spec).digest == first.digest and first.code == code_digest()
    chip.write_text(text.replace("clock_hz = 1e9", "clock_hz = 2e9"))
    assert make_job(spec).digest != first.digest
    chip.write_text(text)
    model.write_bytes(product.read_bytes() + b"\x00\x00")
    assert make_job(spec).digest != first.digest


def test_a_model_of_a_sweep_has_mappings_of_its_own(make: Any, product: Path, tmp_path: Path) -> None:
    """A row is what a run with the mapping says; its file belongs to the job."""
    file, text = tmp_path / "fixed.toml", "rows=m cols=n tile=8x8x32 outer=m"
    file.write_text(f'[mappings]\n"*" = "{text}"\n', encoding="utf-8")
    free, fixed = (
        make(
            model=[{"model": str(product), "name": "product", "mapping": mapping}],
            set={"dram.channels": [2]},
        )
        for mapping in (None, str(file))
    )
    job = make_job(fixed)
    cycles = [Evaluator(make_job(spec)).row(next(iter(Space(spec)))).metrics for spec in (free, fixed)]
    ran = mtia_emu.run(product, load_chip("tiny", {"dram.channels": 2}), gpu=None, mapping=f"*: {text}")
    assert cycles[1]["product.cycles"] == ran.report.cycles > cycles[0]["product.cycles"]
    assert cycles[1]["product.joules_of"] == "chip"
    file.write_text('[mappings]\n"*" = "rows=m cols=n tile=16x8x32 outer=m"\n', encoding="utf-8")
    assert make_job(fixed).digest != job.digest
    with pytest.raises(UserError, match="no layer 'other'"):
        reference(Evaluator(make_job(make(model=[{"model": str(product), "mapping": f"other: {text}"}]))))


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        ({"system": ["nowhere"]}, "unknown system 'nowhere'"),
        ({"system": ["none", "tiny-board"], "parallel": ["tp=2", "tq=2"]}, "'tq'; did you mean 'tp'"),
        ({"system": ["tiny-board"], "links.lnik.bytes_per_s": [1e9]}, "links.lnik.bytes_per_s 'lnik'"),
        ({"system": ["tiny-board"], "links.link.bytes": [1e9]}, "links.link.bytes"),
    ],
)
def test_a_system_that_no_point_could_have_is_refused_before_the_first(
    make: Any, axes: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        make_job(make(set=axes, constraints=[]))


def test_a_link_that_one_of_the_systems_has_is_an_axis(make: Any) -> None:
    """The points of the other system fail by themselves: the store says why."""
    axes = {"system": ["tiny-board", "yosemite-v3"], "links.link.bytes_per_s": [1e9]}
    make_job(make(set=axes, constraints=[]))
