"""How attention is scheduled: as one kernel that keeps scores to itself, or as products and a softmax.

Where queries are too few for the grid, the one kernel may take the keys in parts, whose results are weighed
and added after it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

from mtia_emu.kernels.attention.kernel import tilings
from mtia_emu.kernels.attention.operands import ScoreTape
from mtia_emu.kernels.attention.plan import ALWAYS, AttentionPlan, AttentionProblem, AttentionTiling
from mtia_emu.kernels.attention.search import first_cycles
from mtia_emu.kernels.builder import NoRoom, ceil_div
from mtia_emu.kernels.matmul.plan import MatmulProblem
from mtia_emu.kernels.matmul.search import ranked_matmul
from mtia_emu.kernels.rows.estimate import row_cycles
from mtia_emu.kernels.rows.tape import finish, inline, parse

from mtia_emu.machine.chip import Chip
from mtia_emu.machine.memories import Memory
from mtia_emu.machine.units.simd import FUNCTIONS
from mtia_emu.reuse.memo import Memoise
from mtia_emu.sums import add_up
from mtia_emu.types import FP32, TensorType

from ...graph import Node
from ...ops.base import integer
from ..steps import Buffer, Schedule, Step
from ..views import View, whole
from .products import edge
from .row_parts import fits
from .rows import softmax_tape

SCORES_SHARE = 8  # one part in so many of SRAM is for the scores of the heads that are taken at once
FUSED, SEPARATE, UNSURE = "fused", "separate", "by time"
NEAR, FAR = 1.3, 4.0  # estimates this near are not trusted; those that leave much out
LEAST_KEYS = 128  # of a part


@dataclass(frozen=True)
class _Call:
    """One attention on views: q[b,g,r,m,d], k[b,g,d,n], v[b,g,n,e], out as q, extras[b,g,r,m,n]."""

    q: View
    k: View
    v: View
    out: View
    extras: tuple[View, ...]
    scores: ScoreTape
    diagonal: int
    space: Memory  # of keys and values

    @property
    def problem(self) -> AttentionProblem:
        """Return the sizes, and what the tape takes."""
        b, g, r, m, d = self.q.shape
        tape = self.scores.plain()
        wide = [x for x in self.extras if x.strides[-1] and any(x.strides[2:4])]
        extra_bytes = sum(2 * x.dtype.bytes for x in wide) + 4 * len(self.scores.tape.steps)
        passes = sum(
            1 if s.folds else FUNCTIONS[s.function].passes for s in finish(tape, [self.q.dtype]).steps
        )
        keys, values = self.k.shape[-1], self.v.shape[-1]
        return AttentionProblem(
            b * g, r, m, keys, d, values, self.q.dtype, self.space, self.diagonal, extra_bytes, max(passes, 1)
        )


def attention(schedule: Schedule, node: Node) -> list[View]:
    """Schedule the kernel that is estimated to be faster; on the core what neither can hold."""
    call = _near(schedule, node, _call(schedule, node))
    if len(node.outputs) > 1:
        return _with_totals(schedule, node, call)
    faster = _faster(schedule, call)
    if faster is None:
        return schedule.on_core(node)
    how, parts = faster
    fused = partial(_in_parts, parts=parts) if parts > 1 else _whole
    if how == UNSURE:
        _faster_by_time(schedule, node, call, (fused, _separate))
    else:
        (fused if how == FUSED else _separate)(schedule, node, call)
    return [whole(call.out.buffer, _by_query(node.type)).transpose((0, 2, 1, 3))]


def _with_totals(schedule: Schedule, node: Node, call: _Call) -> list[View]:
    """Schedule the one kernel, which also gives the totals of rows; on the core what it cannot hold."""
    if _best(call.problem, schedule.memoise, schedule.chip) is None:
        return schedule.on_core(node)
    totals = schedule.result(node, 1)
    split = totals.reshape((*call.q.shape[:-1], 1))
    assert split is not None
    _fused(schedule, node, call, [call.out, split], call.problem)
    return [whole(call.out.buffer, _by_query(node.type)).transpose((0, 2, 1, 3)), totals]


def _faster_by_time(
    schedule: Schedule, node: Node, call: _Call, ways: Sequence[Callable[[Schedule, Node, _Call], None]]
) -> None:
    """Schedule what takes least time by its blocks, of ways whose estimates are near."""
    assert schedule.fastest is not None
    at, kept = len(schedule.steps), dict(schedule.buffers)
    tried: list[tuple[list[Step], dict[str, Buffer]]] = []
    for way in ways:
        way(schedule, node, call)
        tried.append((schedule.steps[at:], schedule.buffers))
        del schedule.steps[at:]
        schedule.buffers = dict(kept)
    schedule.buffers = {name: b for _, buffers in tried for name, b in buffers.items()}
    steps, schedule.buffers = tried[schedule.fastest(schedule, [steps for steps, _ in tried])]
    schedule.steps += steps


def _whole(schedule: Schedule, node: Node, call: _Call) -> None:
    """Schedule the one kernel, each of whose results meets all keys."""
    _fused(schedule, node, call, [call.out], call.problem)


def _fused(
    schedule: Schedule, node: Node, call: _Call, results: list[View], problem: AttentionProblem
) -> None:
    """Schedule the one kernel."""
    scoring = {"tape": str(call.scores.tape), "mask": call.scores.mask, "guarded": call.scores.guarded}
    operands = [call.q, call.k, call.v, *call.extras]
    schedule.step(node, "attention", operands, results, problem=problem, **scoring)


def _in_parts(schedule: Schedule, node: Node, call: _Call, parts: int) -> None:
    """Schedule the one kernel with keys in parts, a softmax over these and the sum of what they weigh."""
    (b, g, r, m, _), e, kind = call.q.shape, call.v.shape[-1], call.q.dtype
    rows = b * g * r * m
    partial = schedule.buffer(f"{node.name}.parts", TensorType(kind, (b, g, r, m, parts, e)))
    totals = schedule.buffer(f"{node.name}.totals", TensorType(FP32, (b, g, r, m, parts, 1)))
    results = [x.transpose((0, 1, 4, 2, 3, 5)) for x in (partial, totals)]
    _fused(schedule, node, call, results, replace(call.problem, parts=parts))
    weights = schedule.buffer(f"{node.name}.weights", TensorType(kind, (rows, 1, parts)))
    totals = replace(totals, shape=weights.shape, strides=weights.strides)
    schedule.step(node, "row", [totals], [weights], tape=str(softmax_tape()))
    partial = whole(partial.buffer, TensorType(kind, (rows, parts, e)))
    out = call.out.reshape((b, g, r, m, 1, e)) or call.out
    sizes = {"batch": rows, "m": 1, "k": parts, "n": e}
    schedule.step(node, "matmul", [weights, partial], [out], **sizes, epilogue="")


def _by_query(kind: TensorType) -> TensorType:
    """Return the type of [b,h,m,e] as it is stored, [b,m,h,e]: as what joins the heads wants it."""
    b, h, m, e = kind.shape
    return TensorType(kind.dtype, (b, m, h, e))


def _near(schedule: Schedule, node: Node, call: _Call) -> _Call:
    """Return the call with keys and values, which are read again for each pass of queries, kept out of DRAM.

    What the graph wants in DRAM is copied to there, if it is small enough to lie in SRAM; a cache that grows
    in place is copied from there.
    """
    size = call.k.type.bytes + call.v.type.bytes
    roles = {schedule.buffers[x.buffer].role for x in (call.k, call.v)}
    if (
        not roles <= {"temp", "output"}
        or size > schedule.chip.sram.bytes // SCORES_SHARE
        or _passes(schedule, call) < 2
    ):
        return call
    k, v = (
        _copied(schedule, node, x) if schedule.buffers[x.buffer].role == "output" else x
        for x in (call.k, call.v)
    )
    schedule.reread.update((k.buffer, v.buffer))
    return replace(call, k=k, v=v, space=Memory.SRAM)


def _copied(schedule: Schedule, node: Node, view: View) -> View:
    """Return a packed copy of a view, keys with a row for each key."""
    turned = view.strides[-1] != 1
    source = view.transpose((0, 1, 3, 2)) if turned else view
    copy = schedule.buffer(f"{node.name}.near", source.type)
    schedule.step(node, "copy", [source], [copy])
    return copy.transpose((0, 1, 3, 2)) if turned else copy


def _passes(schedule: Schedule, call: _Call) -> int:
    """Return how often the kernel reads keys and values; 0 where it does not fit the chip."""
    key = ("tiling", call.problem)
    if key not in schedule.memo:
        work = partial(_tiling, call.problem, schedule.memoise)
        schedule.memo[key] = schedule.memoise(*key, schedule.chip, work, decides=True)
    tiles = cast("AttentionTiling | None", schedule.memo[key])
    return 0 if tiles is None else AttentionPlan(call.problem, tiles, schedule.chip).passes


def _tiling(problem: AttentionProblem, memoise: Memoise, chip: Chip) -> AttentionTiling | None:
    best = _best(problem, memoise, chip)
    return best and best[0]


def _best(problem: AttentionProblem, memoise: Memoise, chip: Chip) -> tuple[AttentionTiling, float] | None:
    """Return the tiling of the one kernel and its estimated cycles; None where none fits the chip."""
    try:
        ranking = tilings(problem, chip, memoise)
    except NoRoom:
        return None
    ((tiles, cycles),) = ranking.ranked(problem.space, chip, 1)
    return tiles, cycles + first_cycles(problem, chip)


def _call(schedule: Schedule, node: Node) -> _Call:
    q, k, v = (schedule.values[x] for x in node.inputs[:3])
    b, h, m, d = q.shape
    g, n, e = k.shape[1], k.shape[2], v.shape[3]
    split = (b, g, h // g, m)
    tape, mask = parse(str(node.attrs["tape"])), integer(node.attrs, "mask", 0)
    numbers = {i: x for i, x in schedule.numbers(node.inputs[3:], 1).items() if i != mask}
    tape, left = inline(tape, numbers)
    names = [node.inputs[i + 2] for i in left if i > 0]
    extras = []
    for name in names:
        full = schedule.values[name].expand((b, h, m, n)).reshape((*split, n))
        assert full is not None  # a dimension that is split is one stride
        extras.append(full)
    mask = left.index(mask) if mask else 0
    scores = ScoreTape(tape, mask, bool(node.attrs.get("guarded", False)))
    packed_q = q.reshape((*split, d)) or schedule.packed(node, q).reshape((*split, d))
    stored = schedule.buffer(node.output, _by_query(node.type))
    out = stored.transpose((0, 2, 1, 3)).reshape((*split, e))
    assert packed_q is not None and out is not None
    diagonal = integer(node.attrs, "diagonal", ALWAYS) if mask else ALWAYS
    space = Memory.DRAM if any(_is_bound(schedule, x) for x in (k, v)) else Memory.SRAM
    return _Call(packed_q, k.transpose((0, 1, 3, 2)), v, out, tuple(extras), scores, diagonal, space)


def _is_bound(schedule: Schedule, view: View) -> bool:
    """Return whether a view is of the model's own tensors, which are in DRAM."""
    names = {schedule.values[v].buffer for v in schedule.graph.outputs if v in schedule.values}
    return schedule.buffers[view.buffer].role != "temp" or view.buffer in names


