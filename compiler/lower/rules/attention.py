"""How attention is scheduled: as one kernel that keeps scores to itself, or as products and a softmax."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

from mtia_emu.kernels.attention.fused import ScoreTape
from mtia_emu.kernels.attention.kernel import tilings
from mtia_emu.kernels.attention.plan import ALWAYS, AttentionPlan, AttentionProblem, AttentionTiling
from mtia_emu.kernels.attention.search import first_cycles, memory_rate
from mtia_emu.kernels.builder import NoRoom
from mtia_emu.kernels.matmul.plan import MatmulProblem
from mtia_emu.kernels.matmul.search import ranked_matmul
from mtia_emu.kernels.rows.estimate import row_cycles
from mtia_emu.kernels.rows.tape import finish, inline, parse

from mtia_emu.machine.chip import Chip
from mtia_emu.machine.memories import Memory
from mtia_emu.machine.units.simd import FUNCTIONS
from mtia_emu.reuse.memo import Memoise
from mtia_emu.sums import add_up
from mtia_emu.types import TensorType

from ...graph import Node
from ...ops.base import integer
from ..steps import Schedule
from ..views import View, whole
from .products import edge
from .row_parts import fits
from .rows import softmax_tape

SCORES_SHARE = 8  # one part in so many of SRAM is for the scores of the heads that are taken at once
FUSED, SEPARATE, UNSURE = "fused", "separate", "by time"
NEAR, FAR = 1.3, 4.0  # estimates this near are not trusted; those that leave much out


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
    faster = _faster(schedule, call)
    if faster is None:
        return schedule.on_core(node)
    if faster == UNSURE:
        _faster_by_time(schedule, node, call)
    else:
        _WAYS[faster](schedule, node, call)
    return [whole(call.out.buffer, _by_query(node.type)).transpose((0, 2, 1, 3))]


def _fused(schedule: Schedule, node: Node, call: _Call) -> None:
    """Schedule the one kernel."""
    scoring = {"tape": str(call.scores.tape), "mask": call.scores.mask, "guarded": call.scores.guarded}
    operands = [call.q, call.k, call.v, *call.extras]
    schedule.step(node, "attention", operands, [call.out], problem=call.problem, **scoring)


def _faster_by_time(schedule: Schedule, node: Node, call: _Call) -> None:
    """Schedule what takes less time by its blocks, of two ways whose estimates are near."""
    assert schedule.fastest is not None
    at, kept = len(schedule.steps), dict(schedule.buffers)
    tried = []
    for way in (_fused, _separate):
        way(schedule, node, call)
        tried.append((schedule.steps[at:], schedule.buffers))
        del schedule.steps[at:]
        schedule.buffers = dict(kept)
    schedule.buffers = tried[0][1] | tried[1][1]
    steps, schedule.buffers = tried[schedule.fastest(schedule, [steps for steps, _ in tried])]
    schedule.steps += steps


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
    ((tiles, cycles),) = ranking.ranked(memory_rate(problem, chip), 1)
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


def _faster(schedule: Schedule, call: _Call) -> str | None:
    """Return FUSED or SEPARATE, whichever is estimated to be faster; None where the chip holds neither.

    UNSURE where time can be asked and the estimates are near, or leave much out: extras that come from DRAM,
    keys that lie column after column.
    """
    far = any(x.strides[-1] and any(x.strides[2:4]) and _is_bound(schedule, x) for x in call.extras)
    far = far or call.k.strides[-2] != 1
    near = (FAR if far else NEAR) if schedule.fastest is not None else 1.0
    key = ("fused", (call.problem, call.q.shape[1], near))
    if key not in schedule.memo:
        work = partial(_decide, call.problem, call.q.shape[1], near, schedule.memoise)
        schedule.memo[key] = schedule.memoise(*key, schedule.chip, work, decides=True)
    return cast("str | None", schedule.memo[key])


def _decide(p: AttentionProblem, groups: int, near: float, memoise: Memoise, chip: Chip) -> str | None:
    best = _best(p, memoise, chip)
    most = math.inf if best is None else best[1]
    separate = _separate_cycles(p, _strips(p, groups, chip), chip, most * near)
    if best is None:
        return None if separate is None else SEPARATE
    if separate is None:
        return FUSED
    if most < separate * near and separate < most * near:
        return UNSURE
    return SEPARATE if separate < most else FUSED


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
        return rows + strips * add_up(ranked_matmul(x, chip, 1)[0][1] for x in (scores, weighted))
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


_WAYS = {FUSED: _fused, SEPARATE: _separate}
