"""Weights read ahead: same results, no more traffic, hardly ever more cycles, within SRAM and the cache."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mtia_emu.compiler import text
from mtia_emu.compiler.graph import Graph
from mtia_emu.compiler.inputs.samples import random_inputs
from mtia_emu.compiler.pipeline import compile_graph
from mtia_emu.compiler.reference import core_library
from mtia_emu.kernels.pace import pace

from mtia_emu import api, testing
from mtia_emu.engine.function import execute
from mtia_emu.engine.lookups import cache_bytes
from mtia_emu.engine.run import report
from mtia_emu.machine.chip import Chip, load_chip
from mtia_emu.program.isa import Block, Opcode, Program
from mtia_emu.program.verify import verify

BETWEEN = (
    "softmax(%p{i}) {{axis=1}}",
    "exp(%p{i})",
    "layernorm(%p{i}, %scale) {{epsilon=1e-05}}",
    "neg(%p{i})",
)
SLOW = {"dram.channel_bytes_per_s": 2e9}  # products wait for their weights


def layers(rows: int, width: int, steps: list[int], seed: int = 0) -> Graph:
    """Return products of weights [width, width], a step of `BETWEEN` after each."""
    rng = np.random.default_rng(seed)
    lines = [f"  in %x : fp32[{rows},{width}]", f"  const %scale : fp32[{width}] = present"]
    data: dict[str, Any] = {"scale": np.ones(width, np.float32)}
    value = "x"
    for i in range(len(steps)):
        lines.append(f"  const %w{i} : fp32[{width},{width}] = present")
        data[f"w{i}"] = rng.standard_normal((width, width)).astype(np.float32) / width
    for i, which in enumerate(steps):
        lines.append(f"  %p{i} : fp32[{rows},{width}] = matmul(%{value}, %w{i})")
        lines.append(f"  %s{i} : fp32[{rows},{width}] = " + BETWEEN[which].format(i=i))
        value = f"s{i}"
    return text.parse("\n".join(["graph g {", *lines, f"  out %{value}", "}"]), data)


def copies(program: Program) -> int:
    """Return how many prefetches the launches of a program do."""
    each = [
        int(((b.commands["op"] == Opcode.STAGE) & (b.commands["stage"] < 0)).sum()) for b in program.blocks
    ]
    return sum(each[x.block] for x in program.launches)


def both(graph: Graph, chip: Chip, **options: Any) -> tuple[Program, Program]:
    """Return the program without prefetches and the one with them."""
    off, on = (compile_graph(graph, chip, prefetch=p, state="cold", **options).program for p in (False, True))
    assert not copies(off)
    return off, on


@settings(max_examples=25)
@given(
    st.integers(1, 24),
    st.integers(8, 64),
    st.lists(st.integers(0, len(BETWEEN) - 1), min_size=2, max_size=5),
    testing.chips(),
    st.sampled_from([5e8, 2e9, 4e9]),
    st.sampled_from(["fp32", "fp16", "int8", "quantise{weights=int4,group=4,activations=none}"]),
)
def test_a_program_with_prefetches_computes_the_same(
    rows: int, width: int, steps: list[int], chip: Chip, rate: float, wanted: str
) -> None:
    chip = chip.model_copy(update={"dram": chip.dram.model_copy(update={"channel_bytes_per_s": rate})})
    graph = layers(rows, width, steps)
    off, on = both(graph, chip, dtype=wanted)
    verify(on, chip)
    inputs = random_inputs(graph, 0)
    one, two = (execute(p, chip, inputs, core_library(), check=True).outputs for p in (off, on))
    for name, value in one.items():
        np.testing.assert_array_equal(two[name], value)
    before, after, many = report(off, chip), report(on, chip), copies(on)
    burst = chip.dram.burst_bytes
    assert after.traffic.dram_read_bytes <= before.traffic.dram_read_bytes + many * burst  # a cut, a burst
    assert after.macs == before.macs
    reach = chip.cycles(chip.dram.latency_s) + chip.pe.dma.startup_cycles + 64  # 64: a window of DRAM's
    assert after.cycles <= before.cycles * 1.01 + min(many, len(on.launches)) * reach


def test_products_that_wait_for_weights_are_faster() -> None:
    chip = load_chip("mtia-2i")
    off, on = both(layers(64, 512, [0, 0, 0, 0]), chip, dtype="fp16")
    before, after = report(off, chip), report(on, chip)
    assert after.cycles < 0.97 * before.cycles
    assert after.traffic.dram_read_bytes == before.traffic.dram_read_bytes
    assert on.notes[-1].endswith("are read into SRAM while launches before them leave DRAM idle")
    assert on.dram_bytes == off.dram_bytes


def test_products_that_wait_for_nothing_have_no_head() -> None:
    chip = load_chip("mtia-2i", {"dram.channel_bytes_per_s": 1e12, "dram.device": "ideal"})
    assert not copies(both(layers(64, 512, [0, 0]), chip, dtype="fp16")[1])


def test_equal_layers_share_blocks() -> None:
    chip = load_chip("mtia-2i")
    few, many = (both(layers(64, 512, [0] * n), chip, dtype="fp16")[1] for n in (4, 12))
    assert len(many.blocks) == len(few.blocks)


@pytest.mark.parametrize(("sram", "some"), [(1 << 18, True), (1 << 9, False)])
def test_heads_take_what_sram_has(sram: int, some: bool) -> None:
    chip = load_chip("tiny", SLOW | {"sram.bytes": sram})
    on = both(layers(8, 64, [0, 0, 0]), chip, dtype="fp32")[1]
    assert bool(copies(on)) == some
    assert on.sram_bytes <= sram - sram // 4


def test_the_cache_of_looked_up_rows_is_left() -> None:
    chip = load_chip("mtia-2i", {"sram.granule_bytes": 1 << 18, "sram.bytes": 1 << 20})
    with api.open_model("zoo:dlrm-small", {"batch": 64}) as source:
        graph = api.compile_stages(source, chip).onnx
    off, on = both(graph, chip)
    assert copies(on) and cache_bytes(on, chip) == cache_bytes(off, chip) > 0


def copied_bytes(block: Block, burst: int) -> int:
    """Return the bytes of whole bursts that a block reads ahead."""
    c = block.commands
    ahead = c[(c["op"] == Opcode.STAGE) & (c["stage"] < 0)]
    sizes = [x.dtype.bytes for x in block.operands]
    return sum(-(-int(x["rows"]) * int(x["cols"]) * sizes[x["operand"]] // burst) * burst for x in ahead)


def head_bytes(block: Block) -> int:
    """Return the bytes of a block's weight that were read ahead."""
    return sum(x.extent_bytes for x in block.operands if x.tiled and x.space == "sram" and not x.written)


@pytest.mark.parametrize(
    ("rate", "latency_s", "rows"), [(2e9, 50e-9, 8), (2e9, 300e-9, 8), (1.9e9, 50e-9, 16)]
)
def test_no_more_is_read_ahead_than_there_is_time_for(rate: float, latency_s: float, rows: int) -> None:
    """What a launch copies fits into what it leaves DRAM idle, less the way: an answer, a hop, a set-up of 4.

    And what is read ahead for a launch is no more than it would have waited for.
    """
    chip = load_chip("tiny", {"dram.channel_bytes_per_s": rate, "dram.latency_s": latency_s})
    off, on = both(layers(rows, 64, [0, 0, 0]), chip, dtype="fp32")
    each_cycle, way = 2 * rate / 1e9, latency_s * 1e9 + 1 + 4
    assert copies(on)
    for before, after in zip(off.launches, on.launches, strict=True):
        own, block = pace(off.blocks[before.block], chip), on.blocks[after.block]
        assert own is not None
        assert copied_bytes(block, 64) / each_cycle <= max(own.idle - way, 0.0)
        assert head_bytes(block) / each_cycle <= own.late
