"""`--tune full`: never slower than fast's choice, right, and the same from disk as anew."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from mtia_emu.compiler.frontend import load
from mtia_emu.compiler.graph import Graph
from mtia_emu.compiler.pipeline import compile_graph
from mtia_emu.compiler.text import parse
from mtia_emu.kernels.matmul.kernel import MatmulKernel

from mtia_emu import api, settings
from mtia_emu.engine.timing import timeline
from mtia_emu.errors import UserError
from mtia_emu.machine.chip import Chip, load_chip
from mtia_emu.options import Options
from mtia_emu.program.isa import Program
from mtia_emu.program.text import dump
from mtia_emu.reuse.memo import Memo, Memoise, unmemoised
from mtia_emu.reuse.plan_cache import FILE, _proof
from mtia_emu.study import tuning as tuning_module
from mtia_emu.study.tuning import tuning
from mtia_emu.sweeps.evaluate import Evaluator, make_job
from mtia_emu.sweeps.space import Point
from mtia_emu.sweeps.spec import make_spec

MODELS = [("zoo:llama-tiny", {"batch": 1, "seq": 24}), ("zoo:dlrm-small", {"batch": 24})]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test a cache of its own; numba keeps its code where it was."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(settings.cache_folder()))
    monkeypatch.setenv(settings.CACHE.name, str(tmp_path))
    return tmp_path


@cache
def imported(model: str, dims: tuple[tuple[str, int], ...]) -> Graph:
    with api.open_model(model, dict(dims)) as source:
        return load(source.path, {})


def program(
    model: str, dims: dict[str, int], chip: Chip, mode: str, memoise: Memoise = unmemoised
) -> Program:
    options = Options(tune=mode, prefetch=False)  # which adds to a block what a later one asks for
    graph = imported(model, tuple(dims.items()))
    search = tuning(options, memoise=memoise)
    return compile_graph(graph, chip, options=options, tuning=search).program


def text(program: Program) -> str:
    return dump(program, commands=1 << 20)


@pytest.mark.parametrize(("model", "dims"), MODELS, ids=lambda x: str(x))
def test_no_block_is_slower_than_fast_has_it_and_the_whole_is_faster(
    model: str, dims: dict[str, int]
) -> None:
    chip = load_chip("tiny")
    fast, full = (program(model, dims, chip, mode) for mode in ("fast", "full"))
    assert [x.name for x in fast.launches] == [x.name for x in full.launches]
    cycles = [[timeline(p.blocks[launch.block], chip).cycles for launch in p.launches] for p in (fast, full)]
    assert all(b <= a for a, b in zip(*cycles, strict=True))
    assert sum(cycles[1]) < sum(cycles[0])


def made(graph: Graph, chip: Chip, memoise: Memoise = unmemoised, cached: bool = True) -> str:
    options = Options(tune="full")
    how = tuning(options, memoise=memoise, cached=cached)
    return text(compile_graph(graph, chip, options=options, tuning=how).program)


SMALL = """graph small {
  in %x : fp16[24,32]
  const %w : fp16[32,16] = absent
  %y : fp16[24,16] = matmul(%x, %w)
  out %y
}"""
QUICK = pytest.param(lambda: parse(SMALL), id="one product")
LONG = [
    pytest.param(lambda m=m, d=d: imported(m, tuple(d.items())), id=m, marks=pytest.mark.deep)
    for m, d in MODELS
]


@pytest.mark.parametrize("graph", [QUICK, *LONG])
def test_a_program_from_disk_is_the_one_made_anew(graph: Callable[[], Graph], folder: Path) -> None:
    chip = load_chip("tiny")
    first = made(graph(), chip)
    assert (folder / FILE).exists()
    assert made(graph(), chip) == first
    (folder / FILE).write_bytes(b"nonsense" * 1000)
    assert made(graph(), chip) == first


def test_a_choice_from_disk_needs_no_ranking(monkeypatch: pytest.MonkeyPatch) -> None:
    chip = load_chip("tiny")
    first = made(parse(SMALL), chip)

    def ranked(*_: Any) -> Any:
        raise AssertionError("mappings are ranked again")

    monkeypatch.setattr(MatmulKernel, "candidates", ranked)
    assert made(parse(SMALL), chip) == first


@pytest.mark.parametrize(
    "said", ["rows=m cols=n tile=1x1x4 outer=m", "rows=x", "tile=", "rows=b cols=b tile=9"]
)
def test_a_text_on_disk_is_checked_and_a_huge_mapping_is_not_believed(
    folder: Path, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chip = load_chip("tiny")
    first = made(parse(SMALL), chip)
    with sqlite3.connect(folder / FILE) as file:
        for key, place in file.execute("SELECT key, place FROM choices").fetchall():
            row = (said, _proof(key, (place, said)), key)
            file.execute("UPDATE choices SET text = ?, proof = ? WHERE key = ?", row)
    file.close()
    monkeypatch.setattr("mtia_emu.compiler.lower.choice.MOST_COMMANDS", 400)
    assert made(parse(SMALL), chip) == first


@pytest.mark.parametrize("graph", [QUICK, LONG[0]])
def test_what_chips_share_and_the_disk_has_is_what_each_would_have_made(graph: Callable[[], Graph]) -> None:
    shared = Memo()
    changes: list[dict[str, object]] = [
        {},
        {"dram.channels": 4},
        {"noc.hop_cycles": 9},
        {},
        {"clock_hz": 5e8},
    ]
    for change in changes:
        chip = load_chip("tiny", change)
        assert made(graph(), chip, shared) == made(graph(), chip, cached=False)


def test_a_tuned_program_computes_the_model() -> None:
    done = api.run("zoo:llama-tiny", "tiny", dims={"seq": 8}, check=True, gpu=None, tune="full")
    assert done.check is not None and done.check.passed


def test_sweeps_tune_where_the_spec_says_so(folder: Path) -> None:
    values: dict[str, Any] = {
        "chip": "tiny",
        "gpu": "none",
        "model": [{"model": m, "dims": d} for m, d in MODELS[1:]],
    }
    cycles = {}
    for mode in ("fast", "full"):
        evaluator = Evaluator(make_job(make_spec(values | {"tune": mode})))
        row = evaluator.row(Point(0, {}))
        cycles[mode] = row.metrics["dlrm-small.seconds"]
    assert cycles["full"] <= cycles["fast"] and (folder / FILE).exists()
    with pytest.raises(UserError, match="'tune' is 'slow'"):
        make_spec(values | {"tune": "slow"})


def test_an_unknown_way_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match="unknown tune 'ful'; did you mean 'full'"):
        Options(tune="ful")


def test_the_command_line_tunes(cli: Callable[..., Result], folder: Path) -> None:
    words = ("gemm", 40, 56, 24, "--chip", "tiny", "--gpu", "none", "--json", "-")
    fast, full = (json.loads(cli(*words, "--tune", mode).output)["cycles"] for mode in ("fast", "full"))
    assert full <= fast and (folder / FILE).exists()


def test_the_cache_can_be_switched_off(
    cli: Callable[..., Result], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(settings.TUNE_CACHE.name, "0")
    cli("gemm", 8, 8, 8, "--chip", "tiny", "--gpu", "none", "--tune", "full")
    assert not (folder / FILE).exists()


def test_a_block_is_timed_once_for_all_processes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MTIA_EMU_CACHE", str(tmp_path))
    chip = load_chip("tiny")
    block = api.compile_model("zoo:dlrm-small", chip, dims={"batch": 4}, beside=False).blocks[0]
    found = tuning_module.kept_cycles(block, chip)
    assert found == tuning_module.cycles(block, chip)
    monkeypatch.setattr(tuning_module, "memoised_cycles", None)
    assert tuning_module.kept_cycles(block, chip) == found
    with pytest.raises(TypeError):  # another clock, another time
        tuning_module.kept_cycles(block, load_chip("tiny", {"clock_hz": 2e9}))