def _faster(schedule: Schedule, call: _Call) -> tuple[str, int] | None:
    """Return FUSED, with the parts of keys, or SEPARATE, whichever is estimated to be faster.

    UNSURE where time can be asked and the estimates are near, or leave much out: extras that come from DRAM,
    keys that lie column after column. None where the chip holds neither.
    """
    far = any(x.strides[-1] and any(x.strides[2:4]) and _is_bound(schedule, x) for x in call.extras)
    far = far or call.k.strides[-2] != 1
    near = (FAR if far else NEAR) if schedule.fastest is not None else 1.0
    key = ("fused", (call.problem, call.q.shape[1], near))
    if key not in schedule.memo:
        work = partial(_decide, call.problem, call.q.shape[1], near, schedule.memoise)
        schedule.memo[key] = schedule.memoise(*key, schedule.chip, work, decides=True)
    return cast("tuple[str, int] | None", schedule.memo[key])


def _decide(
    p: AttentionProblem, groups: int, near: float, memoise: Memoise, chip: Chip
) -> tuple[str, int] | None:
    best = _best(p, memoise, chip)
    most, parts = math.inf if best is None else best[1], 1
    for count in _part_counts(p, chip):
        cycles = _part_cycles(replace(p, parts=count), memoise, chip)
        if cycles is not None and cycles < most:
            most, parts = cycles, count
    separate = _separate_cycles(p, _strips(p, groups, chip), chip, most * near)
    if separate is None:
        return None if most == math.inf else (FUSED, parts)
    if most < separate * near and separate < most * near:
        return UNSURE, parts
    return (SEPARATE, 1) if separate < most else (FUSED, parts)


