"""Attention as a group: its heads, its mask's diagonal, and the nodes that it stands for."""

from __future__ import annotations

import pytest
from mtia_emu.compiler import text
from mtia_emu.compiler.check import check
from mtia_emu.compiler.passes import FuseMaps, FuseTails
from mtia_emu.compiler.passes.groups import MarkAttention, MarkedGraph, mark

from mtia_emu.types import AttentionWork, launched

PLAIN = """graph g {{
  in %q : fp16[{b},{g},{rows},8]
  in %k : fp16[{b},{g},16,8]
  in %v : fp16[{b},{g},16,4]
  {mask}
  %kt : fp16[{b},{g},8,16] = transpose(%k) {{perm=[0,1,3,2]}}
  %s : fp16[{b},{g},{rows},16] = matmul(%q, %kt)
  %h : fp16[{b},{heads},{m},16] = reshape(%s) {{shape=[{b},{heads},{m},16]}}
  {masked}
  %p : fp16[{b},{heads},{m},16] = softmax(%{last}) {{axis=3}}
  {guard}
  %r : fp16[{b},{g},{rows},16] = reshape(%{seen}) {{shape=[{b},{g},{rows},16]}}
  %o : fp16[{b},{g},{rows},4] = matmul(%r, %v)
  %y : fp16[{b},{rows},{g},4] = transpose(%o) {{perm=[0,2,1,3]}}
  out %y
  {out}
}}"""


def marked(b: int = 1, g: int = 2, group: int = 1, m: int = 16, **parts: str) -> MarkedGraph:
    """Return the marked graph of attention of `g` key heads, `group` query heads each, of m queries."""
    words = {"mask": "", "masked": "", "last": "h", "guard": "", "seen": "p", "out": ""} | parts
    sizes = {"b": b, "g": g, "heads": g * group, "m": m, "rows": group * m}
    graph = check(text.parse(PLAIN.format(**sizes, **words)))
    return MarkAttention()(mark(check(FuseTails()(FuseMaps()(graph)))))


def work(given: MarkedGraph) -> AttentionWork:
    """Return the work of the only group."""
    (group,) = given.groups
    assert isinstance(group.work, AttentionWork)
    return group.work


def test_it_is_one_kernel_with_the_moves_around_it() -> None:
    asked = marked().asked
    (group,) = asked.groups
    ops = ["transpose", "matmul", "softmax", "matmul", "transpose"]
    assert [asked.works[i].op for i in group.parts] == ops
    assert asked.works[group.at].name == "o" and launched(asked.works, asked.groups) == (group.work,)
    assert group.work.macs == sum(w.macs for w in asked.works) == 2 * 16 * 16 * (8 + 4)


@pytest.mark.parametrize(("b", "g", "group", "m"), [(1, 2, 1, 16), (3, 2, 4, 5), (2, 4, 8, 1)])
def test_heads_that_share_keys_are_those_of_the_graph(b: int, g: int, group: int, m: int) -> None:
    w = work(marked(b, g, group, m))
    assert (w.batch, w.kv_heads, w.group, w.queries) == (b, g, group, m)
    assert (w.keys, w.key_size, w.value_size) == (16, 8, 4)
    assert w.read_bytes == 2 * b * g * (group * m * 8 + 16 * 8 + 16 * 4)
    assert w.write_bytes == 2 * b * g * group * m * 4


def causal(diagonal: int, m: int = 16) -> dict[str, str]:
    """Return a constant mask that hides key j from query i where j > i + diagonal, and its use."""
    rows = [", ".join("0.0" if j <= i + diagonal else "-3e4" for j in range(16)) for i in range(m)]
    return {
        "mask": f"const %m : fp16[{m},16] = [{', '.join(rows)}]",
        "masked": f"%a : fp16[1,2,{m},16] = add(%h, %m)",
        "last": "a",
    }


@pytest.mark.parametrize(("m", "diagonal"), [(16, 0), (4, 12), (4, 3)])
def test_a_causal_mask_keeps_its_diagonal(m: int, diagonal: int) -> None:
    assert work(marked(m=m, **causal(diagonal, m))).diagonal == diagonal


def test_a_causal_mask_behind_padding_keeps_its_diagonal() -> None:
    """As PyTorch exports it: the padding is an input of the model."""
    shown = ", ".join("true" if j <= i else "false" for i in range(16) for j in range(16))
    mask = (
        f"const %c : bool[16,16] = [{shown}]\n  in %pad : bool[1,1,1,16]\n  const %zero : fp16[] = [0.0]\n"
        "  const %low : fp16[] = [-inf]\n  %both : bool[1,1,16,16] = and(%c, %pad)\n"
        "  %m : fp16[1,1,16,16] = where(%both, %zero, %low)"
    )
    assert work(marked(mask=mask, masked="%a : fp16[1,2,16,16] = add(%h, %m)", last="a")).diagonal == 0


@pytest.mark.parametrize("shape", ["1,1,16,16", "1,2,16,16", "1,1,1,16"])
def test_a_mask_that_nobody_knows_hides_nothing_for_certain(shape: str) -> None:
    given = {"mask": f"in %m : fp16[{shape}]", "masked": "%a : fp16[1,2,16,16] = add(%h, %m)", "last": "a"}
    assert work(marked(**given)).diagonal is None


def test_a_guard_of_rows_that_see_nothing_is_inside() -> None:
    guard = (
        "const %zero : fp16[] = [0.0]\n"
        "  %n : bool[1,2,16,16] = isnan(%p)\n"
        "  %z : fp16[1,2,16,16] = where(%n, %zero, %p)"
    )
    asked = marked(guard=guard, seen="z").asked
    assert [w.kind for w in launched(asked.works, asked.groups)] == ["attention"]


@pytest.mark.parametrize("value", ["s", "p"])
def test_scores_that_are_read_elsewhere_are_written(value: str) -> None:
    assert marked(out=f"out %{value}").groups == ()
