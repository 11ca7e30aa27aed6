"""Which dense operands the cache keeps: by hand, and never more than it holds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import block, command

from mtia_emu.engine.keeping import dense_misses
from mtia_emu.machine.chip import load_chip
from mtia_emu.program.isa import Binding, Launch, Opcode, Operand, Program
from mtia_emu.types import UINT8, TensorType

Use = tuple[int, int, bool]  # address, bytes, written
MISS, HIT, AGAIN = (1.0, 1.0), (0.0, 0.0), (1.0, 0.0)


def program(
    launches: Sequence[Sequence[Use]],
    *,
    inputs: Sequence[tuple[int, int]] = (),
    outputs: Sequence[tuple[int, int]] = (),
    consts: Sequence[tuple[int, int]] = (),
    times: int = 1,
) -> Program:
    """Return a program whose launches use bytes of DRAM, reading each `times` times."""
    blocks, run = [], []
    for number, uses in enumerate(launches):
        operands = tuple(Operand(UINT8, (1, n), (n, 1), "dram", written) for _, n, written in uses)
        commands = [
            command(
                Opcode.STORE if written else Opcode.LOAD,
                **{"operand": i, "rows": 1, "cols": n, "src0" if written else "dst": 0},
            )
            for i, (_, n, written) in enumerate(uses)
            for _ in range(1 if written else times)
        ]
        blocks.append(block(*commands, operands=operands))
        run.append(Launch(number, tuple(at for at, _, _ in uses), f"l{number}", "op"))
    bound = [
        tuple(
            Binding(f"{k}{at}", TensorType(UINT8, (n,)), TensorType(UINT8, (n,)), "dram", at) for at, n in x
        )
        for k, x in (("i", inputs), ("o", outputs), ("c", consts))
    ]
    chip = load_chip("tiny").model_dump()
    return Program("m", "", "int8", {}, chip, tuple(blocks), tuple(run), *bound, {}, 1 << 20, 0)


def test_what_one_launch_writes_the_next_reads_and_nobody_writes_back() -> None:
    chain = program([[(0, 100, True)], [(0, 100, False)]])
    assert dense_misses(chain, 100) == ([[HIT], [HIT]], 100)
    assert dense_misses(chain, 99) == ([[MISS], [MISS]], 0)


def test_an_output_is_written_to_dram_whoever_reads_it() -> None:
    chain = program([[(0, 100, True)], [(0, 100, False)]], outputs=[(0, 100)])
    assert dense_misses(chain, 100)[0] == [[MISS], [HIT]]


def test_an_input_is_new_in_each_run_and_a_weight_is_not() -> None:
    uses = [[(0, 100, False)], [], [(0, 100, False)]]
    assert dense_misses(program(uses, inputs=[(0, 100)]), 100)[0] == [[MISS], [], [HIT]]
    assert dense_misses(program(uses, consts=[(0, 100)]), 100) == ([[HIT], [], [HIT]], 100)
    assert dense_misses(program(uses, consts=[(0, 100)]), 50) == ([[MISS], [], [MISS]], 0)


def test_a_state_stays_from_run_to_run_and_is_not_written_back() -> None:
    grows = program(
        [[(0, 80, False)], [(80, 20, True), (0, 100, False)]], inputs=[(0, 80)], outputs=[(0, 100)]
    )
    assert dense_misses(grows, 100)[0] == [[HIT], [HIT, HIT]]
    assert dense_misses(grows, 99)[0] == [[MISS], [MISS, MISS]]


def test_pieces_that_are_written_apart_are_read_as_one() -> None:
    pieces = program([[(0, 50, True)], [(50, 50, True)], [(0, 100, False)]])
    assert dense_misses(pieces, 100)[0] == [[HIT], [HIT], [HIT]]
    assert dense_misses(program([[(0, 50, True)], [], [(0, 100, False)]]), 100)[0][2] == [MISS]


def test_a_piece_that_was_read_before_is_not_the_whole() -> None:
    """The second launch finds the weight only where it has stayed since the run before."""
    uses = [[(0, 10, False)], [(0, 100, False)], [(200, 60, True)], [(200, 60, False)]]
    assert dense_misses(program(uses, consts=[(0, 100)]), 120)[0][:2] == [[MISS], [MISS]]
    assert dense_misses(program(uses, consts=[(0, 100)]), 160)[0][:2] == [[HIT], [HIT]]


def test_the_shortest_wait_is_kept_first() -> None:
    """The weight waits for three launches, the activation for one: only one of them fits."""
    both = program([[(0, 60, False)], [(100, 60, True)], [(100, 60, False)]], consts=[(0, 60)])
    assert dense_misses(both, 119)[0] == [[MISS], [HIT], [HIT]]
    assert dense_misses(both, 120) == ([[HIT], [HIT], [HIT]], 120)


def test_what_is_kept_for_a_part_of_its_readers_is_written_back() -> None:
    """Of two waits of one activation the second has no room: a weight of the next launch takes it."""
    uses = [[(0, 60, True)], [(0, 60, False)], [(100, 60, True)], [(100, 60, False)], [(0, 60, False)]]
    assert dense_misses(program(uses), 60)[0] == [[MISS], [HIT], [HIT], [HIT], [MISS]]


def test_a_launch_that_reads_twice_finds_it_where_it_fits() -> None:
    twice = program([[(0, 100, False)]], inputs=[(0, 100)], times=2)
    assert dense_misses(twice, 100) == ([[AGAIN]], 100)
    assert dense_misses(twice, 99) == ([[MISS]], 0)
    assert dense_misses(program([[(0, 100, False)]], inputs=[(0, 100)]), 100) == ([[MISS]], 0)


use = st.tuples(st.integers(0, 20), st.integers(1, 6), st.booleans())
extents = st.lists(st.tuples(st.integers(0, 20), st.integers(1, 6)), max_size=3)


@settings(max_examples=100)
@given(st.lists(st.lists(use, max_size=3), min_size=1, max_size=6), st.integers(0, 40), extents, extents)
def test_never_more_than_it_holds_and_never_less_in_a_larger_one(
    launches: list[list[Use]], capacity: int, consts: list[tuple[int, int]], outputs: list[tuple[int, int]]
) -> None:
    whole = program(launches, consts=consts, outputs=outputs)
    misses, kept = dense_misses(whole, capacity)
    assert 0 <= kept <= capacity
    every, all_bytes = dense_misses(whole, 1 << 40)
    for few, more, x in zip(misses, every, launches, strict=True):
        assert len(few) == len(x)
        assert all(
            0 <= b <= a <= 1
            for one, other in zip(few, more, strict=True)
            for a, b in zip(one, other, strict=True)
        )
    assert all_bytes >= kept
    assert dense_misses(whole, 0) == ([[MISS] * len(x) for x in launches], 0)


@pytest.mark.parametrize("launches", [[], [[]]])
def test_nothing_is_kept_of_nothing(launches: list[list[Use]]) -> None:
    assert dense_misses(program(launches), 100) == ([[] for _ in launches], 0)
    assert np.isfinite(dense_misses(program(launches), 100)[1])
