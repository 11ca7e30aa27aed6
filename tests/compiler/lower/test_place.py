"""Where buffers lie: no two that live at the same time in the same place."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mtia_emu.compiler import text
from mtia_emu.compiler.lower.place import LINE, Arena, Placement, place, room_notes, vacant
from mtia_emu.compiler.lower.schedule import schedule

from mtia_emu.machine.chip import load_chip

CHAIN = """graph g {{
  in %x : fp16[{n},64]
  const %w : fp16[64,64] = absent
  %a : fp16[{n},64] = softmax(%x) {{axis=1}}
  %b : fp16[{n},64] = softmax(%a) {{axis=1}}
  %c : fp16[{n},64] = softmax(%b) {{axis=1}}
  %y : fp16[{n},64] = matmul(%c, %w)
  out %y
}}"""


def placed(rows: int, inputs_in: str = "dram", sram: int = 65536) -> Placement:
    """Return the placement of three activations of rows * 128 bytes."""
    return place(
        schedule(text.parse(CHAIN.format(n=rows)), load_chip("tiny", {"sram.bytes": sram})), inputs_in
    )


lives = st.tuples(st.integers(1, 2000), st.integers(0, 9), st.integers(0, 4))


@settings(max_examples=200)
@given(st.lists(lives, max_size=80), st.sampled_from([None, 2048, 8192]))
def test_no_two_pieces_alive_at_once_overlap(wanted: list[tuple[int, int, int]], limit: int | None) -> None:
    arena, pieces = Arena(limit), []
    for size, first, more in wanted:
        at = arena.take(size, first, first + more)
        assert at is not None or limit is not None
        if at is None:
            continue
        assert at % LINE == 0 and (limit is None or at + size <= limit) and at + size <= arena.top
        for other, end, begin, last in pieces:
            assert at + size <= other or end <= at or first + more < begin or last < first
        pieces.append((at, at + size, first, first + more))


def test_the_lowest_free_address_is_taken() -> None:
    arena = Arena(None)
    assert [arena.take(256, 0, 1), arena.take(512, 1, 2), arena.take(256, 2, 3)] == [0, 256, 0]
    assert arena.take(512, 0, 3) == 768


def test_activations_take_turns_in_sram() -> None:
    where = placed(64)
    assert {where.space[v] for v in "abc"} == {"sram"} and {where.space[v] for v in "xwy"} == {"dram"}
    assert where.sram_bytes == 2 * 64 * 128  # two live at any time
    assert where.spilled == () and where.kept_out == ()


def test_what_finds_no_room_spills() -> None:
    where = placed(64, sram=8192 + 4096)
    assert len(where.spilled) == 1 and {where.space[v] for v in where.spilled} == {"dram"}
    assert where.sram_bytes <= 12288 * 3 // 4


def test_the_models_tensors_start_in_sram_where_they_fit() -> None:
    where = placed(64, "sram")
    assert set(where.space.values()) == {"sram"} and where.dram_bytes == 0 and where.kept_out == ()
    assert placed(512, "sram").kept_out


@pytest.mark.parametrize("home", ["dram", "sram"])
def test_what_is_vacant_is_what_no_buffer_has(home: str) -> None:
    """A buffer that is taken in a step meets none that lives then."""
    made = schedule(text.parse(CHAIN.format(n=64)), load_chip("tiny"))
    where = place(made, home)
    arena = vacant(made, where, 1 << 16)
    for index, step in enumerate(made.steps):
        at = arena.take(256, index, index)
        assert at is not None
        alive = {v.buffer for v in (*step.inputs, *step.outputs)}
        alive |= {b.name for b in made.buffers.values() if b.role != "temp"}
        for name in alive:
            if where.space[name] == "sram":
                low, size = where.address[name], made.buffers[name].type.bytes
                assert at + 256 <= low or low + size <= at


def first_fit(taken: list[tuple[int, int, int, int]], size: int, first: int, last: int) -> int:
    """Return the lowest line from which `size` bytes are free in all steps, found by trying each."""
    at = 0
    while any(
        begin <= last and first <= end and low < at + size and at < high for begin, end, low, high in taken
    ):
        at += LINE
    return at


@given(st.lists(st.tuples(st.integers(1, 900), st.integers(0, 6), st.integers(0, 4)), max_size=12))
def test_a_buffer_takes_the_lowest_address_that_is_free(wanted: list[tuple[int, int, int]]) -> None:
    arena, taken = Arena(None), []
    for size, first, steps in wanted:
        lines = -(-size // LINE) * LINE
        at = arena.take(size, first, first + steps)
        assert at == first_fit(taken, lines, first, first + steps)
        taken.append((first, first + steps, at, at + lines))
    assert arena.top == max((high for *_, high in taken), default=0)


# Bytes, and to the next line of 256: x 640 (768), w 512, v 160 (256), y 200 (256), a 320 (512), b 200 (256).
# a lives in steps 0 and 1, b in steps 1 and 2: they cannot take turns.
WORKED = """graph g {
  in %x : fp32[10,16]
  const %w : fp32[16,8] = absent
  const %v : fp32[8,5] = absent
  %a : fp32[10,8] = matmul(%x, %w)
  %b : fp32[10,5] = matmul(%a, %v)
  %y : fp32[10,5] = softmax(%b) {axis=1}
  out %y
}"""


def addresses(inputs_in: str, **settings: object) -> Placement:
    """Return where the worked graph's buffers lie on tiny."""
    return place(schedule(text.parse(WORKED), load_chip("tiny", settings)), inputs_in)


