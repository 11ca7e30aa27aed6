"""Reports add and scale: one run after another, and the same run again and again."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from functools import reduce
from operator import add
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtia_emu.results.basis import Around
from mtia_emu.results.report import Band, Comparison, Joules, Layer, Report, Stretch, Traffic, compare
from mtia_emu.results.report_json import as_json
from mtia_emu.results.spans import Track

CHIP, OTHER, LINK = Track("chip", 1.35e9), Track("other", 1e9), Track("link", 0.3e9)
AMOUNT = st.integers(0, 1 << 20)  # sums of such floats are exact


def layer(name: str, start: int, end: int, track: Track = CHIP, launch: int = 0, **more: Any) -> Layer:
    return Layer(name, "matmul", "k", start, end, 4, 8, 2, 1.0, "dram", 9, launch, track=track, **more)


def report_of(layers: tuple[Layer, ...], length: Fraction, tracks: tuple[Track, ...], **more: Any) -> Report:
    given = {"joules_by": Joules(), "traffic": Traffic(), "macs": 0, "peak_macs": 0.0} | more
    return Report("m", "c", "fp16", {"n": 4}, tracks, (Stretch(layers, length),), **given)


@st.composite
def reports(draw: st.DrawFn) -> Report:
    """Draw a report of one run over one to three tracks, whose joules add without rounding."""
    tracks = tuple(draw(st.permutations((CHIP, OTHER, LINK)))[: draw(st.integers(1, 3))])
    layers = tuple(
        layer(f"l{i}", start, start + draw(AMOUNT), draw(st.sampled_from(tracks)), launch=i)
        for i, start in enumerate(draw(st.lists(AMOUNT, max_size=3)))
    )
    length = max((x.track.exact_seconds(x.end_cycle) for x in layers), default=Fraction(0))
    return Report(
        draw(st.sampled_from(("prefill", "decode"))),
        "c",
        draw(st.sampled_from(("fp16", "int8"))),
        {"batch": draw(st.integers(1, 2)), "seq": 8},
        tracks,
        (Stretch(layers, length),),
        Joules(*map(float, draw(st.lists(AMOUNT, min_size=8, max_size=8)))),
        Traffic(*draw(st.lists(AMOUNT, min_size=7, max_size=7))),
        draw(AMOUNT),
        float(draw(AMOUNT)),
        tuple(draw(st.lists(st.sampled_from(("a", "b")), max_size=2, unique=True))),
        draw(st.sampled_from((None, Band(0.9, 1.1)))),
    )


@given(reports(), reports(), reports())
def test_addition_is_associative(a: Report, b: Report, c: Report) -> None:
    left, right = (a + b) + c, a + (b + c)
    assert left == right and left.layers == right.layers and left.length == right.length


@given(reports(), reports())
def test_amounts_and_time_add(a: Report, b: Report) -> None:
    both = a + b
    assert both.length == a.length + b.length and both.macs == a.macs + b.macs
    assert both.traffic.noc_bytes == a.traffic.noc_bytes + b.traffic.noc_bytes
    assert both.joules == a.joules + b.joules
    assert len(both.layers) == len(a.layers) + len(b.layers)
    for x in both.layers[len(a.layers) :]:  # overlap is within a run alone
        assert x.track.exact_seconds(x.start_cycle) >= a.length
    assert {x.track for x in both.layers} <= set(both.tracks)


@given(reports(), reports(), st.integers(1, 5))
def test_so_many_times_is_the_sum_of_so_many(a: Report, b: Report, times: int) -> None:
    for x in (a, a + b):
        assert times * x == reduce(add, [x] * times)
        assert (times * x).layers == reduce(add, [x] * times).layers


def test_a_run_after_another_by_hand() -> None:
    first = report_of(
        (layer("p", 0, 100), layer("q", 0, 60, own=30.0)),
        CHIP.exact_seconds(135),  # 100 ns
        (CHIP,),
        joules_by=Joules(compute=1.0, dram=2.0),
        macs=3,
        peak_macs=6.0,
        notes=("n",),
        seconds_band=Band(0.8, 1.2),
    )
    second = report_of(
        (layer("r", 5, 9, LINK),),
        OTHER.exact_seconds(300),  # 300 ns
        (LINK,),
        joules_by=Joules(dram=4.0),
        macs=1,
        peak_macs=10.0,
        notes=("n", "o"),
        seconds_band=Band(1.0, 1.0),
    )
    both = first + second
    assert both.length == Fraction(4, 10**7) and both.seconds == 4e-7 and both.cycles == 540
    assert [(x.name, x.start_cycle, x.end_cycle, x.launch) for x in both.layers] == [
        ("p", 0, 100, 0), ("q", 0, 60, 0), ("r", 35, 39, 1),
    ]  # fmt: skip
    assert both.tracks == (CHIP, LINK) and both.track_seconds == 8e-7
    assert both.joules_by == Joules(compute=1.0, dram=6.0) and both.watts == 7.0 / 4e-7
    assert both.utilization == 4 / 16.0 and both.notes == ("n", "o")
    assert both.seconds_band is not None
    assert (both.seconds_band.low, both.seconds_band.high) == pytest.approx((0.95, 1.05))
    assert (first + report_of((), Fraction(0), (CHIP,))).seconds_band is None


def test_names_that_differ_are_said_once_and_sizes_that_differ_not_at_all() -> None:
    a = Report("m", "c", "fp16", {"n": 4, "seq": 128}, (CHIP,), (), Joules(), Traffic(), 0, 0.0)
    b = Report("d", "c", "int8", {"n": 4, "m": 1, "seq": 1}, (CHIP,), (), Joules(), Traffic(), 0, 0.0)
    both = a + b + a
    assert (both.model, both.machine, both.dtype, both.dims) == ("m + d", "c", "fp16 + int8", {"n": 4})


def test_a_layer_beside_others_tells_its_own_time_from_its_span() -> None:
    x = layer("q", 27, 81, own=13.5)
    assert (x.cycles, x.seconds, x.span_s) == (13.5, 1e-8, 4e-8)
    assert layer("p", 27, 81).seconds == 4e-8


def test_a_billion_runs_take_no_more_room_than_one() -> None:
    one = report_of((layer("p", 0, 27),), CHIP.exact_seconds(27), (CHIP,), macs=1)
    many = 10**9 * one
    assert many.stretches == (Stretch(one.layers, one.length, 10**9),)
    assert (many.cycles, many.macs, many.seconds) == (27 * 10**9, 10**9, 20.0)
    with pytest.raises(ValueError, match="cannot be taken 0 times"):
        0 * one


def test_a_chip_of_half_the_time_and_a_quarter_of_the_energy_is_2_and_4_times_better() -> None:
    chip = report_of((), Fraction(1, 4), (CHIP,), joules_by=Joules(dram=2.0))
    gpu = report_of((), Fraction(1, 2), (OTHER,), joules_by=Joules(dram=8.0), seconds_band=Band(0.5, 1.5))
    assert compare(chip, gpu) == Comparison(2.0, 4.0, 4.0, Band(1.0, 3.0), chip_joules=2.0, gpu_joules=8.0)
    nothing = report_of((), Fraction(0), (CHIP,))
    assert compare(nothing, gpu) == Comparison(None, None, None, gpu_joules=8.0)


def test_both_sides_are_on_one_basis_or_each_on_its_own() -> None:
    """2 J of a chip in 0.25 s and 8.4 J of a board in 0.5 s; servers of 4 and 2 with 160 and 40 W more."""
    around = Around("chip", 0.05, 0.0, 4, 160.0)
    chip = report_of((), Fraction(1, 4), (CHIP,), joules_by=Joules(dram=2.0), around=around)
    beside = Around("board", 0.05, 0.0, 2, 40.0)
    more = {"around": beside, "joules_band": Band(0.5, 1.5)}
    gpu = report_of((), Fraction(1, 2), (OTHER,), joules_by=Joules(dram=8.4), **more)
    for basis, ours, theirs in (("chip", 2.0, 8.0), ("board", 2.1, 8.4), ("server", 12.1, 18.4)):
        found = compare(chip, gpu, basis)
        assert (found.basis, found.chip_joules, found.gpu_joules) == (
            basis,
            pytest.approx(ours),
            pytest.approx(theirs),
        )
        assert found.energy == found.perf_per_watt == pytest.approx(theirs / ours)
    assert found.energy_band == Band(pytest.approx((4.2 + 10) / 12.1), pytest.approx((12.6 + 10) / 12.1))
    alone = compare(chip, replace(gpu, around=None), "server")
    assert (alone.basis, alone.chip_joules, alone.gpu_joules) == (None, 2.0, 8.4)
    assert (chip + chip).around == around and (chip + gpu).around is None


@given(st.integers(0, 1 << 53), st.floats(1e3, 1e12))
def test_seconds_are_cycles_over_the_clock_to_the_last_bit(cycles: int, clock_hz: float) -> None:
    track = Track("c", clock_hz)
    one = report_of((), track.exact_seconds(cycles), (track,))
    assert one.seconds == cycles / clock_hz and one.cycles == cycles


def test_json_names_tracks_where_there_are_several() -> None:
    one = report_of((layer("p", 0, 9),), CHIP.exact_seconds(9), (CHIP,))
    assert "tracks" not in as_json(one) and "track" not in as_json(one)["layers"][0]
    two = as_json(one + report_of((layer("q", 0, 3, LINK),), LINK.exact_seconds(3), (LINK,)))
    assert two["tracks"] == [{"name": "chip", "clock_hz": 1.35e9}, {"name": "link", "clock_hz": 0.3e9}]
    assert [x["track"] for x in two["layers"]] == ["chip", "link"]


def test_the_chip_beside_a_gpu_by_hand() -> None:
    """The chip takes 4 s and 6 J, the GPU 2 s and 30 J: half as fast, five times as frugal."""
    bands = {"seconds_band": Band(0.5, 2.0), "joules_band": Band(0.9, 1.1)}
    chip = report_of((), Fraction(4), (CHIP,), joules_by=Joules(compute=2.0, static=4.0))
    gpu = report_of((), Fraction(2), (OTHER,), joules_by=Joules(dram=30.0), **bands)
    assert (chip.seconds, chip.joules, chip.watts) == (4.0, 6.0, 1.5)
    assert (gpu.seconds, gpu.joules, gpu.watts) == (2.0, 30.0, 15.0)
    ratio = compare(chip, gpu)
    assert (ratio.speed, ratio.energy, ratio.perf_per_watt) == (0.5, 5.0, 5.0)
    assert ratio.speed_band == Band(0.25, 1.0) and ratio.energy_band == Band(4.5, 5.5)


def test_utilization_is_of_what_the_time_allows() -> None:
    assert report_of((), Fraction(1), (CHIP,), macs=30, peak_macs=120.0).utilization == 0.25
    assert report_of((), Fraction(1), (CHIP,), macs=30).utilization == 0.0
