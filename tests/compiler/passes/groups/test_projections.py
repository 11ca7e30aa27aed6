"""Products of one input as one kernel."""

from __future__ import annotations

from mtia_emu.compiler import text
from mtia_emu.compiler.check import check
from mtia_emu.compiler.passes.groups import MarkedGraph, MarkProjections, mark

from mtia_emu.types import ProductWork


def marked(body: str) -> MarkedGraph:
    """Return the marked graph of some products of %x, [16, 64]."""
    lines = "in %x : fp16[16,64]\n" + body
    return MarkProjections()(mark(check(text.parse(f"graph g {{\n{lines}\n}}"))))


def product(name: str, columns: int, operand: str = "x", more: str = "") -> str:
    """Return the text of a product with a weight of so many columns, which is an output."""
    return (
        f"const %w{name} : fp16[64,{columns}] = absent\n"
        f"%{name} : fp16[16,{columns}] = matmul(%{operand}, %w{name}{more})\nout %{name}\n"
    )


def test_they_become_one_product_of_all_columns_that_reads_its_input_once() -> None:
    asked = marked(product("q", 64) + product("k", 32) + product("v", 32)).asked
    (group,) = asked.groups
    assert (group.parts, group.at) == ((0, 1, 2), 0)
    assert isinstance(group.work, ProductWork)
    assert (group.work.batch, group.work.m, group.work.k, group.work.n) == (1, 16, 64, 128)
    assert group.work.read_bytes == 2 * (16 * 64 + 64 * 128) and group.work.write_bytes == 2 * 16 * 128
    assert group.work.macs == 16 * 64 * 128 == sum(w.macs for w in asked.works)


def test_an_input_is_seen_through_a_change_of_shape() -> None:
    view = "%r : fp16[1,16,64] = reshape(%x) {shape=[1,16,64]}\n"
    other = "const %wk : fp16[64,32] = absent\n%k : fp16[1,16,32] = matmul(%r, %wk)\nout %k\n"
    assert [g.nodes for g in marked(product("q", 64) + view + other).groups] == [("q", "k")]


def test_one_after_another_stays_two() -> None:
    assert marked(product("a", 64) + product("b", 64, operand="a")).groups == ()


def test_products_of_8_bits_with_scales_become_one() -> None:
    tape = '{shape=[16,C], tape="3 -> t1 | t0 = mul(x0, x1) : fp32; t1 = mul(t0, x2) : fp32", to="fp16"}'
    body = "in %x : int8[16,64]\nin %s : fp32[16,1]\n"
    for name, columns in (("q", 64), ("k", 32)):
        body += f"const %w{name} : int8[64,{columns}] = absent\nconst %c{name} : fp32[{columns}] = absent\n"
        ends = tape.replace("C", str(columns))
        body += f"%{name} : fp16[16,{columns}] = matmul_map(%x, %w{name}, %s, %c{name}) {ends}\nout %{name}\n"
    (group,) = MarkProjections()(mark(check(text.parse(f"graph g {{\n{body}\n}}")))).groups
    assert group.nodes == ("q", "k") and isinstance(group.work, ProductWork) and group.work.n == 96


def test_a_product_with_a_bias_stays_by_itself() -> None:
    bias = "const %c : fp16[64] = absent\n"
    assert marked(bias + product("a", 64, more=", %c") + product("b", 64)).groups == ()
