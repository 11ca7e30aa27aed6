"""Memoising between chips: what is memoised equals what is not, and nothing is read unnoticed."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mtia_emu.compiler.frontend import load
from mtia_emu.compiler.graph import Graph
from mtia_emu.compiler.lower.choice import Tuning
from mtia_emu.compiler.pipeline import compile_graph

from mtia_emu import api
from mtia_emu.engine.launches import costs
from mtia_emu.engine.memoised import memoised_costs
from mtia_emu.engine.run import report
from mtia_emu.machine.chip import Chip, known_keys, load_chip
from mtia_emu.program.isa import Opcode
from mtia_emu.results.report import Report
from mtia_emu.reuse.memo import Memo, Memoise, SameObject, noted, unmemoised

CHANGES: dict[str, list[Any]] = {
    "dram.channel_bytes_per_s": [1e9, 4e9, 64e9],
    "dram.bytes": [1 << 20, 1 << 34],
    "pe.matrix.rows": [8, 16],
    "pe.matrix.cols": [4, 32],
    "sram.bytes": [4096, 65536, 1 << 22],
    "pe.local.bytes": [32768, 262144],
    "clock_hz": [5e8, 1e9],
    "energy.link_w": [0.5, 2.0],
    "energy.mac_pj.fp32": [0.5, 3.0],
    "launch.replace_s": [1e-7, 2e-6],
    "grid.cols": [1, 2, 3],
    "name": ["tiny", "other"],
}
MODELS = [("zoo:llama-tiny", {"batch": 1, "seq": 8}), ("zoo:dlrm-small", {"batch": 4})]


@cache
def imported(model: str, dims: tuple[tuple[str, int], ...]) -> Graph:
    with api.open_model(model, dict(dims)) as source:
        return load(source.path, {})


def outcome(graph: Graph, chip: Chip, memoise: Memoise) -> tuple[Report, dict[str, Any], int]:
    program = compile_graph(graph, chip, tuning=Tuning(memoise=memoise)).program
    each = None if memoise is unmemoised else memoised_costs(program, chip, memoise)
    return report(program, chip, each=each), program.chip, program.dram_bytes


POINTS = st.lists(
    st.fixed_dictionaries({}, optional={k: st.sampled_from(v) for k, v in CHANGES.items()}),
    min_size=2,
    max_size=4,
)


@settings(max_examples=2)
@given(POINTS)
def test_a_shared_result_is_the_unshared_one(points: list[dict[str, Any]]) -> None:
    hold(points)


@pytest.mark.deep
@settings(max_examples=10)
@given(POINTS)
def test_a_shared_result_is_the_unshared_one_many_times(points: list[dict[str, Any]]) -> None:
    hold(points)


def hold(points: list[dict[str, Any]]) -> None:
    """Compile and time for one chip after another, with what they share and without: the same."""
    memoise = Memo()
    for model, dims in MODELS:
        graph = imported(model, tuple(dims.items()))
        for changes in [*points, points[0]]:
            chip = load_chip("tiny", changes)
            assert outcome(graph, chip, memoise) == outcome(graph, chip, unmemoised)


def test_a_change_of_dram_bandwidth_compiles_nothing_and_times_what_moves_dram() -> None:
    graph, memoise = imported(*_model(0)), Memo()
    outcome(graph, load_chip("mtia-2i"), memoise)
    blocks = memoise.done["cost"]
    memoise.done.clear()
    outcome(graph, load_chip("mtia-2i", {"dram.channel_bytes_per_s": 12.81e9}), memoise)
    assert not {"fuse", "commands"} & set(memoise.done)  # how attention is mapped depends on the DRAM
    assert 0 < memoise.done["cost"] < blocks  # some blocks leave the DRAM alone
    assert memoise.done["events"] < blocks / 2  # which of a few mappings is faster depends on it as well


def test_a_change_of_sram_size_times_nothing_anew() -> None:
    graph, memoise = imported(*_model(0)), Memo()
    outcome(graph, load_chip("mtia-2i"), memoise)
    memoise.done.clear()
    outcome(graph, load_chip("mtia-2i", {"sram.bytes": 240_000_000}), memoise)
    assert memoise.done["place"] and not {"cost", "events", "commands"} & set(memoise.done)


@pytest.mark.parametrize("place", [0, -1])
def test_look_ups_are_shared_where_all_their_tables_lie_alike(place: int) -> None:
    """Of a launch that looks up several tables, one lies elsewhere in another program."""
    chip, memoise = load_chip("mtia-2i"), Memo()
    with api.open_model("zoo:dlrm-small", {"batch": 64}) as source:
        program = api.compile_stages(source, chip).program
        lookups = api.example_lookups(source, program)
    assert lookups
    index = program.launches[min(lookups)].block
    block = program.blocks[index]
    tables = np.unique(block.commands["operand"][block.commands["op"] == Opcode.POOL])
    assert len(tables) > 1
    operands = list(block.operands)
    operands[tables[place]] = replace(operands[tables[place]], space="sram")
    blocks = list(program.blocks)
    blocks[index] = replace(block, operands=tuple(operands))
    for one in (replace(program, blocks=tuple(blocks)), program):
        found = memoised_costs(one, chip, memoise, lookups)
        right = costs(one, chip, lookups)
        assert [x.traffic for x in found] == [x.traffic for x in right]


def test_a_change_of_a_price_compiles_nothing() -> None:
    graph, memoise = imported(*_model(0)), Memo()
    outcome(graph, load_chip("tiny"), memoise)
    memoise.done.clear()
    outcome(graph, load_chip("tiny", {"energy.dram_read_pj_per_byte": 1.0}), memoise)
    assert set(memoise.done) == {"cost"}


def test_an_equal_chip_costs_nothing() -> None:
    graph, memoise = imported(*_model(1)), Memo()
    first = outcome(graph, load_chip("tiny"), memoise)
    memoise.done.clear()
    assert outcome(graph, load_chip("tiny"), memoise) == first and not memoise.done


def _model(index: int) -> tuple[str, tuple[tuple[str, int], ...]]:
    model, dims = MODELS[index]
    return model, tuple(dims.items())


def test_every_parameter_is_noted_when_read() -> None:
    for key in known_keys():
        notes: set[str] = set()
        value: Any = noted(load_chip("tiny"), notes)
        for part in key.split("."):
            value = getattr(value, part)
        assert notes == {noted_as(key)}


def noted_as(key: str) -> str:
    """Return what notes a parameter: a table that a chip may lack is noted whole."""
    return "network" if key.startswith("network.") else key


def test_a_table_that_a_chip_may_lack_is_told_apart_whole() -> None:
    joined, memoise = load_chip("tiny"), Memo()
    assert joined.network is not None
    chips = [joined, joined.model_copy(update={"network": None})]
    found = [memoise("ports", 0, chip, lambda x: x.network and x.network.launch_s) for chip in chips * 2]
    assert found == [joined.network.launch_s, None] * 2 and memoise.done["ports"] == 2


def test_methods_note_what_they_read() -> None:
    notes: set[str] = set()
    chip = noted(load_chip("tiny"), notes)
    assert chip.sram_bytes_per_cycle > 0 and chip.pes > 0
    assert notes == {"sram.bytes_per_s", "power.nominal_hz", "grid.rows", "grid.cols"}
    notes.clear()
    chip.part(1, 1).dram.burst(np.ones(1), np.ones(1))
    assert notes == {"grid.rows", "grid.cols", "dram.burst_bytes"}


@pytest.mark.parametrize("read", [dict, lambda c: c.model_dump(), lambda c: c == load_chip("tiny")])
def test_a_chip_taken_whole_is_read_whole(read: Any) -> None:
    notes: set[str] = set()
    read(noted(load_chip("tiny"), notes))
    assert notes == set(map(noted_as, known_keys()))


def test_work_inside_work_passes_on_what_it_read() -> None:
    memoise = Memo()

    def outer(chip: Chip) -> float:
        return chip.clock_hz + memoise("inner", "k", chip, lambda c: c.dram.channels)

    def both(**changes: Any) -> float:
        return memoise("outer", "k", load_chip("tiny", changes), outer)

    a = both()
    assert both(**{"sram.bytes": 1 << 20}) == a and memoise.done == {"outer": 1, "inner": 1}
    assert both(clock_hz=5e8) != a and memoise.done == {"outer": 2, "inner": 1}
    assert both(clock_hz=5e8, **{"dram.channels": 32}) != both(clock_hz=5e8)


def test_work_that_fails_is_not_kept() -> None:
    memoise = Memo()

    def work(chip: Chip) -> int:
        if chip.clock_hz < 1e9:
            raise ValueError
        return 1

    with pytest.raises(ValueError):
        memoise("w", "k", load_chip("tiny", {"clock_hz": 5e8}), work)
    assert memoise("w", "k", load_chip("tiny", {"clock_hz": 2e9}), work) == 1


def test_values_of_another_kind_are_other_values() -> None:
    memoise = Memo()
    for value in (16.0, 16):
        chip = load_chip("tiny").model_copy(update={"clock_hz": value})
        assert type(memoise("t", "k", chip, lambda c: c.clock_hz)) is type(value)


def test_of_equals_the_results_not_asked_for_longest_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    memoise, chip = Memo(most_bytes=3000), load_chip("tiny")
    monkeypatch.setattr("mtia_emu.reuse.memo.time.perf_counter", lambda: 0.0)
    for key in ("a", "b", "a", "c"):
        memoise("w", key, chip, lambda c: np.zeros(c.grid.rows * 0 + 140))
    assert memoise.done["w"] == 3 and memoise.size_bytes <= 3000
    memoise("w", "a", chip, lambda c: np.zeros(1))
    assert memoise.done["w"] == 3
    memoise("w", "b", chip, lambda c: np.zeros(1))
    assert memoise.done["w"] == 4


def test_the_same_object_is_a_key() -> None:
    x, y = [1], [1]
    assert (
        SameObject(x) == SameObject(x)
        and SameObject(x) != SameObject(y)
        and len({SameObject(x), SameObject(x), SameObject(y)}) == 2
    )


def test_what_hangs_on_a_decision_is_shared_where_it_comes_out_the_same() -> None:
    memoise, done = Memo(), list[bool]()

    def wide(chip: Chip) -> bool:
        return chip.dram.channels > 8

    def outer(chip: Chip) -> tuple[bool, int]:
        done.append(memoise("wide", "key", chip, wide, decides=True))
        return done[-1], chip.sram.bytes

    for channels, expected in ((4, False), (8, False), (16, True), (32, True), (2, False)):
        chip = load_chip("tiny", {"dram.channels": channels})
        assert memoise("outer", "key", chip, outer) == (expected, chip.sram.bytes)
    assert done == [False, True]  # once for each answer
    larger = load_chip("tiny", {"dram.channels": 4, "sram.bytes": 2 * chip.sram.bytes})
    assert memoise("outer", "key", larger, outer) == (False, larger.sram.bytes) and len(done) == 3
    notes: set[str] = set()
    memoise("outer", "key", noted(chip, notes), outer)
    assert "dram.channels" in notes  # whoever cannot note a decision has read what it read


def test_what_was_long_in_the_making_outlives_what_was_not(monkeypatch: pytest.MonkeyPatch) -> None:
    memoise, chip, now = Memo(most_bytes=20_000), load_chip("tiny"), [0.0]
    monkeypatch.setattr("mtia_emu.reuse.memo.time.perf_counter", lambda: now[0])

    def made(seconds: float, size: int) -> np.ndarray:
        now[0] += seconds
        return np.zeros(size, np.uint8)

    memoise("graph", 0, chip, lambda _: made(5.0, 1000))
    for n in range(10):  # each as large as nearly all that is kept
        memoise("events", n, chip, lambda _: made(0.01, 15_000))
    memoise("graph", 0, chip, lambda _: made(5.0, 1000))
    memoise("events", 0, chip, lambda _: made(0.01, 15_000))
    assert memoise.done["graph"] == 1
    assert memoise.done["events"] == 11