def test_addresses_are_those_worked_out_by_hand() -> None:
    where = addresses("dram")
    assert where.space == {"x": "dram", "w": "dram", "v": "dram", "y": "dram", "a": "sram", "b": "sram"}
    assert {n: where.address[n] for n in "xwvy"} == {"x": 0, "w": 768, "v": 1280, "y": 1536}
    assert {n: where.address[n] for n in "ab"} == {"a": 0, "b": 512}  # a, 320 B, chooses first
    assert (where.dram_bytes, where.sram_bytes) == (1792, 768)


def test_the_smallest_choose_first() -> None:
    """Of 65536 B one part in 256 is 256: b, of 200 B, is small, a is not."""
    where = addresses("dram", **{"sram.bytes": 65536})
    assert {n: where.address[n] for n in "ab"} == {"b": 0, "a": 256}


def test_a_quarter_of_sram_is_left_to_kernels() -> None:
    """Of 1024 B 768 are for buffers: a and b. Of 1020 B 765: b spills, behind the tensors in DRAM."""
    both, one = (addresses("dram", **{"sram.bytes": n}) for n in (1024, 1020))
    assert both.spilled == () and both.sram_bytes == 768
    assert one.spilled == ("b",) and one.address["b"] == 1792
    assert (one.dram_bytes, one.sram_bytes) == (1792 + 256, 512)


def test_the_models_tensors_take_sram_one_after_another() -> None:
    """Of 2048 B 1536 are for buffers: x, w and v take them all. y and the activations go to DRAM."""
    where = addresses("sram", **{"sram.bytes": 2048})
    assert {n: where.address[n] for n in "xwv"} == {"x": 0, "w": 768, "v": 1280}
    assert {n: where.address[n] for n in "yab"} == {"y": 0, "a": 256, "b": 768}
    assert where.kept_out == ("y",) and where.spilled == ("a", "b")
    assert (where.dram_bytes, where.sram_bytes) == (1024, 1536)
    less = addresses("sram", **{"sram.bytes": 1900})  # 1425: of v, 256 B, after 1280 a part would fit
    assert less.kept_out == ("v", "y") and less.sram_bytes == 1280


def test_weights_may_stay_where_they_are() -> None:
    where = addresses("weights-dram")
    assert {n: where.address[n] for n in "xyab"} == {"x": 0, "y": 768, "a": 1024, "b": 1536}
    assert {n: where.address[n] for n in "wv"} == {"w": 0, "v": 512}
    assert (where.dram_bytes, where.sram_bytes) == (768, 1792)


