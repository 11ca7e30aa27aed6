"""Attention over caches in pages, against the definition written out token by token."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mtia_emu.compiler.check import check
from mtia_emu.compiler.frontend import load
from mtia_emu.compiler.ops.base import work
from mtia_emu.compiler.pipeline import compile_graph
from mtia_emu.compiler.reference import evaluate
from node_cases import Array, Case, f32

from mtia_emu.engine.function import execute
from mtia_emu.errors import UserError
from mtia_emu.machine.chip import load_chip

CHIP = load_chip("mtia-2i")

HEADS, GROUPS, SIZE, BLOCK, PAGES, BLOCKS = 4, 2, 16, 4, 4, 17


@dataclass
class Paged:
    """One call over some sequences: new tokens and past ones of each, and what the node says."""

    lengths: tuple[int, ...]
    past: tuple[int, ...]
    attrs: dict[str, Any]
    known: bool = False  # the lengths are constants
    packed: bool = False
    sink: bool = False
    norm: bool = False
    lost: int = 0  # leading pages of each sequence that are not there any more

    def __post_init__(self) -> None:
        rng = np.random.default_rng([*self.lengths, *self.past])
        tokens, batch = sum(self.lengths), len(self.lengths)
        self.q, self.k, self.v = (f32(rng, tokens, n, SIZE) for n in (HEADS, GROUPS, GROUPS))
        self.caches = [f32(rng, BLOCKS, BLOCK, GROUPS, SIZE) for _ in range(2)]
        self.ends = np.cumsum([0, *self.lengths]).astype(np.int32)
        self.table = rng.permutation(BLOCKS)[: batch * PAGES].reshape(batch, PAGES).astype(np.int32)
        self.table[:, : self.lost] = -1
        self.angles = f32(rng, PAGES * BLOCK, SIZE // 2)
        self.sinks = f32(rng, HEADS)
        self.weights = f32(rng, SIZE), f32(rng, SIZE)

    def case(self) -> Case:
        case = Case("PagedAttention", 3, num_heads=HEADS, kv_num_heads=GROUPS, **self.attrs)
        parts = [x.reshape(len(x), -1) for x in (self.q, self.k, self.v)]
        for part in [np.concatenate(parts, axis=1), None, None] if self.packed else parts:
            case.give(part)
        case.give(self.caches[0]).give(self.caches[1])
        case.give(self.ends, self.known).give(np.asarray(self.past, np.int32), self.known).give(self.table)
        turned = self.attrs.get("do_rotary")
        case.give(np.cos(self.angles) if turned else None).give(np.sin(self.angles) if turned else None)
        case.give(None).give(self.sinks if self.sink else None)
        for weight in self.weights:
            case.give(weight if self.norm else None)
        return case


def turned(x: Array, angle: Array, interleaved: bool) -> Array:
    """Return [heads, size] with each pair turned by its angle."""
    pairs = x.reshape(len(x), -1, 2) if interleaved else x.reshape(len(x), 2, -1).swapaxes(1, 2)
    whole = (pairs[..., 0] + 1j * pairs[..., 1]) * np.exp(1j * angle)
    both = np.stack([whole.real, whole.imag], axis=-1)
    return (both if interleaved else both.swapaxes(1, 2)).reshape(x.shape)


def defined(p: Paged) -> tuple[Array, Array, Array]:
    """Return the results as the operator's text defines them."""
    keys, values = (x.astype(np.float64) for x in p.caches)
    queries, made = [], [(b, p.past[b] + j) for b, n in enumerate(p.lengths) for j in range(n)]
    for i, (b, at) in enumerate(made):
        q, k = p.q[i].astype(np.float64), p.k[i].astype(np.float64)
        if p.norm:
            q, k = (
                x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * w
                for x, w in zip((q, k), p.weights, strict=True)
            )
        if p.attrs.get("do_rotary"):
            q, k = (turned(x, p.angles[at], bool(p.attrs.get("rotary_interleaved"))) for x in (q, k))
        queries.append(q)
        keys[p.table[b, at // BLOCK], at % BLOCK] = k
        values[p.table[b, at // BLOCK], at % BLOCK] = p.v[i]
    window = p.attrs.get("local_window_size", -1)
    rows = []
    for (b, at), q in zip(made, queries, strict=True):
        seen = [j for j in range(at + 1) if (window < 0 or j > at - window) and p.table[b, j // BLOCK] >= 0]
        k, v = (np.array([x[p.table[b, j // BLOCK], j % BLOCK] for j in seen]) for x in (keys, values))
        rows.append(
            [
                _head(p, h, q[h], k[:, h // (HEADS // GROUPS)], v[:, h // (HEADS // GROUPS)])
                for h in range(HEADS)
            ]
        )
    return np.array(rows).reshape(len(rows), -1), keys, values


def _head(p: Paged, head: int, q: Array, k: Array, v: Array) -> Array:
    scores = k @ q * (p.attrs.get("scale", 0.0) or SIZE**-0.5)
    cap = p.attrs.get("softcap", 0.0)
    weights = np.exp(cap * np.tanh(scores / cap) if cap else scores)
    return weights @ v / (weights.sum() + (np.exp(p.sinks[head]) if p.sink else 0.0))


PROMPTS = (3, 0, 7, 5), (0, 2, 8, 4)
CASES = {
    "prompts": Paged(*PROMPTS, {}, known=True),
    "prompts that rotate": Paged(*PROMPTS, {"do_rotary": 1}, known=True, packed=True),
    "pairs, window, sink, norm": Paged(
        *PROMPTS,
        {"do_rotary": 1, "rotary_interleaved": 1, "local_window_size": 3},
        known=True,
        sink=True,
        norm=True,
    ),
    "alike": Paged((4, 4), (5, 6), {"softcap": 5.0, "scale": 0.3}, known=True),
    "one of data": Paged((5,), (6,), {"do_rotary": 1}),
    "decode of data": Paged((1, 1, 1), (0, 9, 15), {"do_rotary": 1}, packed=True, sink=True),
    "as many tokens of other lengths": Paged((2, 0, 1), (3, 4, 0), {"local_window_size": 2}),
    "pages that left the window": Paged((1, 1), (12, 9), {"local_window_size": 4}, lost=1),
    "pages lost": Paged((1, 1), (12, 9), {}, lost=2),
}


def found(case: Case, path: Path) -> dict[str, Array]:
    given = case.build(path)
    graph = check(load(path, {}, input_shapes={k: v.shape for k, v in given.items()}))
    return evaluate(graph, given)


@pytest.mark.parametrize("name", CASES)
def test_it_computes_what_its_text_defines(name: str, tmp_path: Path) -> None:
    got = found(CASES[name].case(), tmp_path / "m.onnx")
    for mine, right in zip(got.values(), defined(CASES[name]), strict=True):
        assert mine.shape == right.shape
        np.testing.assert_allclose(mine, right, rtol=0, atol=5e-6 * max(1.0, np.abs(right).max()))


@pytest.mark.parametrize("name", CASES)
def test_a_program_changes_the_pages_in_place(name: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    given = CASES[name].case().build(path)
    graph = check(load(path, {}, input_shapes={k: v.shape for k, v in given.items()}))
    assert dict(graph.states) == {"y1": "x3", "y2": "x4"}
    compiled = compile_graph(graph, CHIP, dtype="fp32")
    copied = {v.buffer for s in compiled.schedule.steps if s.kernel == "copy" for v in s.inputs}
    assert copied.isdisjoint({"y1", "y2"})
    program = compiled.program
    at = {b.name: b.address for b in (*program.inputs, *program.outputs)}
    assert (at["y1"], at["y2"]) == (at["x3"], at["x4"])
    got = execute(program, CHIP, given).outputs
    for mine, right in zip((got[f"y{i}"] for i in range(3)), defined(CASES[name]), strict=True):
        np.testing.assert_allclose(mine, right, rtol=0, atol=2e-5 * max(1.0, np.abs(right).max()))


def test_only_new_rows_are_written(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    CASES["decode of data"].case().build(path)
    graph = load(path)
    new, pool = (2 * n * GROUPS * SIZE * 4 for n in (3, BLOCKS * BLOCK))
    for model, wanted in ((graph, new), (graph.with_states({}), new + pool)):
        assert sum(work(model, n).write_bytes for n in model.nodes if n.op == "scatter_rows") == wanted


@pytest.mark.parametrize(
    ("paged", "said"),
    [
        (Paged((3, 2), (0, 0), {}), "depends on the data"),
        (Paged((3, 2), (0, 0), {"is_causal": 0}, known=True), "not causal"),
        (Paged((3, 2), (0, 0), {"kv_cache_layout": "LATENT"}, known=True), "latent"),
        (Paged((3, 2), (0, 15), {}, known=True), "do not fit 4 pages"),
    ],
)
def test_what_is_refused(paged: Paged, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        found(paged.case(), tmp_path / "m.onnx")