def _part_counts(p: AttentionProblem, chip: Chip) -> list[int]:
    """Return in how many parts keys may be taken: as many as leave no PE without work, and fewer.

    None where the queries fill half of the grid, or where some keys are hidden from some of them.
    """
    units = p.groups * ceil_div(p.heads * p.queries, chip.pe.reduce.bank_rows)
    if p.diagonal < p.keys - 1 or not units:
        return []
    most = min(chip.pes // units, p.keys // LEAST_KEYS)
    counts = (most >> i for i in range(3))
    return list(dict.fromkeys(ceil_div(p.keys, ceil_div(p.keys, x)) for x in counts if x > 1))


def _part_cycles(p: AttentionProblem, memoise: Memoise, chip: Chip) -> float | None:
    """Return the estimate of keys in parts, with the launches that join them; None where no row fits."""
    best, rows = _best(p, memoise, chip), p.groups * p.heads * p.queries
    if best is None or not fits(chip, softmax_tape(), p.parts, [FP32], [p.kind]):
        return None
    kind, near = p.kind, Memory.SRAM
    weighed = MatmulProblem(rows, 1, p.parts, p.value_dim, kind, kind, kind, near, near)
    weighing = row_cycles(chip, softmax_tape(), rows, p.parts, (FP32, kind))
    launches = 2 * chip.cycles(chip.launch.replace_s)
    return best[1] + weighing + ranked_matmul(weighed, chip, 1)[0][1] + launches


def _separate_cycles(p: AttentionProblem, strips: int, chip: Chip, most: float) -> float | None:
    """Return the estimate of products and softmax, their launches included; None where a row does not fit.

    None too where the work of the array and of the softmax alone takes longer than `most` cycles.
    """
    kind, each = p.kind, p.heads * p.queries
    count = p.groups * each * p.keys
    if not fits(chip, softmax_tape(), p.keys, [kind], [kind]):
        return None
    rows = strips * row_cycles(chip, softmax_tape(), p.groups // strips * each, p.keys, (kind, kind))
    rows += (3 * strips - 1) * chip.cycles(chip.launch.replace_s)
    if rows + count * (p.dim + p.value_dim) / chip.peak_macs_per_cycle(kind) > most:
        return None
    batch = p.groups // strips
    scores = MatmulProblem(batch, each, p.dim, p.keys, kind, kind, kind, Memory.SRAM, p.space)
    weighted = MatmulProblem(batch, each, p.keys, p.value_dim, kind, kind, kind, Memory.SRAM, p.space)
    try:
        cycles = {x: ranked_matmul(x, chip, 1)[0][1] for x in {scores, weighted}}  # often one
        return rows + strips * add_up(cycles[x] for x in (scores, weighted))
    except NoRoom:
        return None


def _strips(p: AttentionProblem, groups: int, chip: Chip) -> int:
    """Return in how many parts an item's groups are taken, so that a part's scores fit a share of SRAM."""
    size = p.groups * p.heads * p.queries * p.keys * p.kind.bytes
    room = chip.sram.bytes // SCORES_SHARE
    return next((s for s in range(1, groups + 1) if groups % s == 0 and size <= room * s), groups)


def _separate(schedule: Schedule, node: Node, call: _Call) -> None:
    """Schedule a product, a softmax and a product for each part of the groups."""
    strips = _strips(call.problem, call.q.shape[1], schedule.chip)
    for index in range(strips):
        part = _part(call, index, strips)
        b, g, r, m, d = part.q.shape
        n, e, rows = part.k.shape[-1], part.v.shape[-1], b * g * r * m
        scores = schedule.buffer(f"{node.name}.scores", TensorType(part.q.dtype, (b, g, r * m, n)))
        tape = part.scores.tape
        edges = [edge(schedule, node, x, (rows, n)) for x in part.extras] if tape.steps else []
        sizes = {"batch": b * g, "m": r * m}
        q = part.q.reshape((b, g, r * m, d)) or part.q
        epilogue = str(tape) if tape.steps else ""
        schedule.step(node, "matmul", [q, part.k, *edges], [scores], **sizes, k=d, n=n, epilogue=epilogue)
        weights = schedule.buffer(f"{node.name}.weights", scores.type)
        schedule.step(node, "row", [scores], [weights], tape=str(softmax_tape(part.scores.guarded)))
        out = part.out.reshape((b, g, r * m, e)) or part.out
        schedule.step(node, "matmul", [weights, part.v], [out], **sizes, k=n, n=e, epilogue="")


def _part(call: _Call, index: int, strips: int) -> _Call:
    """Return the attention of one part of the groups."""

    def cut(view: View) -> View:
        width = view.shape[1] // strips
        starts = [index * width if i == 1 else 0 for i in range(len(view.shape))]
        return view.slice(starts, (view.shape[0], width, *view.shape[2:]), [1] * len(view.shape))

    q, k, v, out = (cut(x) for x in (call.q, call.k, call.v, call.out))
    return replace(call, q=q, k=k, v=v, out=out, extras=tuple(map(cut, call.extras)))
