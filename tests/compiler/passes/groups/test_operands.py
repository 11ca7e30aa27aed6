"""Products that take an operand transposed, as one kernel."""

from __future__ import annotations

import pytest
from mtia_emu.compiler import text
from mtia_emu.compiler.check import check
from mtia_emu.compiler.passes.groups import MarkedGraph, MarkOperands, mark

from mtia_emu.types import ProductWork


def marked(body: str) -> MarkedGraph:
    return MarkOperands()(mark(check(text.parse(f"graph g {{\n{body}\n}}"))))


TURNED = "in %x : fp16[{shape}]\n%t : fp16[{turned}] = transpose(%x) {{perm=[{perm}]}}\n"


def test_a_product_reads_a_transposed_operand_by_its_strides() -> None:
    asked = marked(
        TURNED.format(shape="16,64", turned="64,16", perm="1, 0")
        + "in %g : fp16[16,8]\n%y : fp16[64,8] = matmul(%t, %g)\nout %y"
    ).asked
    (group,) = asked.groups
    assert (group.parts, group.at, group.work) == ((0, 1), 1, asked.works[1])
    assert isinstance(group.work, ProductWork)


def test_of_several_products_the_first_has_it() -> None:
    body = TURNED.format(shape="16,64", turned="64,16", perm="1, 0") + (
        "in %g : fp16[16,8]\n%y : fp16[64,8] = matmul(%t, %g)\n%z : fp16[64,8] = matmul(%t, %y2)\n"
        "out %y\nout %z"
    ).replace("%y2", "%g2").replace("in %g :", "in %g2 : fp16[16,8]\nin %g :")
    (group,) = marked(body).asked.groups
    assert group.parts == (0, 1)


@pytest.mark.parametrize(
    "more",
    [
        "%z : fp16[64,16] = relu(%t)\nout %z",  # somebody else reads it as it lies
        "out %t",
    ],
)
def test_what_others_read_too_is_moved(more: str) -> None:
    body = TURNED.format(shape="16,64", turned="64,16", perm="1, 0")
    body += f"in %g : fp16[16,8]\n%y : fp16[64,8] = matmul(%t, %g)\nout %y\n{more}"
    assert marked(body).asked.groups == ()


@pytest.mark.parametrize(
    ("perm", "turned", "free"), [("1, 0, 2", "4,2,8", True), ("2, 0, 1", "8,2,4", False)]
)
def test_elements_that_lie_side_by_side_must_stay_in_the_matrix(perm: str, turned: str, free: bool) -> None:
    inner = turned.rpartition(",")[2]
    lead = turned.rpartition(",")[0]
    body = TURNED.format(shape="2,4,8", turned=turned, perm=perm)
    body += (
        f"in %g : fp16[{turned.partition(',')[0]},{inner},3]\n%y : fp16[{lead},3] = matmul(%t, %g)\nout %y"
    )
    assert bool(marked(body).asked.groups) is free
