"""Transposed convolutions as one kernel."""

from __future__ import annotations

from mtia_emu.compiler import text
from mtia_emu.compiler.check import check
from mtia_emu.compiler.passes.groups import MarkedGraph, MarkTransposed, mark

from mtia_emu.types import ImplicitGemmWork

PLAIN = (
    'strides=[1], dilations=[1], pads=[0, 0], group=1, tape="1 -> x0 | ", to="fp16"'  # of one spatial axis
)


def marked(body: str, last: str = "y") -> MarkedGraph:
    lines = f"in %x : fp16[2,8,16]\n{body}\nout %{last}"
    return MarkTransposed()(mark(check(text.parse(f"graph g {{\n{lines}\n}}"))))


def phase(name: str, operand: str = "x") -> str:
    """Return the text of a convolution by one tap, seen with an axis more."""
    return (
        f"const %w{name} : fp16[4,8,1] = absent\n"
        f"%{name} : fp16[2,4,16] = conv(%{operand}, %w{name}) {{{PLAIN}}}\n"
        f"%r{name} : fp16[2,4,16,1] = reshape(%{name}) {{shape=[2,4,16,1]}}\n"
    )


JOINED = "%y : fp16[2,4,16,2] = concat(%ra, %rb) {axis=3}"


def test_its_phases_read_their_operand_once_and_write_where_they_belong() -> None:
    (group,) = marked(phase("a") + phase("b") + JOINED).groups
    assert group.nodes == ("a", "b", "y") and group.at == "y"
    assert isinstance(group.work, ImplicitGemmWork)
    assert (group.work.m, group.work.k, group.work.n) == (32, 8, 8)
    assert group.work.read_bytes == 2 * (2 * 8 * 16 + 2 * 4 * 8)
    assert group.work.write_bytes == 2 * (2 * 4 * 32)


def test_results_that_others_read_too_and_channels_beside_one_another_stay_apart() -> None:
    assert marked(phase("a") + phase("b") + JOINED + "\nout %a").groups == ()
    channels = "%y : fp16[2,8,16] = concat(%a, %b) {axis=1}"
    assert marked(phase("a") + phase("b") + channels).groups == ()
    assert marked("in %z : fp16[2,8,16]\n" + phase("a") + phase("b", "z") + JOINED).groups == ()
