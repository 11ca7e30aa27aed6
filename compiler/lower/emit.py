"""Schedule and placement to Program: each distinct kernel call becomes a block, each step a launch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from collections.abc import Mapping as Table
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

from mtia_emu.kernels.attention.fused import ScoreTape, emit_attention
from mtia_emu.kernels.attention.plan import AttentionPlan, AttentionTiling
from mtia_emu.kernels.attention.search import memory_rate
from mtia_emu.kernels.bags.embedding import BagOperands, emit_embedding_bags, emit_gather, ranked_bags
from mtia_emu.kernels.builder import NoRoom
from mtia_emu.kernels.matmul.dense import emit_matmul, epilogue_of
from mtia_emu.kernels.matmul.packed import Weights, emit_matmul_packed, ranked_packed
from mtia_emu.kernels.matmul.plan import MatmulMapping, MatmulPlan, MatmulProblem
from mtia_emu.kernels.matmul.search import demand_of, ranked_matmul
from mtia_emu.kernels.rows.rowwise import emit_rowwise
from mtia_emu.kernels.rows.scalar import emit_scalar
from mtia_emu.kernels.rows.tape import Tape, parse

from mtia_emu.machine.chip import Chip
from mtia_emu.options import Options
from mtia_emu.program.isa import Binding, Block, Launch, Operand, Program
from mtia_emu.types import TensorType, Work, WorkGroup

from ..ops.dequantise import packing
from ..user_kernels import STEP, emit_user, idle_notes
from .beside import SELDOM, KernelCall, Run, moments
from .beside import launches as runs
from .choice import ESTIMATED, Tuning
from .place import Placement
from .prefetch import Ahead, read_ahead
from .rules.attention import tilings
from .split import split
from .steps import Schedule, Step
from .views import View

T = TypeVar("T")
Params = Table[str, Any]
Operands = list[Operand]
DEFAULTS = Options()
PRODUCTS = ("matmul", "matmul_packed")  # kernels that put their result behind two operands


@dataclass(frozen=True)
class About:
    """What a program says of its model and its steps do not: `dtype` is the format that reports name.

    `types` are inputs and outputs as the model's user sees them; `works` is what any other machine would have
    to do, `groups` which of it a serving runtime does in one kernel.
    """

    name: str = ""
    source: str = ""
    dims: Table[str, int] = field(default_factory=dict)
    dtype: str = ""
    types: Table[str, TensorType] = field(default_factory=dict)
    works: tuple[Work, ...] = ()
    notes: tuple[str, ...] = ()
    groups: tuple[WorkGroup, ...] = ()


@dataclass(frozen=True)
class Emitted:
    """A program, the schedule with steps that fit a block each, and the steps of each launch, by number."""

    program: Program
    schedule: Schedule
    steps: tuple[tuple[int, ...], ...]


def emit(
    plan: Schedule,
    placement: Placement,
    about: About,
    *,
    options: Options = DEFAULTS,
    tuning: Tuning = ESTIMATED,
    progress: Callable[[int, int], None] | None = None,
) -> Emitted:
    """Return the program of a placed schedule; `progress` is called with the steps done and all of them.

    `tuning` chooses the mappings of kernels that have several, and may give blocks that were made before.
    """
    plan, call_of = _calls(plan, placement, tuning)
    made = _launches(plan, progress or (lambda done, total: None), tuning, call_of, placement)
    memoise, on = tuning.memoise, options.prefetch
    ahead = read_ahead(plan, placement, made.blocks, made.launches, made.times, memoise, on=on)
    return Emitted(_program(plan, placement, about, ahead), plan, tuple(made.steps))


def _program(plan: Schedule, placement: Placement, about: About, ahead: Ahead) -> Program:
    """Return the program of the blocks and launches that there are."""
    consts = plan.graph.consts

    def bind(value: str, view: View) -> Binding:
        space, address = placement.space[view.buffer], placement.address[view.buffer]
        strides = () if view.contiguous else view.strides
        return Binding(value, view.type, about.types.get(value, view.type), space, address, strides)

    return Program(
        about.name,
        about.source,
        about.dtype,
        dict(about.dims),
        plan.chip.model_dump(),
        tuple(ahead.blocks),
        tuple(ahead.launches),
        tuple(bind(value, plan.values[value]) for value in plan.graph.inputs),
        tuple(bind(value, view) for value, view in plan.outputs.items()),
        tuple(bind(value, plan.values[value]) for value in consts),
        {value: c for value, c in consts.items() if c.present},
        placement.dram_bytes,
        ahead.sram_bytes,
        about.works,
        about.notes + ahead.notes + idle_notes(plan),
        about.groups,
    )


@dataclass
class _Made:
    """Distinct blocks, the launches that run all steps, and of each launch its moment and its steps."""

    blocks: list[Block] = field(default_factory=list)
    launches: list[Launch] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    steps: list[tuple[int, ...]] = field(default_factory=list)


def _calls(
    plan: Schedule, placement: Placement, tuning: Tuning
) -> tuple[Schedule, Callable[[Step], KernelCall]]:
    """Return the schedule with steps that fit a block each, and what gives their kernel calls."""
    blocks = _Blocks(plan.chip, tuning)
    call = partial(_call, placement=placement, packed=_packed(plan), blocks=blocks)
    return split(plan, lambda step: call(step).make(plan.chip)), call


def _launches(
    plan: Schedule,
    progress: Callable[[int, int], None],
    tuning: Tuning,
    call_of: Callable[[Step], KernelCall],
    placement: Placement,
) -> _Made:
    """Return the launches of all steps."""
    numbers: dict[Any, int] = {}
    known: dict[Any, tuple[Run, ...]] = {}
    out, done = _Made(), 0
    groups = [(steps, list(map(call_of, steps))) for steps in moments(plan)]
    counts = Counter(tuple(call.key for call in calls) for _, calls in groups if len(calls) > 1)
    for moment, (steps, calls) in enumerate(groups):
        key = tuple(call.key for call in calls)
        if key not in known:
            often = counts[key] * SELDOM >= len(groups)
            known[key] = runs(calls, plan.chip, tuning.search, tuning.memoise, often=often)
        for run in known[key]:
            number = numbers.setdefault(tuple(key[i] for i in run.calls), len(out.blocks))
            if number == len(out.blocks):
                out.blocks.append(run.block)
            alone = [
                _launch(steps[i], block, _places(steps[i], placement))
                for i, block in zip(run.calls, run.parts or (run.block,), strict=True)
            ]
            out.launches.append(run.launch(number, alone))
            out.times.append(moment)
            out.steps.append(tuple(done + i for i in run.calls))
        done += len(steps)
        progress(done, len(plan.steps))
    return out


@dataclass(frozen=True)
class _Operation:
    """A step with the operands of its kernel; `key` is all that its block depends on besides the chip."""

    step: Step
    inputs: Operands
    outputs: Operands
    key: Any


@dataclass
class _Blocks:
    """Makes the blocks of operations, each once for the whole chip itself."""

    chip: Chip
    tuning: Tuning
    made: dict[Any, Block] = field(default_factory=dict)

    def block(self, one: _Operation, chip: Chip) -> Block:
        """Return the block of an operation on the whole chip, a part, or one that notes what is read."""
        if chip is not self.chip:
            return _block(chip, one, self.tuning)
        if one.key not in self.made:
            self.made[one.key] = _block(chip, one, self.tuning)
        return self.made[one.key]


def _call(step: Step, placement: Placement, packed: set[str], blocks: _Blocks) -> KernelCall:
    """Return the kernel call of a step whose buffers are placed; `packed` as `_packed` has it."""
    inputs = [_operand(v, placement, written=False) for v in step.inputs]
    if step.kernel in PRODUCTS and step.inputs[1].buffer in packed:
        inputs[1] = replace(inputs[1], tiled=True)
    outputs = [_operand(v, placement, written=True) for v in step.outputs]
    key = (step.kernel, step.params, tuple(inputs), tuple(outputs))
    return KernelCall(key, partial(blocks.block, _Operation(step, inputs, outputs, key)))


def _places(step: Step, placement: Placement) -> list[int]:
    views = (*step.inputs, *step.outputs)
    return [placement.address[v.buffer] + v.offset * v.dtype.bytes for v in views]


def _packed(plan: Schedule) -> set[str]:
    """Return the constants that one product alone reads: they are stored in the order of its tiles."""
    uses = Counter(v.buffer for step in plan.steps for v in (*step.inputs, *step.outputs))
    consts = {b.name for b in plan.buffers.values() if b.role == "const"}
    return {name for name, count in uses.items() if count == 1 and name in consts}


def _operand(view: View, placement: Placement, *, written: bool) -> Operand:
    return Operand(
        view.dtype, view.shape or (1,), view.strides or (1,), placement.space[view.buffer], written
    )


def _launch(step: Step, block: Block, places: list[int]) -> Launch:
    """Return the launch; kernels put a result before what is optional: see `_matmul`, `_by_table`."""
    if step.kernel in PRODUCTS:
        places = [*places[:2], places[-1], *places[2:-1]]
    if step.kernel == "attention":
        places = [*places[:3], places[-1], *places[3:-1]]
    if step.kernel == "embedding_bag":
        places = [place for table in _by_table(places, len(step.outputs)) for place in table]
    places += [0] * (len(block.operands) - len(places))  # scratch operands start at the block's scratch
    return Launch(0, tuple(places), step.origin or step.name, step.op, step.name)


def _block(chip: Chip, one: _Operation, tuning: Tuning) -> Block:
    step, params = one.step, dict(one.step.params)
    mapped = _MAPPED.get(step.kernel)
    make = partial(mapped, tuning) if mapped else _EMIT[step.kernel]
    try:
        return tuning.memoise(
            "block", one.key, chip, lambda c: make(c, step.kernel, params, one.inputs, one.outputs)
        )
    except NoRoom as error:
        raise NoRoom(
            f"{step.name} ({step.op}{', ' + step.origin if step.origin else ''}) does not fit {chip.name}: "
            f"{error}"
        ) from None


def _matmul(tuning: Tuning, chip: Chip, kernel: str, p: Params, inputs: Operands, outputs: Operands) -> Block:
    a, b, *extras = inputs
    tape = parse(p["epilogue"]) if p["epilogue"] else None
    problem = MatmulProblem(
        p["batch"],
        p["m"],
        p["k"],
        p["n"],
        a.dtype,
        b.dtype,
        outputs[0].dtype,
        a.space,
        b.space,
        b_batched=len(b.shape) > 2,
        epilogue=epilogue_of(tape, extras),
        out_space=outputs[0].space,
        b_tiled=b.tiled,
    )
    whole = (problem, p["epilogue"], tuple(inputs), outputs[0])

    def made(c: Chip, mapping: MatmulMapping) -> Block:
        return emit_matmul(MatmulPlan(problem, mapping, c), a, b, outputs[0], tape, extras)

    def ranked(c: Chip, count: int) -> list[MatmulMapping]:
        demand = tuning.memoise("demand", problem, c, lambda c: demand_of(problem, c))
        return [mapping for mapping, _ in ranked_matmul(problem, c, count, demand)]

    # apart: a mapping asks about all of the chip, the commands that it stands for about little
    mapping = tuning.choose(whole if tuning.search.time else problem, chip, ranked, made)
    return tuning.memoise("product", (whole, mapping), chip, lambda c: made(c, mapping))


def _matmul_packed(
    tuning: Tuning, chip: Chip, kernel: str, p: Params, inputs: Operands, outputs: Operands
) -> Block:
    a, codes, *rest = inputs
    zeros = rest.pop() if p["zeros"] else None
    scales, (out,) = rest.pop(), outputs
    form = packing({"k": p["k"], "block": p["block"]}, codes.dtype)
    weights = Weights(form.k, form.block, form.planes, form.plane_rows, zeros is not None, scales.dtype)
    tape = parse(p["epilogue"])
    problem = MatmulProblem(
        1,
        p["m"],
        form.plane_rows,
        p["n"],
        a.dtype,
        codes.dtype,
        out.dtype,
        a.space,
        codes.space,
        b_batched=False,
        epilogue=epilogue_of(tape, rest),
        out_space=out.space,
        b_tiled=codes.tiled,
    )

    def made(c: Chip, mapping: MatmulMapping) -> Block:
        plan = MatmulPlan(problem, mapping, c)
        return emit_matmul_packed(plan, weights, a, (codes, scales, zeros), out, tape, rest)

    key = (problem, weights, p["epilogue"], tuple(inputs), out) if tuning.search.time else (problem, weights)
    return made(chip, tuning.choose(key, chip, lambda c, n: ranked_packed(problem, weights, c, n), made))


def _rowwise(chip: Chip, kernel: str, p: Params, inputs: Operands, outputs: Operands) -> Block:
    return emit_rowwise(chip, kernel, parse(p["tape"]), inputs, outputs)


def _copy(chip: Chip, kernel: str, p: Params, inputs: Operands, outputs: Operands) -> Block:
    return emit_rowwise(chip, kernel, Tape(1, (), (0,)), inputs, outputs)


def _gather(chip: Chip, kernel: str, p: Params, inputs: Operands, outputs: Operands) -> Block:
    return emit_gather(chip, inputs[0], inputs[1], outputs[0])


def _embedding_bag(
    tuning: Tuning, chip: Chip, kernel: str, p: Params, inputs: Operands, outputs: Operands
) -> Block:
    tables = [BagOperands(*t) for t in _by_table([*inputs, *outputs], len(outputs))]

    def made(c: Chip, most: int) -> Block:
        return emit_embedding_bags(
            c, tables, p["mode"], quantised=p["quantised"], lowest=p["lowest"], most=most
        )

    key = (kernel, tuple(sorted(p.items())), tuple(inputs), tuple(outputs))
    return made(chip, tuning.choose(key, chip, lambda c, n: ranked_bags(c, tables, n), made))


def _by_table(operands: list[T], tables: int) -> list[list[T]]:
    """Return the operands of each table, as `BagOperands` has them."""
    each = len(operands) // tables - 1
    inputs, outputs = operands[: each * tables], operands[each * tables :]
    parts = [inputs[i * each : (i + 1) * each] for i in range(tables)]
    return [[*part[:3], out, *part[3:]] for part, out in zip(parts, outputs, strict=True)]


def _attention(
    tuning: Tuning, chip: Chip, kernel: str, p: Params, inputs: Operands, outputs: Operands
) -> Block:
    q, k, v, *extras = inputs
    scores = ScoreTape(parse(p["tape"]), p["mask"], p["guarded"])
    problem = replace(p["problem"], space=k.space)
    whole = (problem, p["tape"], p["mask"], p["guarded"], tuple(inputs), outputs[0])

    def made(c: Chip, tiles: AttentionTiling) -> Block:
        return emit_attention(AttentionPlan(problem, tiles, c), q, k, v, outputs[0], scores, extras)

    def ranked(c: Chip, count: int) -> list[AttentionTiling]:
        found = tilings(problem, tuning.memoise, c)
        return [tiles for tiles, _ in found.ranked(memory_rate(problem, c), count)]

    tiles = tuning.choose(whole if tuning.search.time else problem, chip, ranked, made)
    return tuning.memoise("fused attention", (whole, tiles), chip, lambda c: made(c, tiles))


def _scalar(chip: Chip, kernel: str, p: Params, inputs: Operands, outputs: Operands) -> Block:
    return emit_scalar(chip, p["op"], dict(p["attrs"]), inputs, outputs)


_EMIT: dict[str, Callable[[Chip, str, Params, Operands, Operands], Block]] = {
    "map": _rowwise,
    "row": _rowwise,
    "rotary": _rowwise,
    "copy": _copy,
    "gather": _gather,
    "scalar": _scalar,
    STEP: emit_user,
}
_MAPPED: dict[str, Callable[[Tuning, Chip, str, Params, Operands, Operands], Block]] = {
    "attention": _attention,
    "embedding_bag": _embedding_bag,
    "matmul": _matmul,
    "matmul_packed": _matmul_packed,
}