def test_weights_stay_in_what_activations_leave_on_a_warm_chip() -> None:
    """Of 2048 B 1536 are for buffers: a and b take 768, w 512 and v 256 the rest; each has a home in DRAM."""
    made = schedule(text.parse(WORKED), load_chip("tiny", {"sram.bytes": 2048}))
    cold, warm = place(made), place(made, state="warm")
    assert {n: warm.space[n] for n in "wv"} == {"w": "sram", "v": "sram"}
    assert {n: warm.address[n] for n in "wv"} == {"w": 768, "v": 1280}
    assert all(warm.address[n] == cold.address[n] for n in "xyab")
    assert (warm.sram_bytes, warm.resident_bytes, warm.homeless_bytes) == (1536, 768, 0)
    assert (warm.dram_bytes, cold.resident_bytes, warm.state, cold.state) == (1792, 0, "warm", "cold")
    made = schedule(
        text.parse(WORKED), load_chip("tiny", {"sram.bytes": 1900})
    )  # 1425: v, 256 B, has no room
    less = place(made, state="warm")
    assert less.space["v"] == "dram" and (less.resident_bytes, less.homeless_bytes) == (512, 256)
    assert "warm: 0.000512 of 0.000768 MB" in room_notes(less, made.chip)[0]


def test_operands_that_are_placed_by_hand_stay_there() -> None:
    made = schedule(text.parse(WORKED), load_chip("tiny"))
    for inputs_in in ("sram", "weights-dram"):
        assert place(made, inputs_in, "warm").space == place(made, inputs_in).space


TIED = """graph g {
  in %i : int64[4]
  const %table : fp16[400,64] = absent
  const %w : fp16[64,64] = absent
  const %twice : fp16[64,64] = absent
  %a : fp16[4,64] = gather(%table, %i) {axis=0}
  %b : fp16[4,64] = matmul(%a, %w)
  %c : fp16[4,64] = matmul(%b, %twice)
  %y : fp16[4,64] = matmul(%c, %twice)
  out %y
}"""


def test_what_most_steps_read_stays_and_no_table_does() -> None:
    chip = load_chip("tiny", {"sram.bytes": 16384})  # 12288 for buffers: one weight of 8192 beside a, b and c
    where = place(schedule(text.parse(TIED), chip, state="warm"), state="warm")
    assert {n: where.space[n] for n in ("twice", "w", "table")} == {
        "twice": "sram",
        "w": "dram",
        "table": "dram",
    }
    large = load_chip("tiny", {"sram.bytes": 1 << 20})
    assert place(schedule(text.parse(TIED), large, state="warm"), state="warm").space["table"] == "dram"


def test_a_warm_chip_copies_no_constant_anew() -> None:
    made, chip = text.parse(TIED), load_chip("tiny", {"sram.bytes": 1 << 20})
    assert [s.op for s in schedule(made, chip).steps].count("copy") == 1
    assert [s.op for s in schedule(made, chip, state="warm").steps].count("copy") == 0


def test_what_is_vacant_begins_where_buffers_end() -> None:
    """Step 0 has a in bytes 0 .. 512, step 2 has b in 512 .. 768."""
    made = schedule(text.parse(WORKED), load_chip("tiny"))
    arena = vacant(made, place(made), 1024)
    assert arena.take(257, 2, 2) == 0
    assert arena.take(512, 0, 0) == 512
    assert arena.take(512, 1, 1) is None
    assert arena.take(256, 1, 1) == 768


SUM = """graph g {{
  in %x : fp16[{n},64]
  const %w : fp16[64,64] = absent
  %a : fp16[{n},64] = softmax(%x) {{axis=1}}
  %b : fp16[{n},64] = matmul_map(%x, %w, %a) {{shape=[{n}, 64], tape="{tape}", to="fp16"}}
  %c : fp16[{n},64] = softmax(%b) {{axis=1}}
  %y : fp16[{n},64] = {last}
  out %y
}}"""
ADDED = "2 -> t0 | t0 = add(x0, x1)"


def summed(last: str, rows: int = 16) -> Placement:
    steps = schedule(text.parse(SUM.format(n=rows, tape=ADDED, last=last)), load_chip("tiny"))
    return place(steps)


def test_a_result_lies_where_an_operand_was_that_its_step_reads_last() -> None:
    placed_so = summed("softmax(%c) {axis=1}")
    assert placed_so.address["a"] == placed_so.address["b"]
    assert placed_so.sram_bytes == 2 * 16 * 128  # of a, b and c; the output is in DRAM


def test_it_lies_elsewhere_where_the_operand_is_read_once_more() -> None:
    placed_so = summed("add(%c, %a)")
    assert len({placed_so.address[name] for name in "abc"}) == 3 and placed_so.sram_bytes == 3 * 16 * 128
