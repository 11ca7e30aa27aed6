"""The text of graphs: exact, and read without trust."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from mtia_emu.compiler import text
from mtia_emu.compiler.graph import Const, Graph, Node

from mtia_emu.errors import UserError
from mtia_emu.types import DTYPES, FP16, FP32, INT64, TensorType

GOLDEN = """graph llama {
  in %ids : int64[1,8]
  const %w : fp16[64,96] = absent
  const %shift : fp32[2] = [0.1, -inf]
  %h : fp16[8,96] = matmul(%ids, %w) {activation="relu"}   # fc1
  %"a b" : fp16[8,32], %b : fp16[8,64] = topk(%h, _, %shift) {axis=1, k=[1, 2.0, [true]]} @two
  out %b
}
"""


def golden() -> Graph:
    w, shift = Const(TensorType(FP16, (64, 96))), Const.of(np.array([0.1, -np.inf], np.float32))
    t32, t64, t96 = (TensorType(FP16, (8, n)) for n in (32, 64, 96))
    attrs = {"axis": 1, "k": (1, 2.0, (True,))}
    nodes = [
        Node("h", "matmul", ("ids", "w"), ("h",), (t96,), {"activation": "relu"}, "fc1"),
        Node("two", "topk", ("h", "", "shift"), ("a b", "b"), (t32, t64), attrs),
    ]
    return Graph("llama", nodes, {"ids": TensorType(INT64, (1, 8))}, ["b"], {"w": w, "shift": shift})


def test_golden() -> None:
    assert text.dump(golden()) == GOLDEN


def test_it_parses_back() -> None:
    graph = text.parse(GOLDEN)
    assert graph.nodes == golden().nodes
    assert graph.inputs == golden().inputs
    assert graph.outputs == ("b",)
    assert text.dump(graph) == GOLDEN


def test_large_data_are_a_digest() -> None:
    data = np.arange(100, dtype=np.float32)
    graph = Graph("g", [], {}, ["c"], {"c": Const.of(data)})
    written = text.dump(graph)
    assert text.digest(data) in written
    assert text.parse(written, {"c": data}).consts["c"].array().tolist() == data.tolist()
    assert not text.parse(written).consts["c"].present
    with pytest.raises(UserError, match="another digest"):
        text.parse(written, {"c": data + 1})
    with pytest.raises(UserError, match=r"the data given for %c are float64\[100\]"):
        text.parse(written, {"c": data.astype(np.float64)})
    assert "= present" in text.dump(graph, digests=False)


@given(st.data())
def test_every_value_of_every_dtype_comes_back(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(sorted(DTYPES)))
    raw = data.draw(hnp.arrays(np.uint8, 8 * DTYPES[kind].bytes))
    array = (raw % 2).view(bool) if kind == "bool" else raw.view(DTYPES[kind].numpy)
    graph = Graph("g", [], {}, ["c"], {"c": Const.of(array)})
    back = text.parse(text.dump(graph)).consts["c"].array()
    with np.errstate(invalid="ignore"):  # signalling NaNs
        wide = [x.astype(np.float64) if DTYPES[kind].is_float else x for x in (array, back)]
    np.testing.assert_array_equal(*wide)


@given(st.text(min_size=1, max_size=20), st.text(max_size=20), st.text(min_size=1, max_size=8))
def test_any_name_and_origin_come_back(name: str, origin: str, word: str) -> None:
    kind = TensorType(FP32, (1,))
    node = Node(word, "exp", ("x" + name,), (name,), (kind,), {"note": origin}, origin)
    graph = Graph(name, [node], {"x" + name: kind}, [name])
    back = text.parse(text.dump(graph))
    assert back.nodes == graph.nodes
    assert back.name == graph.name


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("graph llama {", "grap llama {", "line 1: expected 'graph '"),
        ("int64[1,8]", "imt64[1,8]", "line 2: unknown dtype 'imt64'; did you mean 'int64'"),
        ("= absent", "= gone", "line 3: expected absent"),
        ("[0.1, -inf]", "[0.1]", r"line 4: fp32\[2\] has 2 elements, 1 are given"),
        ("matmul(%ids, %w)", "matmul(%ids %w)", "line 5: expected ','"),
        ('"relu"', "relu", "line 5: expected a number"),
        ("  out %b\n}", "  out %b\n", "line 7: expected '}'"),
        ("out %b", "out %z", "output %z is not defined"),
        ("in %ids : int64[1,8]", "in %ids : int64[1,8] %b", "line 2: expected the end of the line"),
    ],
)
def test_faults_are_pointed_at(old: str, new: str, words: str) -> None:
    assert old in GOLDEN
    with pytest.raises(UserError, match=words):
        text.parse(GOLDEN.replace(old, new))


def test_the_caret_stands_under_the_fault() -> None:
    with pytest.raises(UserError) as caught:
        text.parse("graph g {\n  out b\n}\n")
    assert str(caught.value) == "line 2: expected '%'\n    out b\n        ^"


@given(st.integers(0, len(GOLDEN) - 1), st.text(max_size=3), st.integers(0, 5))
def test_spoilt_text_is_refused_or_read(at: int, put: str, cut: int) -> None:
    with contextlib.suppress(UserError):
        text.parse(GOLDEN[:at] + put + GOLDEN[at + cut :])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (f"in %x : fp32[{'9' * 4400}]", "line 2: not a tensor type: 'fp32.999"),
        (f"in %x : fp32[{','.join(['1'] * 65)}]", "line 2: a tensor has at most 64 dimensions"),
        (
            f"in %x : fp32[{1 << 30},{1 << 30}]",
            "line 2: a tensor has at most 64 dimensions and 17592186044416 elements",
        ),
        (f"%y : fp32[1] = exp(%x) {{a={'9' * 4400}}}", "line 2: not a number: 999"),
        (
            f"%y : fp32[1] = exp(%x) {{a={1 << 64}}}",
            "line 2: an integer of more than 64 bits: 18446744073709551616",
        ),
        (r'in %"\ud800" : fp32[1]', "line 2: not a quoted text"),
    ],
)
def test_what_no_number_or_text_can_be_is_refused(line: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        text.parse(f"graph g {{\n  {line}\n}}\n")


def test_deep_brackets_are_refused() -> None:
    with pytest.raises(UserError, match="brackets stand more than 8 deep"):
        text.parse("graph g {\n  %y : fp32[1] = exp(%x) {a=" + "[" * 5000 + "}\n}\n")
