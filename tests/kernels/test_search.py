"""The choice among ranked mappings: the fastest of those that fit and that the budget lets be timed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from harness import packed
from mtia_emu.kernels.attention.plan import AttentionProblem
from mtia_emu.kernels.attention.search import Tilings, plan_attention
from mtia_emu.kernels.bags.estimate import bag_cycles
from mtia_emu.kernels.bags.pooled import BagOperands, emit_embedding_bags, ranked_bags
from mtia_emu.kernels.builder import Builder, NoRoom
from mtia_emu.kernels.matmul.plan import MatmulProblem
from mtia_emu.kernels.matmul.search import plan_matmul, ranked_matmul
from mtia_emu.kernels.search import BY_ESTIMATE, FEW, MappingSearch

from mtia_emu.machine.chip import Chip, load_chip
from mtia_emu.machine.memories import Memory
from mtia_emu.program.isa import Block, Opcode
from mtia_emu.types import FP16, FP32, INT32

CHIP = load_chip("tiny")


def block(commands: int) -> Block:
    """Return a block of so many commands; a negative number has no room."""
    if commands < 0:
        raise NoRoom(f"no room for {commands}")
    build = Builder(CHIP, "map", ())
    build.add(Opcode.SIMD, build.steps(commands) * 1.0)
    return build.block()


def length(block: Block, chip: Chip) -> float:
    """Time a block by the number of its commands."""
    return float(len(block.commands))


def test_the_fastest_is_taken_and_the_first_of_equals() -> None:
    assert MappingSearch(length).choose([5, 3, 4, 3], block, CHIP) == 1


def test_without_a_rule_of_time_nothing_is_emitted() -> None:
    def refuse(_: int) -> Block:
        raise AssertionError

    assert BY_ESTIMATE.choose([1, 2], refuse, CHIP) == 0 and BY_ESTIMATE.count == 1


def test_what_has_no_room_is_passed_over() -> None:
    assert MappingSearch(length).choose([-1, 9, -2, 7], block, CHIP) == 3
    with pytest.raises(NoRoom, match="no room for -2"):
        MappingSearch(length).choose([-1, -2], block, CHIP)


def test_no_more_commands_are_timed_than_the_budget_has() -> None:
    timed = []

    def note(block: Block, chip: Chip) -> float:
        timed.append(len(block.commands))
        return length(block, chip)

    assert MappingSearch(note, most_commands=12).choose([6, 5, 4, 1], block, CHIP) == 1
    assert timed == [6, 5]
    assert (
        MappingSearch(note, most_commands=3).choose([4, 1], block, CHIP) == 0
    )  # the first one alone is too long


def test_products_are_ranked_by_their_estimate_behind_the_best_of_a_few_kinds() -> None:
    problem = MatmulProblem(1, 24, 40, 32, FP16, FP16, FP16, "sram", "dram", b_batched=False, b_tiled=True)
    ranked = ranked_matmul(problem, CHIP, 20)
    few, others = ([cost for _, cost in part] for part in (ranked[:FEW], ranked[FEW:]))
    assert len(ranked) == len({mapping for mapping, _ in ranked}) == 20
    assert few == sorted(few) and others == sorted(others) and few[0] <= others[0] < few[-1]
    assert len({(x.over_rows, x.over_cols, x.tm, x.tn, x.stage, x.slabs > 0) for x, _ in ranked[:FEW]}) == FEW
    assert plan_matmul(problem, CHIP).mapping == ranked[0][0]


def test_tilings_of_attention_are_ranked_by_their_estimate() -> None:
    problem = AttentionProblem(2, 2, 16, 48, 16, 16, FP16, "sram", extra_bytes=4)
    tilings = Tilings(problem, CHIP)
    ranked = tilings.ranked(problem.space, CHIP, 9)
    costs = [cycles for _, cycles in ranked]
    assert len({tiles for tiles, _ in ranked}) == 9 and costs == sorted(costs)
    assert plan_attention(problem, CHIP).tiles == ranked[0][0]
    assert min(cost for _, cost in tilings.ranked(Memory.DRAM, CHIP, 1)) > costs[0]  # keys that come slower


def test_bags_of_a_command_are_as_many_as_local_memory_holds_then_ranked_by_their_estimate() -> None:
    table, out = packed(FP16, (100, 32)), packed(FP16, (200, 32), "sram", written=True)
    looks, offsets = packed(INT32, (1, 400)), packed(INT32, (1, 201))
    bags = [BagOperands(table, looks, offsets, out)]
    sizes = ranked_bags(CHIP, bags, 4)
    most, *others = sizes
    costs = [bag_cycles(CHIP, bags, n) for n in others]
    assert len(set(sizes)) == 4 and most > max(others) and costs == sorted(costs)
    blocks = [emit_embedding_bags(CHIP, bags, "sum", most=n) for n in sizes]
    assert [int(b.commands["rows"].max()) for b in blocks] == sizes
    wide = packed(FP32, (2, 9999))
    with pytest.raises(NoRoom, match="a row of 9999 elements"):
        ranked_bags(CHIP, [BagOperands(wide, looks, offsets, replace(wide, written=True))], 1)
